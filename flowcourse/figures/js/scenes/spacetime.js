// Solutions of x' = v(x, t) on the line, drawn against time: two starts to drag, and fields where solutions are unique and
// last, where they are not unique, and where they do not last.

import { fixed } from "../engine.js";

// Each velocity, and its solution from x(0) = x. Where x' = sqrt|x| arrives at 0 it may wait, here until tau at least.
const settled = (t) => (2 * Math.sin(3 * t) - 6 * Math.cos(3 * t)) / 10;
const arrival = (x) => 2 * Math.sqrt(-x);
export const scalars = {
  forced: {
    velocity: (x, t) => 2 * Math.sin(3 * t) - x,
    solution: (x, t) => (x - settled(0)) * Math.exp(-t) + settled(t),
  },
  root: {
    velocity: (x) => Math.sqrt(Math.abs(x)),
    solution(x, t, tau) {
      if (x > 0) return (Math.sqrt(x) + t / 2) ** 2;
      const zero = arrival(x);
      return t < zero ? -(((zero - t) / 2) ** 2) : (Math.max(0, t - Math.max(tau, zero)) / 2) ** 2;
    },
  },
  square: {
    velocity: (x) => x * x,
    solution: (x, t) => (x * t < 1 ? x / (1 - x * t) : Infinity),
  },
};

export function spacetime(spec, engine) {
  const { values, colors, panels: [panel] } = engine, { end, low, high } = spec;
  const kind = () => spec.fields[values.field ?? Object.keys(spec.fields)[0]].kind;
  const at = (name, t, tau = values.tau) => scalars[kind()].solution(values[name], t, tau);
  const starts = [["a", "circle", "source"], ["b", "square", "data"]];

  function change(name) {
    engine.inputs.tau.disabled = kind() !== "root";
    if (name === "field") for (const [start] of starts) engine.set(start, spec.fields[values.field][start]);
  }

  // Dragging a start. A finger on a handle must not scroll the page; a finger elsewhere may.
  const { canvas } = panel;
  let held;
  const place = ({ clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  };
  const handle = (point) => {
    const [X, Y] = place(point), away = (name) => Math.hypot(X - panel.X(0), Y - panel.Y(values[name]));
    const [nearest] = ["a", "b"].sort((p, q) => away(p) - away(q));
    return away(nearest) < 30 && nearest;
  };
  const follow = (event) => held && engine.set(held, Math.max(low, Math.min(high, Math.round(100 * panel.inverse(...place(event))[1]) / 100)));
  canvas.addEventListener("touchstart", (event) => handle(event.touches[0]) && event.preventDefault(), { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    held = handle(event);
    if (held) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    canvas.style.cursor = held || handle(event) ? "ns-resize" : "default";
    follow(event);
  });
  for (const over of ["pointerup", "pointercancel"]) canvas.addEventListener(over, () => (held = null));

  function curve(pen, from, to, solution) {
    for (let n = 0; n <= 200; n++) {
      const t = from + (n / 200) * (to - from), x = Math.min(solution(t), 2 * high);
      pen[n ? "lineTo" : "moveTo"](panel.X(t), panel.Y(x));
      if (x === 2 * high) break;
    }
  }

  function mark(shape, X, Y, size) {
    return (pen) => (shape === "circle" ? pen.arc(X, Y, size, 0, 7) : pen.rect(X - size * 0.9, Y - size * 0.9, size * 1.8, size * 1.8));
  }

  function draw() {
    panel.frame(0, end, low, high, 34);
    const { t } = values, { muted, ink, path, error, page } = colors, { X, Y, width, height } = panel;
    const { velocity } = scalars[kind()], arrows = [], scale = X(1) - X(0), rise = Y(0) - Y(1);
    const columns = Math.round((width - 34) / 36), rows = Math.round((height - 34) / 36);
    for (let i = 0; i < columns; i++)
      for (let j = 0; j < rows; j++) {
        const s = (end * (i + 0.5)) / columns, x = low + ((high - low) * (j + 0.5)) / rows;
        const slope = velocity(x, s) * rise, length = 20 / Math.hypot(scale, slope);
        arrows.push(X(s), Y(x), scale * length, -slope * length);
      }
    panel.arrows(muted, 1.1, 0.75, arrows);
    panel.ink(ink, 1, 0.6, (pen) => {
      pen.moveTo(X(0), 0);
      pen.lineTo(X(0), Y(low));
      pen.lineTo(width, Y(low));
    });
    panel.ink(muted, 1.5, 1, (pen) => (pen.moveTo(X(t), 0), pen.lineTo(X(t), Y(low))), [2, 4]);
    for (const [name, shape, role] of starts) {
      const x = values[name], color = colors[role];
      if (kind() === "root" && x <= 0)
        for (let tau = arrival(x); tau < end; tau += 0.25)
          panel.ink(path, 1.2, 0.7, (pen) => curve(pen, tau, end, (s) => at(name, s, tau)));
      if (kind() === "square" && x * end > 1) {
        panel.ink(error, 1.5, 1, (pen) => (pen.moveTo(X(1 / x), 0), pen.lineTo(X(1 / x), Y(low))), [6, 5]);
        panel.text(`t* = ${fixed(1 / x)}`, X(1 / x) + 8, 16, "left", true);
      }
      panel.ink(color, 2.5, 0.35, (pen) => curve(pen, t, end, (s) => at(name, s)));
      panel.ink(color, 3, 1, (pen) => curve(pen, 0, t, (s) => at(name, s)));
    }
    for (const [name, shape, role] of starts) {
      const now = at(name, t);
      for (const [s, x, size] of [[0, values[name], 9], [t, now, 6]]) {
        if (x > high) continue;
        panel.ink(page, 0, 1, mark(shape, X(s), Y(x), size + 2));
        panel.ink(colors[role], 0, 1, mark(shape, X(s), Y(x), size));
      }
    }
    for (let s = 0; s < end; s++) panel.text(String(s), X(s), height - 17);
    for (let x = Math.ceil(low); x < high; x++) panel.text(String(x), 15, Y(x));
    panel.text("t", width - 12, height - 17, "center", true);
    panel.text("x", 15, 14, "center", true);
  }

  function readout() {
    const { t, a, b } = values, [p, q] = [at("a", t), at("b", t)];
    const told = { forced: [], root: [], square: [] };
    const where = (x) => (!isFinite(x) ? "at infinity" : x > high ? `above the picture at ${fixed(x)}` : `at ${fixed(x)}`);
    if (a === b) told.forced.push("one start, one curve");
    else told.forced.push(`distance ${Math.abs(p - q).toPrecision(2)}: it shrinks, and is never 0`);
    if (a > 0 && b > 0) told.root.push("above 0 they cannot meet");
    else if (a <= 0 && b <= 0 && a !== b) told.root.push(`they meet at x = 0, at t = ${fixed(arrival(Math.min(a, b)))}`);
    if (a <= 0 || b <= 0) told.root.push("whoever is at 0 may leave at any time τ");
    for (const [name, shape] of starts) if (values[name] > 0) told.square.push(`the ${shape} blows up at t* = ${fixed(1 / values[name])}`);
    if (!told.square.length) told.square.push("from here, both last forever");
    return `t = ${fixed(t)} · circle ${where(p)}, square ${where(q)} · ${told[kind()].join("; ")}`;
  }

  change();
  return { draw, readout, change, positions: () => [at("a", values.t), at("b", values.t)] };
}
