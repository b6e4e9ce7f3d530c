// What learns: a perceptron, pairs of noise and data, and flow matching's regression, in slices between messages.

import { adaptive } from "./adaptive.js";
import { assignment, squaredDistances, wasserstein2 } from "./assignment.js";
import { adam, initial, perceptron } from "./perceptron.js";
import { seeded } from "./random.js";

export const SIZES = [3, 64, 64, 64, 2];
export const BATCH = 128;
export const MEASURED = 256; // points that measure W2
const RATE = 1.5e-2; // at first; it falls along half a cosine
const FLOORS = 4; // pairs of samples that make the noise floor
const SLICE = 25; // milliseconds of steps before messages are heard
const SHARE = 4; // a snapshot may take one part of the time, and steps so many

// n points of the drawn shape: one of its dots, and a little noise
export function pointsOf({ dots, width }, n, { normal, below }) {
  const x = new Float64Array(2 * n);
  for (let i = 0; i < 2 * n; i += 2) {
    const k = 2 * below(dots.length / 2);
    x[i] = dots[k] + width * normal();
    x[i + 1] = dots[k + 1] + width * normal();
  }
  return x;
}

// x_0 put in the order of the best pairs with x_1
export function best(x_0, x_1) {
  const row = assignment(squaredDistances(x_0, x_1));
  const out = x_0.slice();
  row.forEach((i, j) => {
    out[2 * j] = x_0[2 * i];
    out[2 * j + 1] = x_0[2 * i + 1];
  });
  return out;
}

// The field of a network: rows (x_1, x_2, t), as many at a time as it takes
export function fieldOf(net, most) {
  const rows = new Float32Array(3 * most);
  return (x, t, out) => {
    for (let first = 0; first < x.length; first += 2 * most) {
      const n = Math.min(most, (x.length - first) / 2);
      for (let i = 0; i < n; i++) {
        rows[3 * i] = x[first + 2 * i];
        rows[3 * i + 1] = x[first + 2 * i + 1];
        rows[3 * i + 2] = t;
      }
      const v = net.forward(rows, n);
      for (let i = 0; i < 2 * n; i++) out[first + i] = v[i];
    }
  };
}

// One step's loss, averaged over points and coordinates, and its gradient: v(x_t, t) is to be x_1 - x_0 at x_t = (1 - t) x_0 + t x_1.
export function regression(net, x_0, x_1, times) {
  const n = times.length;
  const rows = new Float32Array(3 * n);
  const slopes = new Float32Array(2 * n);
  for (let i = 0; i < n; i++) {
    const t = times[i];
    for (const c of [0, 1]) rows[3 * i + c] = (1 - t) * x_0[2 * i + c] + t * x_1[2 * i + c];
    rows[3 * i + 2] = t;
  }
  const v = net.forward(rows, n);
  let loss = 0;
  for (let q = 0; q < 2 * n; q++) {
    const off = v[q] - (x_1[q] - x_0[q]);
    loss += off * off;
    slopes[q] = off / n;
  }
  return { loss: loss / (2 * n), gradient: net.backward(rows, slopes, n) };
}

// The way of points x under the field: `count` Euler steps, or adaptive ones
export function walk(field, x, count, tableau) {
  if (!count) return adaptive(field, x, tableau, { rtol: 1e-3, atol: 1e-3 });
  const made = { times: [0], states: [Float64Array.from(x)], evaluations: count };
  const v = new Float64Array(x.length);
  for (let n = 0; n < count; n++) {
    const from = made.states[n];
    field(from, n / count, v);
    made.times.push((n + 1) / count);
    made.states.push(from.map((place, q) => place + v[q] / count));
  }
  return made;
}

// Starts a learner and returns how to tell it things; it answers by `post`. Told
//   { task: "reset", seed, tableau, samples, samplers, pause }   a fresh network, noises whose ways it shows, and how often
//   { run, shape, pairs, count }                                 what it learns from now on, and how samples walk
//   { task: "train", steps } and { task: "stop" }
// it posts snapshots { run, training, weights, way, step, steps, losses }, and at the end of training { measured: { floor, distances } } too.
export function learner(post) {
  const told = {};
  let net, field, update, random, turn;
  let step = 0;
  let steps = 0;
  let losses = [];
  let due = 0; // when the next snapshot is
  let training = false;

  function reset() {
    random = seeded(told.seed);
    const weights = initial(SIZES, random.uniform);
    net = perceptron(SIZES, MEASURED, weights);
    field = fieldOf(net, MEASURED);
    update = adam(weights);
    training = false;
    step = steps = 0;
    losses = [];
  }

  function once() {
    const x_1 = pointsOf(told.shape, BATCH, random);
    const x_0 = Float64Array.from(x_1, random.normal);
    const times = Float64Array.from({ length: BATCH }, random.uniform);
    const start = told.pairs === "optimal" ? best(x_0, x_1) : x_0;
    const { loss, gradient } = regression(net, start, x_1, times);
    update(gradient, (RATE * (1 + Math.cos((Math.PI * step) / steps))) / 2);
    step++;
    losses.push(loss);
  }

  // How far the samples of each sampler are from the shape, and two samples of the shape from each other
  function measure() {
    const own = seeded(told.seed + 1);
    const sample = () => pointsOf(told.shape, MEASURED, own);
    const target = sample();
    const noise = Float64Array.from(target, own.normal);
    const distances = told.samplers.map((count) =>
      wasserstein2(walk(field, noise, count, told.tableau).states.at(-1), target),
    );
    let floor = 0;
    for (let i = 0; i < FLOORS; i++) floor += wasserstein2(sample(), sample()) / FLOORS;
    return { floor, distances, pairs: told.pairs };
  }

  function tell(more) {
    const began = performance.now();
    const way = walk(field, told.samples, told.count, told.tableau);
    post({ run: told.run, weights: net.weights.slice(), way, step, steps, losses, training, ...more });
    losses = [];
    const now = performance.now();
    due = now + Math.max(told.pause ?? 0, SHARE * (now - began));
  }

  function stop() {
    training = false;
    clearTimeout(turn);
    tell(step ? { measured: measure() } : {});
  }

  function go() {
    const began = performance.now();
    do once();
    while (step < steps && performance.now() - began < SLICE);
    if (step >= steps) return stop();
    if (performance.now() >= due) tell();
    turn = setTimeout(go);
  }

  return ({ task, steps: wanted, ...rest }) => {
    Object.assign(told, rest);
    clearTimeout(turn);
    if (task === "reset") return reset();
    if (task === "train") {
      [training, step, steps] = [true, 0, wanted];
      return go();
    }
    if (task === "stop" && training) return stop();
    tell();
    if (training) turn = setTimeout(go);
  };
}
