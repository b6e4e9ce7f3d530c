// On the line, from N(0, 1) to finitely many data: at a point (t, x), the conditional velocities of all data, how much each
// weighs there, their mean, and the trajectory that follows the mean.

import { affine } from "../explorables/affine.js";
import { haze, rgb } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { handles, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const END = 0.995; // where trajectories stop, for the field is singular at t = 1
const WIDE = 1.17; // how much of t is seen

// What x_t = x says at time t. With z_i = (x - alpha y_i) / sigma, datum y_i has the posterior weight w_i ~ exp(-z_i^2 / 2)
// and the conditional velocity u_i = alpha' y_i + sigma' z_i; `spread` is their standard deviation, `log` is log p_t(x).
export function average(at, data, t, x) {
  const [alpha, sigma, rise, fall] = at(t),
    noise = data.map((y) => (x - alpha * y) / sigma);
  const velocities = data.map((y, i) => rise * y + fall * noise[i]);
  let least = Infinity,
    sum = 0,
    mean = 0,
    square = 0;
  for (const z of noise) least = Math.min(least, (z * z) / 2);
  const weights = noise.map((z) => Math.exp(least - (z * z) / 2));
  for (const w of weights) sum += w;
  weights.forEach((w, i) => (mean += (weights[i] = w / sum) * velocities[i]));
  weights.forEach((w, i) => (square += w * (velocities[i] - mean) ** 2));
  const log = Math.log(sum / data.length / sigma) - least - Math.log(2 * Math.PI) / 2;
  return { noise, weights, velocities, mean, spread: Math.sqrt(square), log };
}

// The solution of x' = mean velocity through x at time t: pairs [t, x] in order, from 0 to `end`. In the time
// s = -log(1 - t) the field stays bounded. A step of RK4 is halved until two halves do as the whole, up to six times: near
// t = 1 the field jumps from one datum to the next.
export function trajectory(at, data, t, x, end = END) {
  const speed = (s, x) => Math.exp(-s) * average(at, data, 1 - Math.exp(-s), x).mean;
  const step = (s, x, h) => {
    const a = speed(s, x),
      b = speed(s + h / 2, x + (h * a) / 2),
      c = speed(s + h / 2, x + (h * b) / 2),
      d = speed(s + h, x + h * c);
    return x + (h * (a + 2 * b + 2 * c + d)) / 6;
  };
  const careful = (s, x, h, halvings) => {
    const half = step(s, x, h / 2),
      whole = step(s + h / 2, half, h / 2);
    if (!halvings || Math.abs(whole - step(s, x, h)) < 1e-5) return whole;
    return careful(s + h / 2, careful(s, x, h / 2, halvings - 1), h / 2, halvings - 1);
  };
  const solve = (goal) => {
    const from = -Math.log(1 - t),
      way = -Math.log(1 - goal) - from,
      steps = Math.ceil(32 * Math.abs(way)),
      h = way / steps;
    const states = [[t, x]];
    for (let n = 0, p = x; n < steps; n++) {
      p = careful(from + n * h, p, h, 6);
      states.push([n + 1 < steps ? 1 - Math.exp(-from - (n + 1) * h) : goal, p]);
    }
    return states;
  };
  return [...(t > 0 ? solve(0).reverse().slice(0, -1) : []), ...(t < end ? solve(end) : [[t, x]])];
}

// Where a trajectory is at time t
export function follow(states, t) {
  const n = Math.max(
      1,
      states.findIndex(([time]) => time >= t),
    ),
    [[r, p], [s, q]] = [states[n - 1], states[n]];
  return p + ((q - p) * (t - r)) / (s - r);
}

export function averaging(spec, engine) {
  const { values, colors } = engine;
  const [panel] = engine.panels;
  const { data, reach, last } = spec;
  const remember = memory();
  const law = () => affine[values.path ? spec.paths[values.path] : Object.values(spec.paths)[0]];
  const here = () => average(law(), data, values.t, values.x);
  const heaviest = ({ weights }) => weights.indexOf(Math.max(...weights));

  // Time carries the point along the trajectory through the place where the reader put it; to put it elsewhere is to choose
  // another. The outermost start at -reach and reach.
  let put = [values.t, values.x];
  let carried = false;
  const solve = (t, x) => trajectory(law(), data, t, x);
  const marginal = () => remember("marginal", `${values.path} ${put}`, () => solve(...put));
  const within = (t, x) => {
    const edges = remember("edges", `${values.path}`, () => [-reach, reach].map((x) => solve(0, x)));
    const [low, high] = edges.map((edge) => follow(edge, t));
    return Math.max(low, Math.min(high, x));
  };
  function change(name) {
    if (carried || !["t", "x", "path"].includes(name)) return;
    carried = true;
    engine.set("x", name === "t" ? follow(marginal(), values.t) : within(values.t, values.x));
    carried = false;
    if (name !== "t") put = [values.t, values.x];
  }
  function move(t, x) {
    carried = true;
    engine.set("t", Math.round(100 * Math.max(0, Math.min(last, t))) / 100);
    carried = false;
    engine.set("x", Math.round(100 * x) / 100);
  }

  handles(panel, {
    find: (X, Y) => Math.hypot(X - panel.X(values.t), Y - panel.Y(values.x)) < 30 && "point",
    move: (_, t, x) => move(t, x),
    tap: move,
    anywhere: "point",
  });
  keys(panel, (right, up) => move(values.t + 0.02 * right, values.x + 0.1 * up));

  // p_t for every t, each against its own peak: at t = 1 the peaks are infinite
  const density = () =>
    remember("density", `${values.path} ${colors.muted}`, () => {
      const box = { left: 0, right: END, bottom: -reach, top: reach };
      return haze(new OffscreenCanvas(100, 100), box, rgb(colors.muted), (places) => {
        const logs = Array.from(
          { length: places.length / 2 },
          (_, i) => average(law(), data, places[2 * i], places[2 * i + 1]).log,
        );
        const peaks = Array.from({ length: 100 }, () => -Infinity);
        logs.forEach((log, i) => (peaks[i % 100] = Math.max(peaks[i % 100], log)));
        return logs.map((log, i) => log - peaks[i % 100]);
      });
    });

  // What lies between t = 0 and t = 1
  function drawInside({ noise, weights }, order) {
    const { t, x } = values;
    const { X, Y, pen } = panel;
    const { path, truth, page } = colors;
    pen.save();
    pen.beginPath();
    pen.rect(X(0), 0, X(1) - X(0), Y(-reach));
    pen.clip();
    if (values.density)
      panel.layer("density", values.path, 1, () => panel.image(density(), X(0), 0, X(END) - X(0), Y(-reach)));
    if (values["conditional paths"])
      for (const i of order) {
        const way = Array.from({ length: 65 }, (_, n) => {
          const [alpha, sigma] = law()(n / 64);
          return [n / 64, alpha * data[i] + sigma * noise[i]];
        });
        panel.line(path, 1 + 3 * weights[i], 0.2 + 0.8 * Math.sqrt(weights[i]), way);
      }
    if (values["marginal trajectory"]) {
      const states = marginal();
      panel.line(page, 5, 0.7, states);
      panel.line(truth, 2, 0.45, [[t, x], ...states.filter(([time]) => time > t)]);
      panel.line(truth, 2.4, 1, [...states.filter(([time]) => time < t), [t, x]]);
    }
    pen.restore();
  }

  // Noises at t = 0, data and the bars of their weights at t = 1
  function drawEnds({ noise, weights }, order) {
    const { X, Y, width } = panel;
    const { source, page } = colors;
    const room = width - X(1) - 18;
    for (const i of order) {
      const w = weights[i];
      if (values["conditional paths"] && Math.abs(noise[i]) < reach) {
        panel.dots(page, 4 + 3 * Math.sqrt(w), [0, noise[i]]);
        panel.dots(source, 2.5 + 3 * Math.sqrt(w), [0, noise[i]], 0.5 + 0.5 * w, 2);
      }
      panel.ink(colors.data, 0, 0.25, (pen) => pen.rect(X(1) + 12, Y(data[i]) - 0.5, room, 1));
      panel.ink(colors.data, 0, 1, (pen) => pen.rect(X(1) + 12, Y(data[i]) - 4, room * w, 8));
      panel.dots(page, 6.5, [1, data[i]]);
      panel.dots(colors.data, 5, [1, data[i]]);
    }
  }

  // Velocities as the ways of the next stretch of time, whose ends lie above one another
  function drawVelocities({ weights, velocities, mean }, order) {
    const { t, x } = values;
    const { X, Y } = panel;
    const stretch = Math.min(0.2, 1 - t);
    const across = X(stretch) - X(0);
    const arrow = (color, size, alpha, u) => {
      const up = Y(stretch * u) - Y(0);
      panel.arrows(color, size, alpha, [X(t) + across / 2, Y(x) + up / 2, across, up]);
    };
    for (const i of order)
      if (values["conditional paths"] && weights[i] > 0.005)
        arrow(colors.path, 1.5 + 2 * weights[i], 0.35 + 0.65 * weights[i], velocities[i]);
    panel.line(colors.page, 9, 0.8, [
      [t, x],
      [t + 0.85 * stretch, x + 0.85 * stretch * mean],
    ]);
    arrow(colors.truth, 4, 1, mean);
    panel.dots(colors.page, 9.5, [t, x]);
    panel.dots(colors.ink, 7.5, [t, x]);
  }

  function draw() {
    panel.frame(0, Math.max(WIDE, 1 + 75 / panel.width), -reach, reach, 34);
    const known = here();
    const order = data.map((_, i) => i).sort((i, j) => known.weights[i] - known.weights[j]); // the heaviest in front
    drawInside(known, order);
    panel.line(colors.ink, 1, 0.6, [
      [0, reach],
      [0, -reach],
      [1, -reach],
      [1, reach],
    ]);
    drawEnds(known, order);
    drawVelocities(known, order);
    panel.layer("numbers", "", 1, drawNumbers);
  }

  function drawNumbers() {
    const { X, Y, width, height } = panel;
    for (const t of [0, 0.25, 0.5, 0.75, 1]) panel.text(String(t), X(t), height - 17);
    for (let x = Math.ceil(-reach); x <= reach; x++)
      if (Y(x) > 24 && Y(x) < height - 40) panel.text(String(x), 15, Y(x));
    panel.text("t", width - 20, height - 17, "center", true);
    panel.text("x", 15, 12, "center", true);
    panel.text("w", X(1) + 12, 12, "left", true);
  }

  function readout() {
    const known = here();
    const { weights, mean, spread } = known;
    const i = heaviest(known);
    const most = `heaviest: y = ${fixed(data[i])} with weight ${fixed(weights[i])}`;
    const told = `mean velocity ${fixed(mean)}, spread ${fixed(spread)}`;
    return `t = ${fixed(values.t)}, x = ${fixed(values.x)} · ${most} · ${told}`;
  }

  return {
    draw,
    readout,
    change,
    reset() {
      put = [values.t, values.x];
    },
    state: () => ({ ...here(), marginal: marginal() }),
    positions: () => [values.t, values.x],
  };
}
