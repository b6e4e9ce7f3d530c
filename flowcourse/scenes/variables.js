// The change of variables on the line: an increasing spline T with knots to drag, the density of noise x below it, the density
// of y = T(x) at its left, and a short interval with its image. The two densities have one scale, so that areas compare.

import { handles, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const SEEN = 3.25; // what is seen of x and y
const GAP = 0.1; // how close the heights of knots may come
const q = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

// The rational-quadratic spline of flowlib.splines through the knots (x_k, y_k) with slopes d_k: [T(x), T'(x)]
export function spline(xs, ys, slopes, x) {
  const k = xs.findIndex((end) => end > x) - 1;
  if (k < 0) return [x, 1]; // outside of the knots
  const width = xs[k + 1] - xs[k];
  const height = ys[k + 1] - ys[k];
  const s = height / width;
  const r = (x - xs[k]) / width;
  const product = r * (1 - r);
  const [a, b] = [slopes[k], slopes[k + 1]];
  const below = s + (a + b - 2 * s) * product;
  return [
    ys[k] + (height * (s * r * r + a * product)) / below,
    (b * r * r + 2 * s * product + a * (1 - r) ** 2) * (s / below) ** 2,
  ];
}

// Slopes at the inner knots: the harmonic means of those of the two chords; 1 at the ends
export function tangents(xs, ys) {
  const chords = xs.slice(1).map((x, k) => (ys[k + 1] - ys[k]) / (x - xs[k]));
  return xs.map((_, k) => (k && k < xs.length - 1 ? 2 / (1 / chords[k - 1] + 1 / chords[k]) : 1));
}

// The area below a polygon of pairs [place, height]
export const area = (points) =>
  points.reduce((sum, [x, y], i) => sum + (i && ((y + points[i - 1][1]) / 2) * (x - points[i - 1][0])), 0);

export function variables(spec, engine) {
  const { values, colors } = engine;
  const [panel] = engine.panels;
  const { bound, knots } = spec;
  const [first, last] = spec.places; // of the interval
  let heights = [...spec.heights];
  let slopes;
  const ends = (list) => [-bound, ...list, bound];
  const bend = () => {
    slopes = tangents(ends(knots), ends(heights));
  };
  const map = (x) => spline(ends(knots), ends(heights), slopes, x);
  const range = (from, to, count) =>
    Array.from({ length: count + 1 }, (_, i) => from + (i / count) * (to - from));
  // Points [x, q(x), T(x), p(T(x))]
  const trace = (from, to, count) =>
    range(from, to, count).map((x) => {
      const [y, slope] = map(x);
      return [x, q(x), y, q(x) / slope];
    });
  bend();

  function change(name) {
    const k = values.knot - 1;
    if (name === "knot") engine.set("y", heights[k]);
    if (name !== "y") return;
    const least = ends(heights)[k] + GAP;
    const most = ends(heights)[k + 2] - GAP;
    heights[k] = +Math.max(least, Math.min(most, values.y)).toFixed(2);
    bend();
    if (values.y !== heights[k]) engine.set("y", heights[k]);
  }

  const slide = (x) => engine.set("x", +Math.max(first, Math.min(last, x)).toFixed(2));
  handles(panel, {
    find(X, Y) {
      const away = knots.map((x, k) => Math.hypot(X - panel.X(x), Y - panel.Y(heights[k])));
      const k = away.indexOf(Math.min(...away));
      if (away[k] < 28) return `${k + 1}`;
      const middle = panel.X(values.x + values.dx / 2);
      const half = (panel.X(values.dx) - panel.X(0)) / 2;
      return Y > panel.Y(-SEEN) && Math.abs(X - middle) < 16 + half && "x";
    },
    move(name, x, y) {
      if (name === "x") return slide(x - values.dx / 2);
      if (values.knot !== +name) engine.set("knot", +name);
      engine.set("y", +y.toFixed(2));
    },
    tap: (x, y) => y < -SEEN && slide(x - values.dx / 2),
    cursor: (name) => (name === "x" ? "ew-resize" : name ? "ns-resize" : "crosshair"),
  });
  keys(panel, (right, up) => {
    if (right) engine.set("knot", Math.max(1, Math.min(knots.length, values.knot + Math.sign(right))));
    if (up) engine.set("y", values.y + 0.05 * up);
  });

  // The map is a square of equal units in the upper right; below and beside it, the axes with the densities that stand on them.
  function layout() {
    const { width, height } = panel;
    const strip = 0.28 * height;
    const size = Math.min(height - 30 - strip - 6, 0.62 * width);
    const unit = size / (2 * SEEN);
    const left = -SEEN - (width - 30 - size - 6) / unit;
    const top = SEEN + 6 / unit;
    panel.frame(left, left + (width - 30) / unit, top - (height - 30) / unit, top, 30);
    return (strip - 24) / 0.4; // pixels for a density of 1
  }

  function draw() {
    const tall = layout();
    const { X, Y, width, height } = panel;
    const { source, data, path, muted, ink, page } = colors;
    const { x, dx } = values;
    const floor = height - 30;
    const all = trace(-4, 4, 400);
    const some = trace(x, x + dx, 100);
    const line = (points) => points.forEach((point, i) => panel.pen[i ? "lineTo" : "moveTo"](...point));
    const under = ([x, h]) => [X(x), floor - tall * h];
    const aside = ([, , y, h]) => [30 + tall * h, Y(y)];
    const along = ([x, , y]) => [X(x), Y(y)];
    const [from, to] = [some[0], some.at(-1)];

    panel.ink(muted, 1, 0.35, (pen) => pen.rect(X(-SEEN), Y(SEEN), X(SEEN) - X(-SEEN), Y(-SEEN) - Y(SEEN)));
    panel.line(
      muted,
      1,
      0.6,
      [
        [-SEEN, -SEEN],
        [SEEN, SEEN],
      ],
      [2, 5],
    );
    // The interval's way up to T and over to its image
    panel.ink(path, 0, 0.13, (pen) => {
      line([[X(from[0]), floor], ...some.map(along), [X(to[0]), floor]]);
      pen.closePath();
      line([[30, Y(from[2])], ...some.map(along), [30, Y(to[2])]]);
      pen.closePath();
    });
    const edge = (row) => line([[X(row[0]), floor], along(row), [30, Y(row[2])]]);
    panel.ink(path, 1, 0.7, () => [from, to].forEach(edge), [2, 4]);
    for (const [color, at, base] of [
      [source, under, ([x]) => [X(x), floor]],
      [data, aside, ([, , y]) => [30, Y(y)]],
    ]) {
      const area = (points) => () => line([base(points[0]), ...points.map(at), base(points.at(-1))]);
      panel.ink(color, 0, 0.13, area(all));
      panel.ink(color, 0, 0.6, area(some));
      panel.ink(color, 2, 1, () => line(all.map(at)));
    }
    panel.ink(ink, 1, 0.7, () =>
      line([
        [30, 0],
        [30, floor],
        [width, floor],
      ]),
    );

    const seen = all.filter(([x]) => Math.abs(x) <= SEEN).map(([x, , y]) => [x, y]);
    panel.line(page, 6, 0.8, seen);
    panel.line(path, 3, 1, seen);
    const [y, slope] = map(x);
    const long = 46 / Math.hypot(1, slope);
    panel.ink(ink, 1.6, 1, () =>
      line([
        [X(x) - long, Y(y) + slope * long],
        [X(x) + long, Y(y) - slope * long],
      ]),
    );
    panel.dots(ink, 3.5, [x, y]);
    knots.forEach((x, k) => {
      const chosen = k + 1 === values.knot;
      const place = [x, heights[k]];
      panel.dots(page, 10, place);
      panel.dots(path, 8, place);
      if (!chosen) panel.dots(page, 5.5, place);
      else panel.dots(ink, 11, place, 1, 1.5);
    });
    drawNames(tall, all, some);
  }

  function drawNames(tall, all, some) {
    const { X, Y, width, height } = panel;
    const { x, dx } = values;
    const floor = height - 30;
    for (let a = -3; a < 3; a++) {
      panel.text(String(a), X(a), height - 16);
      panel.text(String(a), 15, Y(a));
    }
    panel.text("x", X(3), height - 16, "center", true);
    panel.text("y", 15, Y(3), "center", true);
    panel.text("q", X(-1.2), floor - tall * q(-1.2) - 12, "right", true, "source");
    // p at its peak on the other side
    const other = all.filter(([place]) => place * (x + dx / 2) < 0);
    const peak = other.reduce((best, row) => (row[3] > best[3] ? row : best), [0, 0, 0, 0]);
    panel.text("p", Math.min(40 + tall * peak[3], width - 24), Y(peak[2]), "left", true, "data");
    panel.text("T", X(SEEN) - 16, Y(-SEEN) - 16, "center", true, "path");
    const [below, beside] = areas();
    panel.text(`area ${below.toFixed(3)}`, X(x + dx / 2), floor - 0.4 * tall - 13, "center", false, "source");
    const end = 38 + tall * Math.max(...some.map(([, , , h]) => h));
    const middle = (Y(some[0][2]) + Y(some.at(-1)[2])) / 2;
    const [left, up] = end > width - 84 ? [Math.max(38, X(-SEEN) - 80), 16] : [end, 0]; // so high that it leaves the picture
    panel.text(`area ${beside.toFixed(3)}`, left, middle - up, "left", false, "data");
  }

  // As drawn: with the heights of each density at its own places
  function areas() {
    const some = trace(values.x, values.x + values.dx, 400);
    return [area(some.map(([x, h]) => [x, h])), area(some.map(([, , y, h]) => [y, h]))];
  }

  function readout() {
    const { x, dx } = values;
    const [y, slope] = map(x);
    const [end] = map(x + dx);
    const [below, beside] = areas();
    const densities = `slope T′(x) = ${fixed(slope)}, so q(x) = ${fixed(q(x), 3)} becomes p(y) = ${fixed(q(x) / slope, 3)}`;
    const sizes = `length ${fixed(dx)} becomes ${fixed(end - y)} · areas ${fixed(below, 3)} and ${fixed(beside, 3)}`;
    return `x = ${fixed(x)}, y = T(x) = ${fixed(y)} · ${densities} · ${sizes}`;
  }

  return {
    draw,
    readout,
    change,
    reset() {
      heights = [...spec.heights];
      bend();
    },
    state: () => ({ heights, slopes, areas: areas() }),
    positions: () => [values.x, map(values.x)[0]],
  };
}
