// A flow in the plane: the grid and the points that it carries, their trajectories, the arrows of the field, the density.

import { hue, shade } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import {
  advance,
  between,
  decode16,
  fields,
  lengths,
  logDensity,
  odeint,
  usualSpeed,
  velocities,
} from "../explorables/numerics.js";
import { keys, strokes } from "../explorables/pointer.js";
import { fixed, scientific } from "../explorables/words.js";

const CROWD = 1600; // points, at most

export function flow(spec, engine) {
  const { values, colors, panels } = engine;
  const [left] = panels;
  const right = panels.at(-1);
  const two = panels.length > 1;
  const { window: reach } = spec;
  const remember = memory();
  const few = () => points.length <= 100; // up to 50 points are drawn as individuals, more of them as a cloud
  let points = [...decode16(spec.points)];
  let cursor, later;
  let version = 0; // of the points

  const described = () => spec.fields[values.field ?? Object.keys(spec.fields)[0]];
  const field = (c = values.swirl ?? 0) => fields[described().kind](described(), c);
  const methodName = () => values.method ?? Object.keys(spec.methods)[0];
  const method = () => spec.methods[methodName()];
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
  const close = () => `${problem()} ${version}`;
  const truth = () => remember.known("truth", close());
  const follow = () => {
    clearTimeout(later);
    if (truth() || two || !points.length) return;
    later = setTimeout(() => {
      remember("truth", close(), () => odeint(field(), points, 0, 1, 256, spec.reference));
      engine.draw();
    }, 150);
  };

  const apart = (a, b) => lengths(a.map((x, i) => x - b[i]));
  const errors = () =>
    remember("errors", `${key()} ${version}`, () => apart(trajectories().at(-1), truth().at(-1)));
  const meanLength = (states) => {
    let sum = 0;
    for (let n = 1; n < states.length; n++) for (const way of apart(states[n], states[n - 1])) sum += way;
    return (2 * sum) / points.length;
  };

  // The square grid: lines every half unit, a little wider than the window.
  const wide = two ? reach : 1.5 * reach;
  const bend = 1 / 8;
  const range = (end) => Array.from({ length: (2 * end) / bend + 1 }, (_, i) => i * bend - end);
  const lines = [];
  for (let x = -wide; x <= wide; x += 0.5) lines.push(range(reach).map((y) => [x, y]));
  for (let y = -reach; y <= reach; y += 0.5) lines.push(range(wide).map((x) => [x, y]));
  const corners = lines.flat(2);
  const grid = (t) => between(until(t, "grid", "", corners), t, steps());

  // Who is at (x, y) at time t: Newton's method on the solver's own map, from where the closely followed flow came from.
  const origin = (x, y, t) => {
    if (t === 0) return [x, y];
    const back = [...odeint(field(), [x, y], t, 0, 64, spec.reference).at(-1)];
    const e = 1e-5;
    let [p, q] = back;
    for (let i = 0; i < 12; i++) {
      const [a, b, c, d, f, g] = between(solve([p, q, p + e, q, p, q + e]), t);
      const [A, B, C, D] = [c - a, f - a, d - b, g - b].map((s) => s / e);
      const det = A * D - B * C;
      p -= (D * (a - x) - B * (b - y)) / det;
      q -= (A * (b - y) - C * (a - x)) / det;
    }
    return Math.hypot(p, q) < 1e3 ? [p, q] : back;
  };

  const hold = (list) => {
    points = list;
    version++;
    engine.draw();
  };
  const add = (x, y) => hold([...points.slice(points.length >= CROWD ? 2 : 0), ...origin(x, y, values.t)]);

  // A tap drops a point, a stroke sprays a cloud.
  let seed = 1;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const normal = () => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
  strokes(left, {
    begin: () => {
      cursor = undefined;
      return points;
    },
    tap: (X, Y) => add(...left.inverse(X, Y)),
    along: (X, Y) => {
      for (let i = 0; i < 2; i++) add(...left.inverse(X + 7 * normal(), Y + 7 * normal()));
    },
    undo: hold,
  });

  // Keys move a crosshair.
  const within = (x) => Math.round(100 * Math.max(-reach, Math.min(reach, x))) / 100;
  const aim = (x = 0, y = 0) => {
    cursor = [within(x), within(y)];
    engine.draw();
  };
  const drop = () => {
    aim(...(cursor ?? []));
    add(...cursor);
  };
  keys(
    left,
    (x, y) => {
      const [p, q] = cursor ?? [0, 0];
      aim(p + 0.1 * x, q + 0.1 * y);
      engine.say(`x₁ = ${cursor[0]}, x₂ = ${cursor[1]}`);
    },
    { Enter: drop, " ": drop, Delete: () => hold([]), Backspace: () => hold([]) },
  );
  left.canvas.addEventListener(
    "focus",
    () => left.canvas.matches(":focus-visible") && aim(...(cursor ?? [])),
  );
  left.canvas.addEventListener("blur", () => {
    cursor = undefined;
    engine.draw();
  });
  engine.figure.querySelector(".flow-clear")?.addEventListener("click", () => hold([]));

  // Drawing, from back to front

  function drawGrid(t) {
    const x = grid(t);
    left.ink(colors.muted, 1, 0.6, (pen) => {
      let i = 0;
      for (const { length } of lines)
        for (let j = 0; j < length; j++, i += 2) {
          const [X, Y] = [left.X(x[i]), left.Y(x[i + 1])];
          if (!j) pen.moveTo(X, Y);
          else if (j === length - 1) pen.lineTo(X, Y);
          // smooth between samples
          else pen.quadraticCurveTo(X, Y, (X + left.X(x[i + 2])) / 2, (Y + left.Y(x[i + 3])) / 2);
        }
    });
  }

  function drawArrows(t) {
    const x = remember("places", `${right.right} ${right.top}`, () => right.places(0.5));
    // One spacing is the speed that nine in ten arrows do not exceed.
    const scale = remember("scale", `${problem()} ${x.length}`, () => 0.5 / usualSpeed(field(), x));
    const long = (speed) => Math.min(scale, 0.9 / speed);
    const when = described().kind === "linear" ? "always" : t;
    right.layer("arrows", `${problem()} ${when}`, two ? 0.85 : 0.5, (alpha) =>
      right.quiver(colors.truth, two ? 1.4 : 1.1, alpha, x, velocities(field(), x, t), long),
    );
  }

  // The states up to a fraction of the steps; of many steps every other one, which is smooth enough
  function part(states, to) {
    const N = states.length - 1;
    const every = N > 32 ? 2 : 1;
    const inner = states.filter((_, n) => n % every === 0 && n < to * N);
    return [...inner, between(states, to)];
  }

  function drawPoints(t) {
    const { path, source, page, truth: black } = colors;
    const now = placed(t);
    const alone = few();
    if (values.trajectories) {
      const states = trajectories();
      const width = alone ? 2 : 1;
      const faint = alone ? 1 : Math.max(0.3, Math.sqrt(100 / points.length));
      // What lies ahead is fainter: the whole way, kept as a picture, and over it what lies behind
      const ahead = 0.35 * faint;
      left.layer("ways", `${key()} ${version}`, ahead, (alpha) =>
        left.ways(path, width, alpha, part(states, 1)),
      );
      if (t > 0) left.ways(path, width, (faint - ahead) / (1 - ahead), part(states, t));
      if (alone && truth()) {
        const far = errors().map((e) => e * (left.X(1) - left.X(0)) > 3);
        left.layer("truth", `${key()} ${version}`, 0.7, (alpha) =>
          left.ways(black, 1.2, alpha, truth(), [2, 5], (i) => far[i]),
        );
      }
      if (alone && steps() <= 32)
        left.dots(
          path,
          2.2,
          states.slice(0, Math.floor(t * steps()) + 1).flatMap((x) => [...x]),
        );
      left.layer("starts", version, 1, () =>
        left.dots(source, alone ? 3.5 : 1.8, points, 1, alone ? 1.8 : 1.2),
      );
    }
    if (alone) left.dots(page, 6.5, now);
    left.dots(`rgb(${hue(colors, t)})`, alone ? 5 : 2.4, now, alone ? 1 : 0.85);
  }

  function draw() {
    for (const panel of panels) panel.plane(reach);
    follow();
    const { t } = values;
    if (values.density && described().kind === "mixture")
      shade(left, colors.muted, remember, `${values.field} ${t}`, (x) => logDensity(described(), x, t));
    if (values.grid ?? two) drawGrid(t);
    if (values.arrows ?? two) drawArrows(t);
    if (points.length) drawPoints(t);
    for (const panel of panels) panel.axes();
    if (engine.live && !version) left.text("tap: a point · stroke: a crowd", left.width / 2, 14);
    if (!cursor) return;
    const [X, Y] = [left.X(cursor[0]), left.Y(cursor[1])];
    left.ink(colors.ink, 2, 1, (pen) => {
      for (const [a, b] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        pen.moveTo(X + 4 * a, Y + 4 * b);
        pen.lineTo(X + 14 * a, Y + 14 * b);
      }
    });
  }

  function readout() {
    const { t } = values;
    const N = steps();
    const evaluations = N * method().b.length;
    const count = points.length / 2;
    const s = (number) => (number > 1 ? "s" : "");
    if (!count) return `t = ${fixed(t)} · no points: drop some`;
    if (two) {
      const mean = lengths(velocities(field(), placed(t), t)).reduce((a, b) => a + b) / count;
      return `t = ${fixed(t)} · ${count} points, moving at a mean speed of ${fixed(mean)}`;
    }
    if ("swirl" in values) {
      const long = remember("long", `${key()} ${version}`, () => meanLength(trajectories()));
      const plain = remember("plain", `${values.field} ${N} ${version}`, () => meanLength(solve(points, 0)));
      return `t = ${fixed(t)} · mean path length ${fixed(long)}, without swirl ${fixed(plain)}`;
    }
    const error = truth() ? scientific(Math.max(...errors())) : "…";
    const cost = `${N} step${s(N)} = ${evaluations} evaluation${s(evaluations)}`;
    return `t = ${fixed(t)} · ${methodName()}, ${cost} · largest error at t = 1: ${error}`;
  }

  const change = () => {
    if (engine.inputs.density) engine.inputs.density.disabled = described().kind !== "mixture";
  };
  change();

  function prepare(deadline) {
    const N = steps();
    for (let n = 0; n < N; n++) {
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
    reset: () => hold([...decode16(spec.points)]),
    state: () => ({
      count: points.length / 2,
      steps: steps(),
      starts: [...points],
      error: points.length && truth() ? Math.max(...errors()) : null,
    }),
    positions: () => (points.length ? [...placed(values.t)] : []),
  };
}
