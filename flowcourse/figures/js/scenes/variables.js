// The change of variables on the line: an increasing spline T with knots to drag, the density of noise x below it, the density
// of y = T(x) at its left, and a short interval with its image. The two densities have one scale, so that areas compare.

import { fixed } from "../engine.js";
import { arrowKeys, handles } from "../handles.js";

const SEEN = 3.25, GAP = 0.1; // what is seen of x and y; how close the heights of knots may come
const q = (x) => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);

// The rational-quadratic spline of flowlib.splines through the knots (x_k, y_k) with slopes d_k: [T(x), T'(x)]
export function spline(xs, ys, slopes, x) {
  const k = xs.findIndex((end) => end > x) - 1;
  if (k < 0) return [x, 1]; // outside of the knots
  const width = xs[k + 1] - xs[k], height = ys[k + 1] - ys[k], s = height / width, r = (x - xs[k]) / width, product = r * (1 - r);
  const [a, b] = [slopes[k], slopes[k + 1]], below = s + (a + b - 2 * s) * product;
  return [
    ys[k] + height * (s * r * r + a * product) / below,
    (b * r * r + 2 * s * product + a * (1 - r) ** 2) * (s / below) ** 2,
  ];
}

// Slopes at the inner knots: the harmonic means of those of the two chords; 1 at the ends
export function tangents(xs, ys) {
  const chords = xs.slice(1).map((x, k) => (ys[k + 1] - ys[k]) / (x - xs[k]));
  return xs.map((_, k) => (k && k < xs.length - 1 ? 2 / (1 / chords[k - 1] + 1 / chords[k]) : 1));
}

// The area below a polygon of pairs [place, height]
export const area = (points) => points.reduce((sum, [x, y], i) => sum + (i && ((y + points[i - 1][1]) / 2) * (x - points[i - 1][0])), 0);

export function variables(spec, engine) {
  const { values, colors, panels: [panel] } = engine, { bound, knots } = spec;
  let heights = [...spec.heights], slopes;
  const ends = (list) => [-bound, ...list, bound];
  const bend = () => (slopes = tangents(ends(knots), ends(heights)));
  const map = (x) => spline(ends(knots), ends(heights), slopes, x);
  const range = (from, to, count) => Array.from({ length: count + 1 }, (_, i) => from + (i / count) * (to - from));
  // Points [x, q(x), T(x), p(T(x))]
  const trace = (from, to, count) => range(from, to, count).map((x) => {
    const [y, slope] = map(x);
    return [x, q(x), y, q(x) / slope];
  });
  bend();

  function change(name) {
    const k = values.knot - 1;
    if (name === "knot") engine.set("y", heights[k]);
    if (name !== "y") return;
    const least = ends(heights)[k] + GAP, most = ends(heights)[k + 2] - GAP;
    heights[k] = +Math.max(least, Math.min(most, values.y)).toFixed(2);
    bend();
    if (values.y !== heights[k]) engine.set("y", heights[k]);
  }

  const { x: input, dx } = engine.inputs;
  const slide = (x) => engine.set("x", +Math.max(+input.min, Math.min(+input.max, x)).toFixed(2));
  const grip = (Y) => Y > panel.Y(-SEEN);
  handles(
    panel,
    (name) => (name === "x" ? "ew-resize" : name ? "ns-resize" : "crosshair"),
    (X, Y) => {
      const away = knots.map((x, k) => Math.hypot(X - panel.X(x), Y - panel.Y(heights[k]))), k = away.indexOf(Math.min(...away));
      if (away[k] < 28) return `${k + 1}`;
      if (grip(Y) && Math.abs(X - panel.X(values.x + values.dx / 2)) < 16 + (panel.X(values.dx) - panel.X(0)) / 2) return "x";
    },
    (name, x, y) => {
      if (name === "x") return slide(x - values.dx / 2);
      if (values.knot !== +name) engine.set("knot", +name);
      engine.set("y", +y.toFixed(2));
    },
    (x, y) => y < -SEEN && slide(x - values.dx / 2),
  );
  arrowKeys(panel, (right, up) => {
    if (right) engine.set("knot", Math.max(1, Math.min(knots.length, values.knot + Math.sign(right))));
    if (up) engine.set("y", values.y + 0.05 * up);
  });

  // The map is a square of equal units in the upper right; below and beside it, the axes with the densities that stand on them.
  function layout() {
    const { width, height } = panel, strip = 0.28 * height, size = Math.min(height - 30 - strip - 6, 0.62 * width);
    const unit = size / (2 * SEEN), left = -SEEN - (width - 30 - size - 6) / unit, top = SEEN + 6 / unit;
    panel.frame(left, left + (width - 30) / unit, top - (height - 30) / unit, top, 30);
    return (strip - 24) / 0.4; // pixels for a density of 1
  }

  function draw() {
    const tall = layout(), { X, Y, width, height } = panel, { source, data, path, muted, ink, page } = colors;
    const { x, dx } = values, floor = height - 30, all = trace(-4, 4, 400), some = trace(x, x + dx, 100);
    const line = (pen, points) => points.forEach((point, i) => pen[i ? "lineTo" : "moveTo"](...point));
    const under = ([x, h]) => [X(x), floor - tall * h], aside = ([, , y, h]) => [30 + tall * h, Y(y)];
    const [from, to] = [some[0], some.at(-1)];

    panel.ink(muted, 1, 0.35, (pen) => pen.rect(X(-SEEN), Y(SEEN), X(SEEN) - X(-SEEN), Y(-SEEN) - Y(SEEN)));
    panel.ink(muted, 1, 0.6, (pen) => line(pen, [[X(-SEEN), Y(-SEEN)], [X(SEEN), Y(SEEN)]]), [2, 5]);
    // The interval's way up to T and over to its image
    panel.ink(path, 0, 0.13, (pen) => {
      line(pen, [[X(from[0]), floor], ...some.map(([x, , y]) => [X(x), Y(y)]), [X(to[0]), floor]]);
      pen.closePath();
      line(pen, [[30, Y(from[2])], ...some.map(([x, , y]) => [X(x), Y(y)]), [30, Y(to[2])]]);
    });
    panel.ink(path, 1, 0.7, (pen) => [from, to].forEach(([x, , y]) => line(pen, [[X(x), floor], [X(x), Y(y)], [30, Y(y)]])), [2, 4]);
    for (const [color, at, base] of [[source, under, ([x]) => [[X(x), floor]]], [data, aside, ([, , y]) => [[30, Y(y)]]]]) {
      const fill = (points) => (pen) => line(pen, [...base(points[0]), ...points.map(at), ...base(points.at(-1))]);
      panel.ink(color, 0, 0.13, fill(all));
      panel.ink(color, 0, 0.6, fill(some));
      panel.ink(color, 2, 1, (pen) => line(pen, all.map(at)));
    }
    panel.ink(ink, 1, 0.7, (pen) => line(pen, [[30, 0], [30, floor], [width, floor]]));

    panel.ink(page, 6, 0.8, (pen) => line(pen, all.filter(([x]) => Math.abs(x) <= SEEN).map(([x, , y]) => [X(x), Y(y)])));
    panel.ink(path, 3, 1, (pen) => line(pen, all.filter(([x]) => Math.abs(x) <= SEEN).map(([x, , y]) => [X(x), Y(y)])));
    const [y, slope] = map(x), long = 46 / Math.hypot(1, slope);
    panel.ink(ink, 1.6, 1, (pen) => line(pen, [[X(x) - long, Y(y) + slope * long], [X(x) + long, Y(y) - slope * long]]));
    panel.ink(ink, 0, 1, (pen) => pen.arc(X(x), Y(y), 3.5, 0, 7));
    knots.forEach((x, k) => {
      const chosen = k + 1 === values.knot;
      for (const [radius, color] of [[10, page], [8, path], [chosen ? 0 : 5.5, page]]) panel.ink(color, 0, 1, (pen) => pen.arc(X(x), Y(heights[k]), radius, 0, 7));
      if (chosen) panel.ink(ink, 1.5, 1, (pen) => pen.arc(X(x), Y(heights[k]), 11, 0, 7));
    });

    for (let a = -3; a < 3; a++) {
      panel.text(String(a), X(a), height - 16);
      panel.text(String(a), 15, Y(a));
    }
    panel.text("x", X(3), height - 16, "center", true);
    panel.text("y", 15, Y(3), "center", true);
    panel.text("q", X(-1.2), floor - tall * q(-1.2) - 12, "right", true, "source");
    const [, , peak, most] = all.reduce((best, row) => (row[0] * (x + dx / 2) < 0 && row[3] > best[3] ? row : best), [0, 0, 0, 0]);
    panel.text("p", Math.min(40 + tall * most, width - 24), Y(peak), "left", true, "data");
    panel.text("T", X(SEEN) - 16, Y(-SEEN) - 16, "center", true, "path");
    const [below, beside] = areas();
    panel.text(`area ${below.toFixed(3)}`, X(x + dx / 2), floor - 0.4 * tall - 13, "center", false, "source");
    const end = 38 + tall * Math.max(...some.map(([, , , h]) => h)), high = end > width - 84; // so high that it leaves the picture
    panel.text(`area ${beside.toFixed(3)}`, high ? Math.max(38, X(-SEEN) - 80) : end, (Y(from[2]) + Y(to[2])) / 2 - (high && 16), "left", false, "data");
  }

  // As drawn: with the heights of each density at its own places
  function areas() {
    const some = trace(values.x, values.x + values.dx, 400);
    return [area(some.map(([x, h]) => [x, h])), area(some.map(([, , y, h]) => [y, h]))];
  }

  function readout() {
    const { x, dx } = values, [y, slope] = map(x), [end] = map(x + dx), [below, beside] = areas();
    return `x = ${fixed(x)}, y = T(x) = ${fixed(y)} · slope T′(x) = ${fixed(slope)}, so q(x) = ${fixed(q(x), 3)} becomes p(y) = ${fixed(q(x) / slope, 3)} · length ${fixed(dx)} becomes ${fixed(end - y)} · areas ${fixed(below, 3)} and ${fixed(beside, 3)}`;
  }

  return {
    draw,
    readout,
    change,
    reset: () => ((heights = [...spec.heights]), bend()),
    state: () => ({ heights, slopes, areas: areas() }),
    positions: () => [values.x, map(values.x)[0]],
  };
}
