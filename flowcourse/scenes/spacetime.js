// Solutions of x' = v(x, t) on the line, drawn against time: two starts to drag, and fields where solutions are unique and
// last, where they are not unique, and where they do not last.

import { handles } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

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

const STARTS = [
  ["a", "circle", "source"],
  ["b", "square", "data"],
];

export function spacetime(spec, engine) {
  const { values, colors } = engine;
  const [panel] = engine.panels;
  const { end, low, high } = spec;
  const kind = () => spec.fields[values.field ?? Object.keys(spec.fields)[0]].kind;
  const at = (name, t, tau = values.tau) => scalars[kind()].solution(values[name], t, tau);

  function change(name) {
    if (engine.inputs.tau) engine.inputs.tau.disabled = kind() !== "root";
    if (name === "field") for (const [start] of STARTS) engine.set(start, spec.fields[values.field][start]);
  }

  handles(panel, {
    find(X, Y) {
      const away = (name) => Math.hypot(X - panel.X(0), Y - panel.Y(values[name]));
      const [nearest] = ["a", "b"].sort((p, q) => away(p) - away(q));
      return away(nearest) < 30 && nearest;
    },
    move: (name, _, x) => engine.set(name, Math.max(low, Math.min(high, Math.round(100 * x) / 100))),
    cursor: (name) => (name ? "ns-resize" : "default"),
  });

  // A solution from one time to another, as far as it is seen
  function curve(from, to, solution) {
    const points = [];
    for (let n = 0; n <= 200; n++) {
      const t = from + (n / 200) * (to - from);
      points.push([t, Math.min(solution(t), 2 * high)]);
      if (points.at(-1)[1] === 2 * high) break;
    }
    return points;
  }

  function drawSlopes() {
    const { X, Y, width, height } = panel;
    const { velocity } = scalars[kind()];
    const arrows = [];
    const [scale, rise] = [X(1) - X(0), Y(0) - Y(1)];
    // about 36 pixels apart, and as many on pages of nearly the same width
    const [columns, rows] = [9 * Math.round((width - 34) / 324), 3 * Math.round((height - 34) / 108)];
    for (let i = 0; i < columns; i++)
      for (let j = 0; j < rows; j++) {
        const t = (end * (i + 0.5)) / columns;
        const x = low + ((high - low) * (j + 0.5)) / rows;
        const slope = velocity(x, t) * rise;
        const length = 20 / Math.hypot(scale, slope);
        arrows.push(X(t), Y(x), scale * length, -slope * length);
      }
    panel.arrows(colors.muted, 1.1, 0.75, arrows);
  }

  function drawCurves(name, color) {
    const { t } = values;
    const x = values[name];
    if (kind() === "root" && x <= 0)
      for (let tau = arrival(x); tau < end; tau += 0.25)
        panel.line(
          colors.path,
          1.2,
          0.7,
          curve(tau, end, (s) => at(name, s, tau)),
        );
    if (kind() === "square" && x * end > 1) {
      panel.line(
        colors.error,
        1.5,
        1,
        [
          [1 / x, high],
          [1 / x, low],
        ],
        [6, 5],
      );
      panel.text(`t* = ${fixed(1 / x)}`, panel.X(1 / x) + 8, 16, "left", true);
    }
    panel.line(
      color,
      2.5,
      0.35,
      curve(t, end, (s) => at(name, s)),
    );
    panel.line(
      color,
      3,
      1,
      curve(0, t, (s) => at(name, s)),
    );
  }

  function drawMarks(name, shape, color) {
    const { t } = values;
    for (const [s, x, size] of [
      [0, values[name], 9],
      [t, at(name, t), 6],
    ]) {
      if (x > high) continue;
      for (const [more, ink] of [
        [2, colors.page],
        [0, color],
      ])
        panel.ink(ink, 0, 1, () =>
          panel[shape](panel.X(s), panel.Y(x), (size + more) * (shape === "square" ? 0.9 : 1)),
        );
    }
  }

  function draw() {
    panel.frame(0, end, low, high, 34);
    panel.layer("slopes", kind(), 1, drawSlopes);
    panel.line(colors.ink, 1, 0.6, [
      [0, high],
      [0, low],
      [end, low],
    ]);
    panel.line(
      colors.muted,
      1.5,
      1,
      [
        [values.t, high],
        [values.t, low],
      ],
      [2, 4],
    );
    for (const [name, , role] of STARTS) drawCurves(name, colors[role]);
    for (const [name, shape, role] of STARTS) drawMarks(name, shape, colors[role]);
    panel.layer("numbers", "", 1, drawNumbers);
  }

  function drawNumbers() {
    const { X, Y, width, height } = panel;
    for (let t = 0; t < end; t++) panel.text(String(t), X(t), height - 17);
    for (let x = Math.ceil(low); x < high; x++) panel.text(String(x), 15, Y(x));
    panel.text("t", width - 12, height - 17, "center", true);
    panel.text("x", 15, 14, "center", true);
  }

  function readout() {
    const { t, a, b } = values;
    const [p, q] = [at("a", t), at("b", t)];
    const told = { forced: [], root: [], square: [] };
    const where = (x) => {
      if (!Number.isFinite(x)) return "at infinity";
      return x > high ? `above the picture at ${fixed(x)}` : `at ${fixed(x)}`;
    };
    if (a === b) told.forced.push("one start, one curve");
    else told.forced.push(`distance ${Math.abs(p - q).toPrecision(2)}: it shrinks, and is never 0`);
    if (a > 0 && b > 0) told.root.push("above 0 they cannot meet");
    else if (a <= 0 && b <= 0 && a !== b)
      told.root.push(`they meet at x = 0, at t = ${fixed(arrival(Math.min(a, b)))}`);
    if (a <= 0 || b <= 0) told.root.push("whoever is at 0 may leave at any time τ");
    for (const [name, shape] of STARTS)
      if (values[name] > 0) told.square.push(`the ${shape} blows up at t* = ${fixed(1 / values[name])}`);
    if (!told.square.length) told.square.push("from here, both last forever");
    return `t = ${fixed(t)} · circle ${where(p)}, square ${where(q)} · ${told[kind()].join("; ")}`;
  }

  change();
  return { draw, readout, change, positions: () => [at("a", values.t), at("b", values.t)] };
}
