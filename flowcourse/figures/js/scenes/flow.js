// A flow in the plane: the grid and the points that it carries, their trajectories, the arrows of the field, the density.

import { advance, between, decode16, fields, logDensity, odeint } from "../numerics.js";
import { haze, hue, rgb } from "../drawing.js";
import { fixed, scientific } from "../engine.js";

export function flow(spec, engine) {
  const { values, colors, panels } = engine, [left] = panels, right = panels.at(-1), two = panels.length > 1;
  const { window: reach } = spec;
  const few = () => points.length <= 100; // up to 50 points are drawn as individuals, more of them as a cloud
  let points = [...decode16(spec.points)], cursor, version = 0, later;

  // Whatever takes time is remembered under a name until its key changes.
  const memory = {};
  const remember = (name, key, make) => {
    if (memory[name]?.key !== key) memory[name] = { key, value: make() };
    return memory[name].value;
  };

  const described = () => spec.fields[values.field ?? Object.keys(spec.fields)[0]];
  const field = (c = values.swirl ?? 0) => fields[described().kind](described(), c);
  const method = () => spec.methods[values.method ?? Object.keys(spec.methods)[0]];
  const steps = () => values.steps ?? spec.steps;
  const problem = () => `${values.field} ${values.swirl}`;
  const key = () => `${problem()} ${values.method} ${steps()}`;

  const solve = (x, c) => odeint(field(c), x, 0, 1, steps(), method());
  // The states from 0 to just after t: later steps are taken when somebody asks for them.
  const until = (t, name, its, start) => {
    const states = remember(name, `${key()} ${its}`, () => [Float64Array.from(start)]);
    return advance(states, Math.min(Math.floor(t * steps()) + 1, steps()), field(), 0, 1 / steps(), method());
  };
  const trajectories = (t = 1) => until(t, "points", version, points);
  const placed = (t) => between(trajectories(t), t, steps());
  // The same points, followed closely: the difference is the solver's error. Made when the hand rests.
  const truth = () => memory.truth?.key === `${problem()} ${version}` && memory.truth.value;
  const find = () => {
    clearTimeout(later);
    if (truth() || two || !points.length) return;
    later = setTimeout(() => {
      remember("truth", `${problem()} ${version}`, () => odeint(field(), points, 0, 1, 256, spec.reference));
      engine.draw();
    }, 150);
  };

  // Errors at t = 1, one for each point
  const errors = () => {
    const a = trajectories().at(-1), b = truth().at(-1);
    return remember("errors", `${key()} ${version}`, () => a.filter((_, i) => i % 2 === 0).map((_, i) => Math.hypot(a[2 * i] - b[2 * i], a[2 * i + 1] - b[2 * i + 1])));
  };

  const lengths = (states) => {
    let sum = 0;
    for (let n = 1; n < states.length; n++)
      for (let i = 0; i < points.length; i += 2) sum += Math.hypot(states[n][i] - states[n - 1][i], states[n][i + 1] - states[n - 1][i + 1]);
    return (2 * sum) / points.length;
  };

  // The square grid: lines every half unit, a little wider than the window.
  const lines = [];
  const wide = two ? reach : 1.5 * reach, bend = 1 / 8;
  for (let x = -wide; x <= wide; x += 0.5) lines.push(Array.from({ length: 2 * reach / bend + 1 }, (_, i) => [x, i * bend - reach]));
  for (let y = -reach; y <= reach; y += 0.5) lines.push(Array.from({ length: 2 * wide / bend + 1 }, (_, i) => [i * bend - wide, y]));
  const corners = lines.flat(2);
  const grid = (t) => between(until(t, "grid", "", corners), t, steps());

  // Places of the arrows, and how long they are: one spacing is the speed that nine in ten arrows do not exceed.
  const places = () => remember("places", [right.left, right.top].join(), () => {
    const list = [];
    for (let x = 0.25 - Math.ceil(2 * right.right) / 2; x < right.right; x += 0.5)
      for (let y = 0.25 - Math.ceil(2 * right.top) / 2; y < right.top; y += 0.5) list.push(x, y);
    return Float64Array.from(list);
  });
  const velocities = (x, t) => {
    const out = new Float64Array(x.length);
    field()(x, t, out);
    return out;
  };
  const speeds = (v) => Array.from({ length: v.length / 2 }, (_, i) => Math.hypot(v[2 * i], v[2 * i + 1]));
  const scale = () => remember("scale", `${problem()} ${right.left} ${right.top}`, () => {
    const all = [0, 0.25, 0.5, 0.75, 1].flatMap((t) => speeds(velocities(places(), t))).sort((a, b) => a - b);
    return 0.5 / (all[Math.floor(0.9 * all.length)] || 1);
  });

  // Who is at (x, y) at time t: Newton's method on the solver's own map, from where the closely followed flow came from.
  const origin = (x, y, t) => {
    if (t === 0) return [x, y];
    const back = [...odeint(field(), [x, y], t, 0, 64, spec.reference).at(-1)], e = 1e-5;
    let [p, q] = back;
    for (let i = 0; i < 12; i++) {
      const [a, b, c, d, f, g] = between(solve([p, q, p + e, q, p, q + e]), t);
      const [A, B, C, D] = [c - a, f - a, d - b, g - b].map((s) => s / e), det = A * D - B * C;
      p -= (D * (a - x) - B * (b - y)) / det;
      q -= (A * (b - y) - C * (a - x)) / det;
    }
    return Math.hypot(p, q) < 1e3 ? [p, q] : back;
  };

  const add = (x, y) => {
    if (points.length >= 1600) points.splice(0, 2);
    points.push(...origin(x, y, values.t));
    version++;
    engine.draw();
  };
  const clear = () => {
    points = [];
    version++;
    engine.draw();
  };

  // Pointers: a tap drops a point, a stroke sprays a cloud. A finger that turns out to scroll the page leaves nothing behind.
  const { canvas } = left;
  let stroke, seed = 1;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const normal = () => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    cursor = null;
    stroke = { last: place(event), kept: [...points], moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [X, Y] = place(event);
    if (!stroke || Math.hypot(X - stroke.last[0], Y - stroke.last[1]) < 6) return;
    stroke.last = [X, Y];
    stroke.moved = true;
    for (let i = 0; i < 2; i++) add(...left.inverse(X + 7 * normal(), Y + 7 * normal()));
  });
  canvas.addEventListener("pointerup", () => {
    if (stroke && !stroke.moved) add(...left.inverse(...stroke.last));
    stroke = null;
  });
  canvas.addEventListener("pointercancel", () => {
    if (stroke) (points = stroke.kept), version++, engine.draw();
    stroke = null;
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const size = event.shiftKey ? 0.5 : 0.1;
    if (move) {
      cursor = (cursor ?? [0, 0]).map((x, i) => Math.round(100 * Math.max(-reach, Math.min(reach, x + size * move[i]))) / 100);
      engine.say(`x₁ = ${cursor[0]}, x₂ = ${cursor[1]}`);
    } else if (event.key === "Enter" || event.key === " ") add(...(cursor ??= [0, 0]));
    else if (event.key === "Delete" || event.key === "Backspace") clear();
    else return;
    event.preventDefault();
    engine.draw();
  });
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && ((cursor ??= [0, 0]), engine.draw()));
  canvas.addEventListener("blur", () => ((cursor = null), engine.draw()));
  engine.figure.querySelector(".flow-clear")?.addEventListener("click", clear);

  // Drawing, from back to front

  function shade(panel, t) {
    const n = Math.round((80 * panel.height) / panel.width), small = remember("shade", n, () => new OffscreenCanvas(80, n));
    panel.pen.globalAlpha = 1;
    panel.pen.drawImage(haze(small, panel, rgb(colors.muted), (x) => logDensity(described(), x, t)), 0, 0, panel.width, panel.height);
  }

  function polyline(pen, panel, states, i, from, to, N = states.length - 1) {
    const at = (s) => {
      const n = Math.min(Math.floor(s), N - 1), a = states[n], b = states[n + 1];
      return [panel.X(a[i] + (s - n) * (b[i] - a[i])), panel.Y(a[i + 1] + (s - n) * (b[i + 1] - a[i + 1]))];
    };
    pen.moveTo(...at(from * N));
    for (let n = Math.floor(from * N) + 1; n < to * N; n++) pen.lineTo(panel.X(states[n][i]), panel.Y(states[n][i + 1]));
    pen.lineTo(...at(to * N));
  }

  const each = (visit) => {
    for (let i = 0; i < points.length; i += 2) visit(i);
  };
  const dot = (pen, X, Y, radius) => {
    pen.moveTo(X + radius, Y);
    pen.arc(X, Y, radius, 0, 7);
  };

  function axes(panel) {
    panel.text("x₁", panel.width - 14, panel.height - 12, "center", true);
    panel.text("x₂", 9, 14, "left", true);
    if (panel !== left) return;
    const tick = reach > 2.2 ? 2 : 1;
    for (let x = -tick * Math.floor(panel.right / tick); x < panel.right; x += tick)
      if (panel.X(x) > 24 && panel.X(x) < panel.width - 30) panel.text(String(x), panel.X(x), panel.height - 11);
    for (let y = -tick * Math.floor(panel.top / tick); y < panel.top; y += tick)
      if (panel.Y(y) > 30 && panel.Y(y) < panel.height - 24) panel.text(String(y), 9, panel.Y(y), "left");
  }

  function draw() {
    for (const panel of panels) {
      const unit = (2 * reach) / Math.min(panel.width, panel.height);
      panel.frame(-panel.width * unit / 2, panel.width * unit / 2, -panel.height * unit / 2, panel.height * unit / 2);
    }
    find();
    const { t } = values, { muted, path, source, truth: black } = colors, alone = few();
    if (values.density && described().kind === "mixture") shade(left, t);
    if (values.grid ?? two) {
      const x = grid(t);
      left.ink(muted, 1, 0.6, (pen) => {
        let i = 0;
        for (const line of lines)
          for (let j = 0; j < line.length; j++, i += 2) {
            const X = left.X(x[i]), Y = left.Y(x[i + 1]);
            if (!j) pen.moveTo(X, Y);
            else if (j === line.length - 1) pen.lineTo(X, Y);
            else pen.quadraticCurveTo(X, Y, (X + left.X(x[i + 2])) / 2, (Y + left.Y(x[i + 3])) / 2); // smooth between samples
          }
      });
    }
    if (values.arrows ?? two) {
      const x = places(), v = velocities(x, t), list = [], pixels = right.X(1) - right.X(0);
      for (let i = 0; i < x.length; i += 2) {
        const X = right.X(x[i]), Y = right.Y(x[i + 1]);
        if ((X < 32 && Y < 28) || (X > right.width - 32 && Y > right.height - 28)) continue; // here the axes have their names
        const length = Math.min(1, 0.9 / (Math.hypot(v[i], v[i + 1]) * scale())) * scale() * pixels;
        list.push(X, Y, v[i] * length, -v[i + 1] * length);
      }
      right.arrows(black, two ? 1.4 : 1.1, two ? 0.85 : 0.5, list);
    }
    if (points.length) {
      const now = placed(t), width = alone ? 2 : 1;
      if (values.trajectories) {
        const states = trajectories();
        const faint = alone ? 1 : Math.max(0.3, Math.sqrt(100 / points.length));
        if (t < 1) left.ink(path, width, 0.35 * faint, (pen) => each((i) => polyline(pen, left, states, i, t, 1)));
        if (t > 0) left.ink(path, width, faint, (pen) => each((i) => polyline(pen, left, states, i, 0, t)));
        if (alone && truth()) {
          const far = errors().map((e) => e * (left.X(1) - left.X(0)) > 3);
          left.ink(black, 1.2, 0.7, (pen) => each((i) => far[i / 2] && polyline(pen, left, truth(), i, 0, 1)), [2, 5]);
        }
        if (alone && steps() <= 32) left.ink(path, 0, 1, (pen) => each((i) => states.forEach((x, n) => n <= t * steps() && dot(pen, left.X(x[i]), left.Y(x[i + 1]), 2.2))));
        left.ink(source, alone ? 1.8 : 1.2, 1, (pen) => each((i) => dot(pen, left.X(points[i]), left.Y(points[i + 1]), alone ? 3.5 : 1.8)));
      }
      const radius = alone ? 5 : 2.4;
      if (alone) left.ink(colors.page, 0, 1, (pen) => each((i) => dot(pen, left.X(now[i]), left.Y(now[i + 1]), radius + 1.5)));
      left.ink(`rgb(${hue(colors, t)})`, 0, alone ? 1 : 0.85, (pen) => each((i) => dot(pen, left.X(now[i]), left.Y(now[i + 1]), radius)));
    }
    panels.forEach(axes);
    if (cursor) {
      const X = left.X(cursor[0]), Y = left.Y(cursor[1]);
      left.ink(colors.ink, 2, 1, (pen) => [[-14, 0, -4, 0], [4, 0, 14, 0], [0, -14, 0, -4], [0, 4, 0, 14]].forEach(([a, b, c, d]) => (pen.moveTo(X + a, Y + b), pen.lineTo(X + c, Y + d))));
    }
  }

  function readout() {
    const { t } = values, N = steps(), evaluations = N * method().b.length, count = points.length / 2;
    if (!count) return `t = ${fixed(t)} · no points: drop some`;
    if (two) {
      const mean = speeds(velocities(placed(t), t)).reduce((a, b) => a + b) / count;
      return `t = ${fixed(t)} · ${count} points, moving at a mean speed of ${fixed(mean)}`;
    }
    if ("swirl" in values) {
      const long = remember("long", `${key()} ${version}`, () => lengths(trajectories()));
      const plain = remember("plain", `${values.field} ${N} ${version}`, () => lengths(solve(points, 0)));
      return `t = ${fixed(t)} · mean path length ${fixed(long)}, without swirl ${fixed(plain)}`;
    }
    const error = truth() ? scientific(Math.max(...errors())) : "…";
    return `t = ${fixed(t)} · ${values.method ?? Object.keys(spec.methods)[0]}, ${N} step${N > 1 ? "s" : ""} = ${evaluations} evaluation${evaluations > 1 ? "s" : ""} · largest error at t = 1: ${error}`;
  }

  const change = () => {
    if (engine.inputs.density) engine.inputs.density.disabled = described().kind !== "mixture";
  };
  change();

  function prepare(deadline) {
    for (let n = 0, N = steps(); n < N; n++) {
      if (values.trajectories || n <= values.t * N) trajectories(n / N);
      if ((values.grid ?? two) && n <= values.t * N) until(n / N, "grid", "", corners);
      if (performance.now() > deadline) return false;
    }
  }

  return {
    draw,
    readout,
    change,
    prepare,
    reset() {
      points = [...decode16(spec.points)];
      version++;
    },
    state: () => ({ count: points.length / 2, steps: steps(), starts: [...points], error: points.length && truth() ? Math.max(...errors()) : null }),
    positions: () => (points.length ? [...placed(values.t)] : []),
  };
}
