// One trajectory of the plane, exact and as a solver finds it: its steps, the places where a step reads the field, and
// the error at t = 1 against the evaluations that it cost, for every method.

import { memory } from "../explorables/memory.js";
import { between, fields, lengths, odeint, usualSpeed, velocities } from "../explorables/numerics.js";
import { choices, handles, keys } from "../explorables/pointer.js";
import { fixed, power, scientific } from "../explorables/words.js";

const COUNTS = [1, 2, 4, 8, 16, 32, 64]; // steps at which the chart shows errors
const FLOOR = 1e-12; // the least error shown

// Where a step of length h from (x, t) reads the field, and the slopes it reads there.
export function stages(field, x, t, h, { a, c }) {
  const places = [];
  const slopes = [];
  a.forEach((row, i) => {
    places.push(x.map((x_k, k) => row.reduce((sum, w, j) => sum + h * w * slopes[j][k], x_k)));
    slopes.push(velocities(field, places[i], t + c[i] * h));
  });
  return { places, slopes };
}

// Distances to the exact ends, the largest over all points, after each number of steps
export function errors(field, start, ends, method, counts = COUNTS) {
  return counts.map((N) => {
    const found = odeint(field, start, 0, 1, N, method).at(-1);
    return Math.max(...lengths(found.map((x, i) => x - ends[i])));
  });
}

export function solver(spec, engine) {
  const { values, colors } = engine;
  const [plane, chart] = engine.panels;
  const { window: reach, methods, reference } = spec;
  const names = Object.keys(methods);
  const most = 64 * Math.max(...names.map((name) => methods[name].b.length));
  const remember = memory();
  let start = [...spec.start];
  let moved = "";
  let known, later;
  let cost = 0;

  const described = () => spec.fields[values.field ?? Object.keys(spec.fields)[0]];
  const field = () => remember("field", `${values.field}`, () => fields[described().kind](described()));
  const name = () => values.method ?? names[0];
  const steps = () => values.steps;
  const problem = () => `${values.field} ${start}`;
  const key = () => `${problem()} ${name()} ${steps()}`;
  const states = () =>
    remember("states", key(), () => odeint(field(), start, 0, 1, steps(), methods[name()]));
  const follow = (N) => odeint(field(), start, 0, 1, N, reference);

  // The start: dragged, or placed by a tap, or moved by arrow keys
  const put = (x, y) => {
    const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
    start = [within(x, plane.right), within(y, plane.top)];
    moved = `Start at ${fixed(start[0])}, ${fixed(start[1])}. `;
    engine.say(moved);
    engine.draw();
  };
  const hand = handles(plane, {
    find: (X, Y) => Math.hypot(X - plane.X(start[0]), Y - plane.Y(start[1])) < 30 && "start",
    move: (_, x, y) => put(x, y),
    tap: put,
    drop: engine.draw,
  });
  keys(plane, (right, up) => put(start[0] + 0.1 * right, start[1] + 0.1 * up));

  // The exact trajectory and every method's errors: in a moving hand less exactly, and where even that takes longer than a
  // frame allows, not before the hand rests.
  function compute() {
    const began = performance.now();
    const exact = follow(hand.held ? 128 : 512);
    const curves = names.map((method) => errors(field(), start, exact.at(-1), methods[method]));
    known = { problem: problem(), rough: Boolean(hand.held), exact, curves };
    if (hand.held) cost = performance.now() - began;
  }
  // They may be those of another start until the hand rests: then `fresh` is false.
  function measured() {
    const stale = () => known?.problem !== problem();
    if (stale() || (known.rough && !hand.held)) {
      clearTimeout(later);
      if (!hand.held || cost < 8) compute();
      else
        later = setTimeout(() => {
          compute();
          engine.draw();
        }, 150);
    }
    return { ...known, fresh: !stale() };
  }
  const exact = () => {
    const { fresh, exact } = measured();
    return fresh ? exact : remember("coarse", problem(), () => follow(64));
  };
  // The errors with N steps and with 2N
  const pair = () =>
    remember("pair", `${key()} ${known.exact.length}`, () =>
      errors(field(), start, known.exact.at(-1), methods[name()], [steps(), 2 * steps()]),
    );

  // A tap on a mark of the chart chooses its method and its number of steps.
  let chosen = false;
  choices(
    chart,
    (X, Y) => {
      const { fresh, curves } = measured();
      const marks = curves.flatMap((curve, i) =>
        curve.map((error, j) => {
          const away = Math.hypot(X - chart.X(across(names[i], COUNTS[j])), Y - chart.Y(up(error)));
          return { away, method: names[i], steps: COUNTS[j] };
        }),
      );
      const [nearest] = marks.sort((a, b) => a.away - b.away);
      return fresh && nearest.away < 22 ? nearest : undefined;
    },
    (mark) => {
      chosen = true;
      if (engine.inputs.method) engine.set("method", mark.method);
      engine.set("steps", mark.steps);
    },
  );

  // The plane, from back to front

  const pixels = ([x, y]) => [plane.X(x), plane.Y(y)];
  const rimmed = (panel, color, radius, x, rim = 1.5) => {
    panel.dots(colors.page, radius + rim, x);
    panel.dots(color, radius, x);
  };

  function drawArrows(t) {
    const gap = reach / 5;
    const x = remember("places", `${plane.right} ${plane.top}`, () => plane.places(gap));
    // One spacing is the speed that nine in ten arrows do not exceed.
    const scale = remember("scale", `${values.field} ${x.length}`, () => gap / usualSpeed(field(), x));
    const long = (speed) => Math.min(scale, (0.9 * gap) / speed);
    plane.quiver(colors.muted, 1.1, 0.6, x, velocities(field(), x, t), long);
  }

  // The stages of the step in which t lies: from its start a thin line to each place, a ring there, and the arrow read.
  function drawStages(n, h) {
    const { ink, page } = colors;
    const { places, slopes } = stages(field(), states()[n], n * h, h, methods[name()]);
    const unit = plane.X(1) - plane.X(0);
    const top = Math.max(...slopes.map((k) => Math.hypot(...k))) * unit;
    if (!(top < 1e6 && top > 0)) return;
    const length = (Math.max(26, Math.min(64, 0.4 * h * top)) / top) * unit;
    const [from] = places;
    plane.lines(
      ink,
      1.3,
      0.8,
      places.map((x) => [from, x]),
      [1, 4],
    );
    if (places.length > 1 && h * top > 60) nameStages(places, n);
    const list = places.flatMap((x, i) => {
      const [X, Y] = pixels(x);
      const [dx, dy] = [slopes[i][0] * length, -slopes[i][1] * length];
      return [X + dx / 2, Y + dy / 2, dx, dy];
    });
    plane.arrows(page, 5, 1, list);
    plane.arrows(ink, 2.2, 1, list);
    const flat = places.flatMap((x) => [...x]);
    plane.dots(page, 4.5, flat);
    plane.dots(ink, 4.5, flat, 1, 2);
  }

  // Names on the side of the step's line where their places lie; on the line, on that of the others
  function nameStages(places, n) {
    const [A, B] = pixels(places[0]);
    const [C, D] = pixels(states()[n + 1]);
    const long = Math.hypot(C - A, D - B) || 1;
    const [u, v] = [(B - D) / long, (C - A) / long];
    const away = places.map(pixels).map(([X, Y]) => u * (X - A) + v * (Y - B));
    const all = away.reduce((a, b) => a + b) < 0 ? -1 : 1;
    places.map(pixels).forEach(([X, Y], i) => {
      const side = 17 * (Math.abs(away[i]) < 1 ? all : Math.sign(away[i]));
      plane.text(`k${"₁₂₃₄₅₆₇₈₉"[i]}`, X + side * u, Y + side * v, "center", true);
    });
  }

  function drawPlane() {
    plane.plane(reach);
    const { t } = values;
    const { path, truth, error, source, page } = colors;
    const N = steps();
    const n = Math.min(Math.floor(t * N + 1e-9), N - 1);
    drawArrows(t);
    const found = states();
    const now = between(found, t);
    const way = exact();
    const end = way.at(-1);
    plane.line(
      truth,
      1.8,
      1,
      way.filter((_, i) => i % (way.length >> 6) === 0),
      [2, 5],
    );
    plane.line(path, 2.5, 0.4, [now, ...found.slice(n + 1)]);
    plane.line(path, 2.5, 1, [...found.slice(0, n + 1), now]);
    if (N <= 32)
      for (const [some, alpha] of [
        [found.slice(0, n + 1), 1],
        [found.slice(n + 1), 0.5],
      ])
        plane.dots(
          path,
          N > 16 ? 2.5 : 3.5,
          some.flatMap((x) => [...x]),
          alpha,
        );
    plane.line(error, 3.5, 1, [end, found[N]]);
    plane.ink(page, 0, 1, () => plane.square(...pixels(end), 6));
    plane.ink(truth, 0, 1, () => plane.square(...pixels(end), 4.5));
    rimmed(plane, path, 4.5, found[N]);
    rimmed(plane, source, 8.5, start, 2);
    drawStages(n, 1 / N);
    rimmed(plane, path, 5.5, now);
    plane.axes();
  }

  // The chart: error against evaluations, both in logarithms

  const across = (method, N) => Math.log2(N * methods[method].b.length);
  const up = (error) => Math.log10(Math.max(FLOOR, Math.min(1e4, error || (error === 0 ? FLOOR : 1e4))));
  // Whole decades that hold the errors from nine starts in the middle of the plane, so that the axis seldom moves
  const decades = (curves) => {
    const usual = remember("usual", `${values.field}`, () => {
      const nine = [-0.5, 0, 0.5].flatMap((x) => [-0.5, 0, 0.5].flatMap((y) => [x * reach, y * reach]));
      const ends = odeint(field(), nine, 0, 1, 128, reference).at(-1);
      return names.flatMap((method) => errors(field(), nine, ends, methods[method], [1, 64]));
    });
    const all = [...usual, ...curves.flat()].map(up);
    const low = Math.floor(Math.min(...all));
    return [low, Math.max(Math.ceil(Math.max(...all)), low + 3)];
  };

  // Marks of the methods, in turn: circles, squares, triangles, diamonds
  const polygon = (corners) => (X, Y, r) => {
    corners.forEach(([x, y], i) => chart.pen[i ? "lineTo" : "moveTo"](X + x * r, Y + y * r));
    chart.pen.closePath();
  };
  const marks = [
    chart.circle,
    chart.square,
    polygon([
      [0, -1.3],
      [1.2, 1],
      [-1.2, 1],
    ]),
    polygon([
      [0, -1.4],
      [1.4, 0],
      [0, 1.4],
      [-1.4, 0],
    ]),
  ];
  const dashes = [[], [7, 4], [2, 4], [8, 4, 2, 4]];

  function drawChart() {
    const { fresh, curves } = measured();
    const { muted, ink, path, page, error } = colors;
    const [low, high] = decades(curves);
    const right = Math.log2(most) + 1.4;
    chart.frame(-0.6, right, low - 0.15, high + 0.35, 34);
    const { X, Y, width, height } = chart;
    const bottom = height - 34;
    chart.ink(muted, 1, 0.22, (pen) => {
      for (let k = low; k <= high; k++) {
        pen.moveTo(34, Y(k));
        pen.lineTo(width, Y(k));
      }
      for (let k = 0; k < right; k += 2) {
        pen.moveTo(X(k), 0);
        pen.lineTo(X(k), bottom);
      }
    });
    chart.ink(ink, 1, 0.6, (pen) => {
      pen.moveTo(34, 0);
      pen.lineTo(34, bottom);
      pen.lineTo(width, bottom);
    });
    const every = (high - low) * 22 > bottom ? 2 : 1;
    for (let k = low; k <= high; k += every) chart.text(power(k), 30, Y(k), "right");
    for (let k = 0; k <= Math.log2(most); k += 2) chart.text(String(2 ** k), X(k), height - 24);
    chart.text("evaluations of the field", (34 + width) / 2, height - 8);
    if (engine.live && !chosen) chart.text("tap a mark to try it", width - 8, 12, "right");

    const now = name();
    const alpha = fresh ? 1 : 0.35;
    const order = names.map((_, i) => i).sort((i, j) => (names[i] === now) - (names[j] === now)); // the chosen one on top
    for (const i of order) {
      const mine = names[i] === now;
      const color = mine ? path : muted;
      const list = curves[i].map((error, j) => [across(names[i], COUNTS[j]), up(error)]);
      const dots = (radius) => () => list.forEach(([x, y]) => marks[i % 4](X(x), Y(y), radius));
      chart.line(color, mine ? 2.5 : 1.4, alpha, list, mine ? [] : dashes[i % 4]);
      chart.ink(page, 0, 1, dots(mine ? 5 : 4.2));
      chart.ink(color, 0, alpha, dots(mine ? 3.5 : 3));
    }
    if (fresh) drawSlope(curves[names.indexOf(now)]);
    nameCurves(curves, bottom);
    if (fresh) rimmed(chart, error, 7.5, [across(now, steps()), up(pair()[0])], 2);
  }

  // Names at the lines' ends, pushed apart where they would meet
  function nameCurves(curves, bottom) {
    const { X, Y, width, pen } = chart;
    const ends = names.map((method, i) => [method, X(across(method, 64)) + 9, Y(up(curves[i].at(-1)))]);
    let last = -Infinity;
    const spread = ends
      .sort((a, b) => a[2] - b[2])
      .map(([method, X, Y]) => {
        last = Math.max(Y, last + 14);
        return [method, X, last];
      });
    const over = Math.max(0, last - (bottom - 8));
    pen.font = "12px system-ui, sans-serif";
    for (const [method, X, Y] of spread) {
      const room = width - 4 - pen.measureText(method).width;
      chart.text(method, Math.min(X, room), Y - over, "left", false, method === name() ? "path" : "muted");
    }
  }

  // A triangle of the slope that the method's order promises: four times the evaluations, the error divided by 4^order.
  function drawSlope(curve) {
    const { X, Y } = chart;
    const { order } = methods[name()];
    const end = curve[5];
    if (!(end > 10 * FLOOR && end < 1e3)) return;
    const [x, y] = [across(name(), 32), up(end)];
    const [left, right] = [X(x - 2) - 8, X(x) - 8];
    const [low, high] = [Y(y) + 8, Y(y + order * Math.log10(4)) + 8];
    chart.ink(colors.ink, 1.2, 1, (pen) => {
      pen.moveTo(left, high);
      pen.lineTo(left, low);
      pen.lineTo(right, low);
      pen.closePath();
    });
    chart.text("× 4", (left + right) / 2, low + 10);
    chart.text(`÷ ${4 ** order}`, left - 5, (low + high) / 2, "right");
  }

  function readout() {
    const N = steps();
    const { length } = methods[name()].b;
    const s = (count) => (count > 1 ? "s" : "");
    const reads = length > 1 ? ` × ${length}` : "";
    const spent = `${name()}, ${N} step${s(N)}${reads} = ${N * length} evaluation${s(N * length)}`;
    return `t = ${fixed(values.t)} · ${spent} · error at t = 1: ${measured().fresh ? toldError() : "…"}`;
  }

  function toldError() {
    const [one, two] = pair();
    const ratio = one / two;
    if (!(two > 1e-13 && Number.isFinite(ratio))) return scientific(one);
    const change = `${ratio < 1 ? "multiplies" : "divides"} it by ${scientific(Math.max(ratio, 1 / ratio))}`;
    return `${scientific(one)} · half the step ${change} (order ${fixed(Math.log2(ratio), 1)})`;
  }

  return {
    draw() {
      measured();
      drawPlane();
      drawChart();
    },
    readout,
    change(control) {
      if (control === "field") cost = 0;
    },
    heard() {
      const text = moved + readout();
      moved = "";
      return text;
    },
    reset() {
      start = [...spec.start];
    },
    state() {
      const { fresh, curves } = measured();
      const named = Object.fromEntries(names.map((method, i) => [method, curves[i]]));
      return { starts: start, error: fresh ? pair()[0] : null, curves: fresh ? named : null };
    },
    positions: () => [...between(states(), values.t)],
  };
}
