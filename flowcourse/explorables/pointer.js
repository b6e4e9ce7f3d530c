// A reader's hand on a panel: handles to drag, strokes to draw, things to choose, keys to press. A finger that holds a handle
// must not scroll the page; a finger elsewhere may.

const CLOSE = 6; // pixels that a pointer may move and still tap

const place = (canvas, { clientX, clientY }) => {
  const box = canvas.getBoundingClientRect();
  return [clientX - box.left, clientY - box.top];
};

// `find(X, Y)` names the handle at a pixel, if there is one; `move(handle, x, y)` puts it elsewhere, in the panel's units, and
// `drop()` ends that; `tap(x, y)` is called where there was none. A mouse takes the handle `anywhere` from anywhere; where it only
// passes, `hover(x, y)` is called, and `hover()` when it leaves.
export function handles(panel, { find, move, tap, drop, anywhere, cursor, hover }) {
  const { canvas } = panel;
  const look = cursor ?? ((handle, held) => (held ? "grabbing" : handle ? "grab" : "crosshair"));
  const state = {};
  let pressed;
  const carry = (event) => move(state.held, ...panel.inverse(...place(canvas, event)));
  const over = () => {
    const held = state.held;
    state.held = pressed = undefined;
    if (held) drop?.();
  };
  canvas.addEventListener(
    "touchstart",
    (event) => find(...place(canvas, event.touches[0])) && event.preventDefault(),
    { passive: false },
  );
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    state.held = find(...place(canvas, event)) || undefined;
    if (!state.held && anywhere && event.pointerType === "mouse") {
      state.held = anywhere;
      carry(event);
    }
    if (state.held) canvas.setPointerCapture(event.pointerId);
    else pressed = place(canvas, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    canvas.style.cursor = look(state.held ?? find(...place(canvas, event)), state.held);
    if (state.held) carry(event);
    else if (event.pointerType === "mouse") hover?.(...panel.inverse(...place(canvas, event)));
  });
  canvas.addEventListener("pointerleave", () => hover?.());
  canvas.addEventListener("pointerup", (event) => {
    const [X, Y] = place(canvas, event);
    if (pressed && Math.hypot(X - pressed[0], Y - pressed[1]) < CLOSE) tap?.(...panel.inverse(X, Y));
    over();
  });
  canvas.addEventListener("pointercancel", over);
  return state;
}

// `tap(X, Y)` where a pointer is pressed and let go, `along(X, Y)` about every 6 pixels of a stroke. What `begin(X, Y, event)`
// returned goes to `undo` when the browser takes the pointer away, as it does when a finger scrolls; false is no stroke at all.
export function strokes({ canvas }, { begin, tap, along, undo }) {
  let last, kept, moved;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const at = place(canvas, event);
    kept = begin(...at, event);
    if (kept === false) return;
    last = at;
    moved = false;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [X, Y] = place(canvas, event);
    if (!last || Math.hypot(X - last[0], Y - last[1]) < CLOSE) return;
    last = [X, Y];
    moved = true;
    along(X, Y);
  });
  canvas.addEventListener("pointerup", () => {
    if (last && !moved) tap(...last);
    last = undefined;
  });
  canvas.addEventListener("pointercancel", () => {
    if (last) undo(kept);
    last = undefined;
  });
}

// `find(X, Y)` is what can be chosen at a pixel, or undefined; a tap there chooses it.
export function choices({ canvas }, find, choose) {
  canvas.addEventListener("pointermove", (event) => {
    canvas.style.cursor = find(...place(canvas, event)) === undefined ? "default" : "pointer";
  });
  canvas.addEventListener("click", (event) => {
    const found = find(...place(canvas, event));
    if (found !== undefined) choose(found);
  });
}

// Arrow keys on a canvas: press(right, up) with steps of 1, or of 5 with Shift; `others` by name.
export function keys({ canvas }, press, others = {}) {
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  canvas.addEventListener("keydown", (event) => {
    const step = arrows[event.key];
    if (step) press(...step.map((s) => s * (event.shiftKey ? 5 : 1)));
    else if (others[event.key]) others[event.key]();
    else return;
    event.preventDefault();
  });
}
