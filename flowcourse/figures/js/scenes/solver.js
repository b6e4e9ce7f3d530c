// One trajectory of the plane, exact and as a solver finds it: its steps, the places where a step reads the field, and
// the error at t = 1 against the evaluations that it cost, for every method.

import { between, fields, odeint } from "../numerics.js";
import { fixed, scientific } from "../engine.js";

const COUNTS = [1, 2, 4, 8, 16, 32, 64], FLOOR = 1e-12;

// Where a step of length h from (x, t) reads the field, and the slopes it reads there.
export function stages(field, x, t, h, { a, c }) {
  const places = [], slopes = [];
  a.forEach((row, i) => {
    places.push(x.map((x_k, k) => row.reduce((sum, w, j) => sum + h * w * slopes[j][k], x_k)));
    field(places[i], t + c[i] * h, (slopes[i] = new Float64Array(x.length)));
  });
  return { places, slopes };
}

// Distances to the exact ends, the largest over all points, after each number of steps
export function errors(field, start, ends, method, counts = COUNTS) {
  return counts.map((N) => {
    const found = odeint(field, start, 0, 1, N, method).at(-1);
    return found.reduce((most, _, i) => (i % 2 ? most : Math.max(most, Math.hypot(found[i] - ends[i], found[i + 1] - ends[i + 1]))), 0);
  });
}

export function solver(spec, engine) {
  const { values, colors, panels: [plane, chart] } = engine, { window: reach, methods, reference } = spec;
  const names = Object.keys(methods), most = 64 * Math.max(...names.map((name) => methods[name].b.length));
  let start = [...spec.start], held = false, tap, moved = "", later, cost = 0;

  // Whatever takes time is remembered under a name until its key changes.
  const memory = {};
  const remember = (name, key, make) => {
    if (memory[name]?.key !== key) memory[name] = { key, value: make() };
    return memory[name].value;
  };

  const described = () => spec.fields[values.field ?? Object.keys(spec.fields)[0]];
  const field = () => remember("field", `${values.field}`, () => fields[described().kind](described()));
  const name = () => values.method ?? names[0];
  const steps = () => values.steps;
  const problem = () => `${values.field} ${start}`;
  const states = () => remember("states", `${problem()} ${name()} ${steps()}`, () => odeint(field(), start, 0, 1, steps(), methods[name()]));
  const follow = (N) => odeint(field(), start, 0, 1, N, reference);

  // The exact trajectory and every method's errors: in a moving hand less exactly, and where even that takes longer than a
  // frame allows, not before the hand rests.
  function compute() {
    const began = performance.now(), exact = follow(held ? 128 : 512);
    const curves = names.map((method) => errors(field(), start, exact.at(-1), methods[method]));
    memory.known = { key: problem(), rough: held, value: { exact, curves } };
    if (held) cost = performance.now() - began;
  }
  function known() {
    if (memory.known?.key !== problem() || (memory.known.rough && !held)) {
      clearTimeout(later);
      if (!held || cost < 8) compute();
      else later = setTimeout(() => (compute(), engine.draw()), 150);
    }
    return memory.known.key === problem() && memory.known.value;
  }
  const exact = () => known().exact ?? remember("coarse", problem(), () => follow(64));
  // The errors with N steps and with 2N
  const pair = () => remember("pair", `${problem()} ${name()} ${steps()} ${known().exact.length}`, () => errors(field(), start, known().exact.at(-1), methods[name()], [steps(), 2 * steps()]));

  // The start: dragged, or placed by a tap, or moved by arrow keys. A finger on it must not scroll the page; a finger
  // elsewhere may.
  const { canvas } = plane;
  const place = ({ clientX, clientY }, panel = plane) => {
    const box = panel.canvas.getBoundingClientRect();
    return [clientX - box.left, clientY - box.top];
  };
  const onHandle = (point) => {
    const [X, Y] = place(point);
    return Math.hypot(X - plane.X(start[0]), Y - plane.Y(start[1])) < 30;
  };
  const put = (x, y) => {
    const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
    start = [within(x, plane.right), within(y, plane.top)];
    moved = `Start at ${fixed(start[0])}, ${fixed(start[1])}. `;
    engine.say(moved);
    engine.draw();
  };
  canvas.addEventListener("touchstart", (event) => onHandle(event.touches[0]) && event.preventDefault(), { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    held = onHandle(event);
    tap = !held && place(event);
    if (held) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    canvas.style.cursor = held ? "grabbing" : onHandle(event) ? "grab" : "crosshair";
    if (held) put(...plane.inverse(...place(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    const [X, Y] = place(event);
    if (tap && Math.hypot(X - tap[0], Y - tap[1]) < 6) put(...plane.inverse(X, Y));
  });
  for (const over of ["pointerup", "pointercancel"]) canvas.addEventListener(over, () => ((held = tap = false), engine.draw()));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!move) return;
    const size = event.shiftKey ? 0.5 : 0.1;
    put(start[0] + size * move[0], start[1] + size * move[1]);
    event.preventDefault();
  });

  // A tap on a mark of the chart chooses its method and its number of steps.
  const marked = (event) => {
    const [X, Y] = place(event, chart), marks = [];
    known().curves?.forEach((curve, i) => curve.forEach((error, j) => {
      const away = Math.hypot(X - chart.X(across(names[i], COUNTS[j])), Y - chart.Y(up(error)));
      if (away < 22) marks.push([away, names[i], COUNTS[j]]);
    }));
    return marks.sort((a, b) => a[0] - b[0])[0];
  };
  chart.canvas.addEventListener("pointermove", (event) => (chart.canvas.style.cursor = marked(event) ? "pointer" : "default"));
  chart.canvas.addEventListener("click", (event) => {
    const [, method, N] = marked(event) ?? [];
    if (method && engine.inputs.method) engine.set("method", method);
    if (method) engine.set("steps", N);
  });

  // The plane, from back to front

  const dot = (pen, X, Y, radius) => (pen.moveTo(X + radius, Y), pen.arc(X, Y, radius, 0, 7));
  const square = (pen, X, Y, radius) => pen.rect(X - radius, Y - radius, 2 * radius, 2 * radius);
  const shapes = [
    dot,
    square,
    (pen, X, Y, r) => (pen.moveTo(X, Y - 1.3 * r), pen.lineTo(X + 1.2 * r, Y + r), pen.lineTo(X - 1.2 * r, Y + r), pen.closePath()),
    (pen, X, Y, r) => (pen.moveTo(X, Y - 1.4 * r), pen.lineTo(X + 1.4 * r, Y), pen.lineTo(X, Y + 1.4 * r), pen.lineTo(X - 1.4 * r, Y), pen.closePath()),
  ];
  const pixels = ([x, y]) => [plane.X(x), plane.Y(y)];

  const gridOf = (w, h, gap) => {
    const list = [];
    for (let x = gap / 2 - gap * Math.ceil(w / gap); x < w; x += gap)
      for (let y = gap / 2 - gap * Math.ceil(h / gap); y < h; y += gap) list.push(x, y);
    return list;
  };
  const lengths = (v) => Array.from({ length: v.length / 2 }, (_, i) => Math.hypot(v[2 * i], v[2 * i + 1]));

  function drawArrows(t) {
    const gap = reach / 5, x = remember("places", [plane.right, plane.top].join(), () => Float64Array.from(gridOf(plane.right, plane.top, gap)));
    const read = (t) => {
      const v = new Float64Array(x.length);
      field()(x, t, v);
      return v;
    };
    // One spacing is the speed that nine in ten arrows do not exceed, at any time.
    const scale = remember("scale", `${values.field} ${memory.places.key}`, () => {
      const all = [0, 0.25, 0.5, 0.75, 1].flatMap((t) => lengths(read(t))).sort((a, b) => a - b);
      return gap / (all[Math.floor(0.9 * all.length)] || 1);
    });
    const v = read(t), list = [], unit = plane.X(1) - plane.X(0);
    for (let i = 0; i < x.length; i += 2) {
      const [X, Y] = pixels([x[i], x[i + 1]]);
      if ((X < 32 && Y < 28) || (X > plane.width - 32 && Y > plane.height - 28)) continue; // here the axes have their names
      const length = Math.min(scale, (0.9 * gap) / Math.hypot(v[i], v[i + 1])) * unit;
      list.push(X, Y, v[i] * length, -v[i + 1] * length);
    }
    plane.arrows(colors.muted, 1.1, 0.6, list);
  }

  const line = (pen, list) => list.forEach((x, i) => pen[i ? "lineTo" : "moveTo"](...pixels(x)));

  // The stages of the step in which t lies: from its start a thin line to each place, a ring there, and the arrow read.
  function drawStages(n, h) {
    const { places, slopes } = stages(field(), states()[n], n * h, h, methods[name()]);
    const unit = plane.X(1) - plane.X(0), top = Math.max(...lengths(slopes.flatMap((k) => [...k]))) * unit;
    if (!(top < 1e6 && top > 0)) return;
    const length = (Math.max(26, Math.min(64, 0.4 * h * top)) / top) * unit;
    const [from] = places, { ink, page } = colors;
    plane.ink(ink, 1.3, 0.8, (pen) => places.forEach((x) => line(pen, [from, x])), [1, 4]);
    const list = places.flatMap((x, i) => {
      const [X, Y] = pixels(x), [dx, dy] = [slopes[i][0] * length, -slopes[i][1] * length];
      return [X + dx / 2, Y + dy / 2, dx, dy];
    });
    if (places.length > 1 && h * top > 60) {
      // Names on the side of the step's line where their places lie; on the line, on that of the others
      const [A, B] = pixels(from), [C, D] = pixels(states()[n + 1]), long = Math.hypot(C - A, D - B) || 1, u = (B - D) / long, v = (C - A) / long;
      const away = places.map((x) => pixels(x)).map(([X, Y]) => u * (X - A) + v * (Y - B)), all = away.reduce((a, b) => a + b) < 0 ? -1 : 1;
      places.forEach((x, i) => {
        const [X, Y] = pixels(x), side = 17 * (Math.abs(away[i]) < 1 ? all : Math.sign(away[i]));
        plane.text(`k${"₁₂₃₄₅₆₇₈₉"[i]}`, X + side * u, Y + side * v, "center", true);
      });
    }
    plane.arrows(page, 5, 1, list);
    plane.arrows(ink, 2.2, 1, list);
    for (const [width, color] of [[0, page], [2, ink]]) plane.ink(color, width, 1, (pen) => places.forEach((x) => dot(pen, ...pixels(x), 4.5)));
  }

  function drawPlane() {
    const unit = (2 * reach) / Math.min(plane.width, plane.height), w = (plane.width * unit) / 2, h = (plane.height * unit) / 2;
    plane.frame(-w, w, -h, h);
    const { t } = values, { path, truth, error, source, page } = colors, N = steps(), n = Math.min(Math.floor(t * N + 1e-9), N - 1);
    drawArrows(t);
    const found = states(), now = between(found, t), way = exact(), end = way.at(-1);
    plane.ink(truth, 1.8, 1, (pen) => line(pen, way.filter((_, i) => i % (way.length >> 6) === 0)), [2, 5]);
    plane.ink(path, 2.5, 0.4, (pen) => line(pen, [now, ...found.slice(n + 1)]));
    plane.ink(path, 2.5, 1, (pen) => line(pen, [...found.slice(0, n + 1), now]));
    if (N <= 32)
      for (const [some, alpha] of [[found.slice(0, n + 1), 1], [found.slice(n + 1), 0.5]])
        plane.ink(path, 0, alpha, (pen) => some.forEach((x) => dot(pen, ...pixels(x), N > 16 ? 2.5 : 3.5)));
    plane.ink(error, 3.5, 1, (pen) => line(pen, [end, found[N]]));
    plane.ink(page, 0, 1, (pen) => square(pen, ...pixels(end), 6));
    plane.ink(truth, 0, 1, (pen) => square(pen, ...pixels(end), 4.5));
    for (const [more, color] of [[1.5, page], [0, path]]) plane.ink(color, 0, 1, (pen) => dot(pen, ...pixels(found[N]), 4.5 + more));
    for (const [radius, color] of [[10.5, page], [8.5, source]]) plane.ink(color, 0, 1, (pen) => dot(pen, ...pixels(start), radius));
    drawStages(n, 1 / N);
    for (const [more, color] of [[1.5, page], [0, path]]) plane.ink(color, 0, 1, (pen) => dot(pen, ...pixels(now), 5.5 + more));
    plane.text("x₁", plane.width - 14, plane.height - 12, "center", true);
    plane.text("x₂", 9, 14, "left", true);
    const tick = reach > 2.2 ? 2 : 1;
    for (let x = -tick * Math.floor(w / tick); x < w; x += tick) if (plane.X(x) > 24 && plane.X(x) < plane.width - 30) plane.text(String(x), plane.X(x), plane.height - 11);
    for (let y = -tick * Math.floor(h / tick); y < h; y += tick) if (plane.Y(y) > 30 && plane.Y(y) < plane.height - 24) plane.text(String(y), 9, plane.Y(y), "left");
  }

  // The chart: error against evaluations, both in logarithms

  const across = (method, N) => Math.log2(N * methods[method].b.length);
  const up = (error) => Math.log10(Math.max(FLOOR, Math.min(1e4, error || (error === 0 ? FLOOR : 1e4))));
  const power = (k) => `10${[...String(k)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;
  // Whole decades that hold the errors from nine starts in the middle of the plane, so that the axis seldom moves.
  const decades = (curves) => {
    const usual = remember("usual", `${values.field}`, () => {
      const nine = [-0.5, 0, 0.5].flatMap((x) => [-0.5, 0, 0.5].flatMap((y) => [x * reach, y * reach]));
      const ends = odeint(field(), nine, 0, 1, 128, reference).at(-1);
      return names.flatMap((method) => errors(field(), nine, ends, methods[method], [1, 64]));
    });
    const all = [...usual, ...curves.flat()].map(up);
    const low = Math.floor(Math.min(...all)), high = Math.ceil(Math.max(...all));
    return [low, Math.max(high, low + 3)];
  };

  function drawChart() {
    const fresh = known(), { curves } = fresh || memory.known.value, { muted, ink, path, page, error } = colors;
    const [low, high] = decades(curves), right = Math.log2(most) + 1.4;
    chart.frame(-0.6, right, low - 0.15, high + 0.35, 34);
    const { X, Y, width, height, pen } = chart, bottom = height - 34;
    const every = (high - low) * 22 > bottom ? 2 : 1;
    chart.ink(muted, 1, 0.22, (pen) => {
      for (let k = low; k <= high; k++) pen.moveTo(34, Y(k)), pen.lineTo(width, Y(k));
      for (let k = 0; k < right; k += 2) pen.moveTo(X(k), 0), pen.lineTo(X(k), bottom);
    });
    chart.ink(ink, 1, 0.6, (pen) => (pen.moveTo(34, 0), pen.lineTo(34, bottom), pen.lineTo(width, bottom)));
    for (let k = low; k <= high; k += every) chart.text(power(k), 30, Y(k), "right");
    for (let k = 0; k <= Math.log2(most); k += 2) chart.text(String(2 ** k), X(k), height - 24);
    chart.text("evaluations of the field", (34 + width) / 2, height - 8);

    const now = name(), alpha = fresh ? 1 : 0.35;
    const order = names.map((_, i) => i).sort((i, j) => (names[i] === now) - (names[j] === now)); // the chosen one on top
    for (const i of order) {
      const mine = names[i] === now, color = mine ? path : muted;
      const list = curves[i].map((error, j) => [X(across(names[i], COUNTS[j])), Y(up(error))]);
      chart.ink(color, mine ? 2.5 : 1.4, alpha, (pen) => list.forEach((x, j) => pen[j ? "lineTo" : "moveTo"](...x)), mine ? [] : [[], [7, 4], [2, 4], [8, 4, 2, 4]][i % 4]);
      chart.ink(page, 0, 1, (pen) => list.forEach((x) => shapes[i % 4](pen, ...x, mine ? 5 : 4.2)));
      chart.ink(color, 0, alpha, (pen) => list.forEach((x) => shapes[i % 4](pen, ...x, mine ? 3.5 : 3)));
    }
    if (fresh) drawSlope(curves[names.indexOf(now)]);
    // Names at the lines' ends, pushed apart where they would meet
    let last = -Infinity;
    const labels = names.map((method, i) => ({ method, X: X(across(method, 64)) + 9, Y: Y(up(curves[i].at(-1))) })).sort((a, b) => a.Y - b.Y);
    const spread = labels.map((label) => ({ ...label, Y: (last = Math.max(label.Y, last + 14)) }));
    const over = Math.max(0, last - (bottom - 8));
    for (const { method, X, Y } of spread) {
      pen.font = "12px system-ui, sans-serif";
      chart.text(method, Math.min(X, width - 4 - pen.measureText(method).width), Y - over, "left", false, method === now ? "path" : "muted");
    }
    if (!fresh) return;
    const big = [X(across(now, steps())), Y(up(pair()[0]))];
    for (const [radius, color] of [[9.5, page], [7.5, error]]) chart.ink(color, 0, 1, (pen) => dot(pen, ...big, radius));
  }

  // A triangle of the slope that the method's order promises: four times the evaluations, the error divided by 4^order.
  function drawSlope(curve) {
    const { X, Y } = chart, { order } = methods[name()], end = curve[5];
    if (!(end > 10 * FLOOR && end < 1e3)) return;
    const [x1, y1] = [across(name(), 32), up(end)], left = X(x1 - 2) - 8, right = X(x1) - 8, low = Y(y1) + 8, high = Y(y1 + order * Math.log10(4)) + 8;
    chart.ink(colors.ink, 1.2, 1, (pen) => (pen.moveTo(left, high), pen.lineTo(left, low), pen.lineTo(right, low), pen.closePath()));
    chart.text("× 4", (left + right) / 2, low + 10);
    chart.text(`÷ ${4 ** order}`, left - 5, (low + high) / 2, "right");
  }

  function draw() {
    known();
    drawPlane();
    drawChart();
  }

  function readout() {
    const N = steps(), { length } = methods[name()].b, s = (count) => (count > 1 ? "s" : "");
    const spent = `${name()}, ${N} step${s(N)}${length > 1 ? ` × ${length}` : ""} = ${N * length} evaluation${s(N * length)}`;
    let told = "…";
    if (known()) {
      const [one, two] = pair(), ratio = one / two;
      told = scientific(one);
      if (two > 1e-13 && isFinite(ratio)) told += ` · half the step ${ratio < 1 ? "multiplies" : "divides"} it by ${scientific(Math.max(ratio, 1 / ratio))} (order ${fixed(Math.log2(ratio), 1)})`;
    }
    return `t = ${fixed(values.t)} · ${spent} · error at t = 1: ${told}`;
  }

  return {
    draw,
    readout,
    change: (control) => control === "field" && (cost = 0),
    heard() {
      const text = moved + readout();
      moved = "";
      return text;
    },
    reset: () => (start = [...spec.start]),
    state: () => ({ starts: start, error: known() ? pair()[0] : null, curves: known() ? Object.fromEntries(names.map((method, i) => [method, known().curves[i]])) : null }),
    positions: () => [...between(states(), values.t)],
  };
}
