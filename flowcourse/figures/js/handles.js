// What a reader drags. `find(X, Y)` names the handle at a pixel, if there is one; `move(handle, x, y)` puts it elsewhere, in the
// panel's units; `tap(x, y)` is called where there was none. A finger on a handle must not scroll the page; a finger elsewhere
// may. `state.held` is the handle in the hand.
export function handles(panel, cursor, find, move, tap) {
  const { canvas } = panel, state = {};
  let pressed;
  const place = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  };
  canvas.addEventListener("touchstart", (event) => find(...place(event.touches[0])) && event.preventDefault(), { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    state.held = find(...place(event));
    pressed = !state.held && place(event);
    if (state.held) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    canvas.style.cursor = cursor(state.held ?? find(...place(event)), state.held);
    if (state.held) move(state.held, ...panel.inverse(...place(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    const [X, Y] = place(event);
    if (pressed && Math.hypot(X - pressed[0], Y - pressed[1]) < 6) tap(...panel.inverse(X, Y));
  });
  for (const over of ["pointerup", "pointercancel"]) canvas.addEventListener(over, () => (state.held = pressed = undefined));
  return state;
}

// Arrow keys on a canvas: press(dx, dy) with steps of 1, or of 5 with Shift.
export function arrowKeys({ canvas }, press) {
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    press(...step.map((s) => s * (event.shiftKey ? 5 : 1)));
    event.preventDefault();
  });
}
