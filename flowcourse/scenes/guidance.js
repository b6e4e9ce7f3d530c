// Guidance on a mixture of the plane, one of whose classes y is wanted: particles of the guided flow, which misses the tilted
// density p(x) p(y|x)^w, beside those of the corrected one, which are weighted and resampled, and land on it.

import { haze, hue, rgb } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { advance, between, logDensity } from "../explorables/numerics.js";
import { choices, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const STEPS = 96; // of the corrected flow; the guided one takes a third of them, of two evaluations each
const CELLS = 80; // of the grid, in each direction
const STAR = "CFG-Zero*";
const SHARE = 0.9; // of a law within its line
export const LINES = Array.from({ length: 8 }, (_, k) => [
  Math.cos((Math.PI * k) / 8),
  Math.sin((Math.PI * k) / 8),
]);

// At points x and time t of the linear path from N(0, I) to the mixture sum_k w_k N(mu_k, S_k), some of whose components are those
// of the wanted class: the velocities u of the whole and c of the class. With C = t^2 S_k + (1 - t)^2 I, z = x - t mu_k and
// posterior weights r_k, either is
//     sum_k r_k [mu_k + (t S_k - (1 - t) I) C^-1 z].
export function fieldsOf({ weights, means, covariances }, wanted, x, t) {
  const K = weights.length;
  const inside = Uint8Array.from(weights, (_, k) => wanted.includes(k));
  const parts = weights.map((w, k) => {
    const [[a, b], [, d]] = covariances[k];
    const [m, n] = means[k];
    const [A, B, D] = [t * t * a + (1 - t) ** 2, t * t * b, t * t * d + (1 - t) ** 2];
    const det = A * D - B * B;
    const [P, Q, R] = [D / det, -B / det, A / det];
    const [e, f, g] = [t * a - 1 + t, t * b, t * d - 1 + t];
    const mean = [t * m, t * n];
    const form = [-P / 2, -Q, -R / 2, Math.log(w) - Math.log(det) / 2];
    return [...mean, ...form, m, n, e * P + f * Q, e * Q + f * R, f * Q + g * R];
  });
  const flat = Float64Array.from(parts.flat());
  const size = parts[0].length;
  const logs = new Float64Array(K); // of the r_k, up to a constant
  const u = new Float64Array(x.length);
  const c = new Float64Array(x.length);
  for (let i = 0; i < x.length; i += 2) {
    // The greatest logarithm, and sums of weights and velocities, of the other components and of the class
    let topO = -Infinity;
    let topC = -Infinity;
    let sumO = 0;
    let o1 = 0;
    let o2 = 0;
    let sumC = 0;
    let c1 = 0;
    let c2 = 0;
    for (let k = 0, j = 0; k < K; k++, j += size) {
      const y = x[i] - flat[j];
      const z = x[i + 1] - flat[j + 1];
      const l = (logs[k] = flat[j + 2] * y * y + flat[j + 3] * y * z + flat[j + 4] * z * z + flat[j + 5]);
      if (inside[k]) topC = Math.max(l, topC);
      else topO = Math.max(l, topO);
    }
    for (let k = 0, j = 0; k < K; k++, j += size) {
      const y = x[i] - flat[j];
      const z = x[i + 1] - flat[j + 1];
      const r = Math.exp(logs[k] - (inside[k] ? topC : topO));
      const p = r * (flat[j + 6] + flat[j + 8] * y + flat[j + 9] * z);
      const q = r * (flat[j + 7] + flat[j + 9] * y + flat[j + 10] * z);
      if (inside[k]) {
        sumC += r;
        c1 += p;
        c2 += q;
      } else {
        sumO += r;
        o1 += p;
        o2 += q;
      }
    }
    const share = 1 / (1 + (Math.exp(topO - topC) * sumO) / sumC); // p_t(y|x)
    c[i] = c1 / sumC;
    c[i + 1] = c2 / sumC;
    u[i] = share * c[i] + ((1 - share) * o1) / sumO;
    u[i + 1] = share * c[i + 1] + ((1 - share) * o2) / sumO;
  }
  return { u, c };
}

// The components of a mixture for which keep(k), as a mixture of their own, and what they weigh in all
export function part({ weights, means, covariances }, keep) {
  const take = (list) => list.filter((_, k) => keep(k));
  const share = take(weights).reduce((sum, w) => sum + w, 0);
  const law = {
    weights: take(weights).map((w) => w / share),
    means: take(means),
    covariances: take(covariances),
  };
  return { law, share };
}

// Logarithms of densities at points x and time t: p of the mixture, q of the wanted class, o of the others
export function densities(mixture, wanted, x, t) {
  const [mine, others] = [true, false].map((is) => part(mixture, (k) => wanted.includes(k) === is));
  const [q, o] = [mine, others].map(({ law }) => logDensity(law, x, t));
  const odds = Math.log(others.share / mine.share);
  // p = pi q + (1 - pi) o, less the logarithm of the greater
  const p = q.map((l, i) => {
    const lead = odds + o[i] - l;
    return Math.log(mine.share) + l + Math.max(lead, 0) + Math.log1p(Math.exp(-Math.abs(lead)));
  });
  return { p, q, o };
}

// The guided velocity u + w (c - u), with the scale w from one time to another and 1 elsewhere; or, in CFG-Zero*, with u rescaled
// to be nearest to c, and none before the time `zero`
export function guided(mixture, wanted, { w, low, high, star = false, zero = 0 }) {
  return (x, t, out) => {
    const { u, c } = fieldsOf(mixture, wanted, x, t);
    const scale = t < low || t > high ? 1 : w;
    for (let i = 0; i < out.length; i += 2) {
      const square = u[i] * u[i] + u[i + 1] * u[i + 1];
      const s = star && square ? (u[i] * c[i] + u[i + 1] * c[i + 1]) / square : 1;
      for (let k = i; k < i + 2; k++) out[k] = star && t < zero ? 0 : s * u[k] + scale * (c[k] - s * u[k]);
    }
  };
}

// Feynman-Kac correctors

export const effective = (weights) => 1 / weights.reduce((sum, p) => sum + p * p, 0);

export function normalized(logs) {
  let top = -Infinity;
  for (const l of logs) top = Math.max(l, top);
  const all = logs.map((l) => (l > top - 40 ? Math.exp(l - top) : 0));
  let sum = 0;
  for (const p of all) sum += p;
  return all.map((p) => p / sum);
}

// The numbers of n particles, as often as they weigh: those in which the levels (i + shift) / n lie (systematic resampling)
export function systematic(weights, shift) {
  let at = 0;
  let sum = weights[0];
  return Array.from(weights, (_, i) => {
    while (sum < (i + shift) / weights.length && at < weights.length - 1) sum += weights[++at];
    return at;
  });
}

// The score at x and time t < 1 of the law that moves at v, on the linear path from N(0, I)
export const scoreOf = (v, x, t) => (t * v - x) / (1 - t);

// One step of length h of dx = [g + e^2 / 2 grad log q] dt + e dW, where q_t ~ p_t^(1 - w) p_t(.|y)^w g = u + w (c - u)
// is the guided velocity, and what every particle's log-weight gains: its rate is
//     w (w - 1) <c - u, grad log p_t(.|y) - grad log p_t> = w (w - 1) |c - u|^2 t / (1 - t),   whatever the noise e.
export function corrector(mixture, wanted, w, x, t, h, e, normals) {
  const { u, c } = fieldsOf(mixture, wanted, x, t);
  const moved = new Float64Array(x.length);
  const gain = new Float64Array(x.length / 2);
  for (let i = 0; i < x.length; i++) {
    const g = u[i] + w * (c[i] - u[i]);
    moved[i] = x[i] + h * (g + (e * e * scoreOf(g, x[i], t)) / 2) + e * Math.sqrt(h) * normals[i];
    gain[i >> 1] += (h * w * (w - 1) * (c[i] - u[i]) ** 2 * t) / (1 - t);
  }
  return { moved, gain };
}

// The noise that is added: e^2 / 2 is 8 b_t, but at most 16, with b_t = (1 - t) / t, so that particles mix while classes overlap.
export const noise = (t) => Math.sqrt(2 * Math.min((8 * (1 - t)) / t, 16));

// Extends states { x, logs, weights, draws } to `count` steps. Particles are drawn anew by their weights where fewer than half
// of them count; `moved` is where they were before.
export function corrected(states, count, mixture, wanted, w, random) {
  for (let n = states.length - 1; n < count; n++) {
    const { x, logs, draws } = states[n];
    const t = n / STEPS;
    const { normals, shift } = random.step(n);
    const { moved, gain } = corrector(mixture, wanted, w, x, t, 1 / STEPS, noise(t), normals);
    const grown = logs.map((l, i) => l + gain[i]);
    const weights = normalized(grown);
    const poor = effective(weights) < logs.length / 2;
    const kept = poor && systematic(weights, shift);
    states.push(
      poor
        ? {
            x: moved.map((_, i) => moved[2 * kept[i >> 1] + (i % 2)]),
            logs: logs.map(() => 0),
            weights: logs.map(() => 1 / logs.length),
            draws: draws + 1,
            moved,
          }
        : { x: moved, logs: grown, weights, draws, moved },
    );
  }
  return states;
}

// Distances

// The masses of a law's cells, which fill the square [-reach, reach]^2 in rows from the top, as masses of equal bins along a
// direction; they begin at -reach (|c| + |s|).
export function projected(masses, [c, s]) {
  const m = Math.sqrt(masses.length);
  const wide = Math.abs(c) + Math.abs(s); // of a bin, in cells
  const bins = new Float64Array(m + 1);
  masses.forEach((mass, i) => {
    if (!mass) return;
    const place = (c * ((i % m) + 0.5 - m / 2) - s * (Math.floor(i / m) + 0.5 - m / 2)) / wide + m / 2 - 0.5;
    const k = Math.floor(place + 1e-9);
    bins[k] += mass * (k + 1 - place);
    bins[k + 1] += mass * (place - k);
  });
  return bins;
}

// The root of the mean square W_2, over projections to 8 lines, between weighted particles and a law in cells
export function sliced(x, weights, bins, reach) {
  const m = bins[0].length - 1;
  const n = weights.length;
  let sum = 0;
  LINES.forEach(([c, s], line) => {
    // Numbers are sorted much faster than pairs: the place comes first in each, and the particle last.
    const order = new Float64Array(n);
    for (let i = 0; i < n; i++) order[i] = Math.round(2 ** 24 * (c * x[2 * i] + s * x[2 * i + 1])) * n + i;
    const wide = ((2 * reach) / m) * (Math.abs(c) + Math.abs(s));
    let k = 0;
    let below = 0; // the mass of bins before k
    let level = 0;
    for (const number of order.sort()) {
      const i = number - n * Math.floor(number / n);
      const middle = level + weights[i] / 2;
      while (below + bins[line][k] < middle && k < m) below += bins[line][k++];
      const quantile = (k - m / 2 + (middle - below) / (bins[line][k] || 1)) * wide;
      sum += weights[i] * (c * x[2 * i] + s * x[2 * i + 1] - quantile) ** 2;
      level += weights[i];
    }
  });
  return Math.sqrt(sum / LINES.length);
}

// Exact draws of a law in cells: one for each of the ascending levels in (0, 1), somewhere in its cell
export function drawn(masses, reach, levels, places) {
  const m = Math.sqrt(masses.length);
  const out = new Float64Array(places.length);
  let k = 0;
  let below = 0;
  levels.forEach((level, i) => {
    while (below + masses[k] < level && k < masses.length - 1) below += masses[k++];
    out[2 * i] = reach * ((2 * ((k % m) + places[2 * i])) / m - 1);
    out[2 * i + 1] = reach * (1 - (2 * (Math.floor(k / m) + places[2 * i + 1])) / m);
  });
  return out;
}

// The logarithm of the density, which is that of the masses but for a constant, along the line that holds a share of them
export function lineOf(logs, masses, share) {
  const most = masses.reduce((a, b) => Math.max(a, b));
  const high = masses.filter((p) => p > 1e-6 * most).sort();
  let i = high.length;
  for (let mass = 0; mass < share; mass += high[i]) i--;
  return Math.log(high[i]) - Math.log(most) + logs.reduce((a, b) => Math.max(a, b));
}

// The curves on which numbers in an m x m grid pass a level (marching squares): closed lists of places [column, row]
export function contours(numbers, level) {
  const m = Math.sqrt(numbers.length);
  const next = new Map(); // from edge to edge; edge 2 i lies between i and i + 1, edge 2 i + 1 between i and i + m
  const over = (i) => numbers[i] > level;
  for (let i = 0; i < m * (m - 1); i++) {
    if (i % m === m - 1) continue;
    const corners = [over(i), over(i + 1), over(i + m + 1), over(i + m)];
    const count = corners[0] + corners[1] + corners[2] + corners[3];
    if (!count || count === 4) continue;
    const edges = [2 * i, 2 * i + 3, 2 * (i + m), 2 * i + 1];
    for (let out = 0; out < 4; out++) {
      if (!corners[out] || corners[(out + 1) % 4]) continue;
      let back = out + 1;
      while (!corners[(back + 1) % 4]) back++;
      next.set(edges[out], edges[back % 4]);
    }
  }
  const place = (edge) => {
    const i = edge >> 1;
    const share = (level - numbers[i]) / (numbers[edge % 2 ? i + m : i + 1] - numbers[i]);
    return [(i % m) + (edge % 2 ? 0 : share), Math.floor(i / m) + (edge % 2 ? share : 0)];
  };
  const curves = [];
  while (next.size) {
    const curve = [];
    let [edge] = next.keys();
    while (next.has(edge)) {
      curve.push(place(edge));
      const to = next.get(edge);
      next.delete(edge);
      edge = to;
    }
    curves.push([...curve, curve[0]]);
  }
  return curves;
}

// Numbers that are the same in every page
export function chance(n) {
  let seed = 1;
  const uniform = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  const steps = [];
  return {
    start: Float64Array.from({ length: 2 * n }, normal),
    exact: Array.from({ length: 4 }, () => ({
      levels: Float64Array.from({ length: n }, uniform).sort(),
      places: Float64Array.from({ length: 2 * n }, uniform),
    })),
    step: (k) => (steps[k] ??= { normals: Float64Array.from({ length: 2 * n }, normal), shift: uniform() }),
  };
}

export function guidance(spec, engine) {
  const { values, colors } = engine;
  const [plain, better] = engine.panels;
  const { reach, window: seen, mixture, particles: n } = spec;
  const names = Object.keys(spec.classes);
  const remember = memory();
  const random = chance(n);
  const even = new Float64Array(n).fill(1 / n);
  let chosen = spec.chosen;

  const wanted = () => spec.classes[chosen];
  const first = () => ({ x: random.start, logs: new Float64Array(n), weights: even, draws: 0 });

  // The states up to the step after t
  const reached = (t, steps) => Math.min(Math.floor(t * steps) + 1, steps);
  const flowed = (t) => {
    const { w, low, high, [STAR]: star } = values;
    const states = remember("flowed", `${[chosen, w, low, high, star]}`, () => [random.start.slice()]);
    const field = guided(mixture, wanted(), { w, low, high, star, zero: spec.zero });
    return advance(states, reached(t, STEPS / 3), field, 0, 3 / STEPS, spec.reference);
  };
  const simulated = (t) => {
    const states = remember("simulated", `${chosen} ${values.w}`, () => [first()]);
    return corrected(states, reached(t, STEPS), mixture, wanted(), values.w, random);
  };
  const flow = () => between(flowed(values.t), values.t, STEPS / 3);
  const cloud = () => {
    const states = simulated(values.t);
    const step = Math.floor(values.t * STEPS);
    const { x, weights, draws } = states[step];
    const way = step < STEPS ? between([x, states[step + 1].moved], values.t * STEPS - step) : x;
    return { x: way, weights, draws };
  };

  // The laws at t in cells; the tilted one also as a picture and in numbers
  const small = new OffscreenCanvas(CELLS, CELLS);
  const box = { left: -reach, right: reach, bottom: -reach, top: reach };
  const laws = () => {
    const { t } = values;
    return remember("laws", `${chosen} ${t}`, () => {
      const { p, q, o } = densities(mixture, wanted(), grid, t);
      return { p, q, lines: [outlined(q), outlined(o)] };
    });
  };
  const target = () =>
    remember("target", `${chosen} ${values.w} ${values.t} ${colors.muted}`, () => {
      const { p, q } = laws();
      const logs = p.map((l, i) => l + values.w * (q[i] - l));
      const picture = haze(small, box, rgb(colors.muted), () => logs);
      const masses = normalized(logs);
      const middle = [0, 1].map((k) => masses.reduce((sum, mass, i) => sum + mass * grid[2 * i + k], 0));
      const bins = LINES.map((line) => projected(masses, line));
      return { picture, masses, middle, bins, line: outlined(logs, masses) };
    });
  const outlined = (logs, masses = normalized(logs)) =>
    contours(logs, lineOf(logs, masses, SHARE)).map((curve) =>
      curve.map(([column, row]) => [
        reach * ((2 * column + 1) / CELLS - 1),
        reach * (1 - (2 * row + 1) / CELLS),
      ]),
    );
  const grid = Float64Array.from({ length: 2 * CELLS * CELLS }, (_, i) => {
    const k = i >> 1;
    return i % 2
      ? reach * (1 - (2 * Math.floor(k / CELLS) + 1) / CELLS)
      : reach * ((2 * (k % CELLS) + 1) / CELLS - 1);
  });

  const away = (x, weights = even) => sliced(x, weights, target().bins, reach);
  const floor = () => {
    const all = random.exact.map(({ levels, places }) => away(drawn(target().masses, reach, levels, places)));
    return all.reduce((a, b) => a + b) / all.length;
  };
  const found = () => {
    const { x, weights, draws } = cloud();
    return {
      guided: away(flow()),
      corrected: away(x, weights),
      floor: floor(),
      mean: meanOf(x, weights),
      share: effective(weights) / n,
      draws,
    };
  };
  const numbers = () => remember("numbers", JSON.stringify([chosen, { ...values }]), found);

  // A tap chooses the class that is likeliest there, and arrow keys the one before or after.
  function choose(name) {
    if (name === chosen) return;
    chosen = name;
    engine.draw();
  }
  const likeliest = (panel) => (X, Y) => {
    const x = Float64Array.from(panel.inverse(X, Y));
    const p = names.map((name) => {
      const { law, share } = part(mixture, (k) => spec.classes[name].includes(k));
      return Math.log(share) + logDensity(law, x, values.t)[0];
    });
    return names[p.indexOf(Math.max(...p))];
  };
  for (const panel of [plain, better]) {
    choices(panel, likeliest(panel), choose);
    keys(panel, (right, up) => {
      const step = names.indexOf(chosen) + Math.sign(right - up) + names.length;
      choose(names[step % names.length]);
    });
  }

  function drawLaws(panel) {
    panel.plane(seen);
    const { X, Y } = panel;
    const { picture, line } = target();
    const [conditional, others] = laws().lines;
    panel.image(picture, X(-reach), Y(reach), X(reach) - X(-reach), Y(-reach) - Y(reach));
    panel.lines(colors.muted, 1.3, 1, others, [1, 4]);
    panel.lines(colors.truth, 1.2, 1, line);
    panel.lines(colors.truth, 2.6, 1, conditional, [5, 8]);
  }

  // Particles as large as they weigh
  function drawCloud(panel, x, weights) {
    const radii = new Map();
    weights.forEach((p, i) => {
      const radius = Math.min(6, Math.max(0.5, Math.round(4.4 * Math.sqrt(n * p)) / 2));
      if (!radii.has(radius)) radii.set(radius, []);
      radii.get(radius).push(x[2 * i], x[2 * i + 1]);
    });
    for (const [radius, places] of radii) panel.dots(colors.page, radius + 0.8, places);
    for (const [radius, places] of radii) panel.dots(`rgb(${hue(colors, values.t)})`, radius, places);
  }

  const meanOf = (x, weights) => [0, 1].map((k) => weights.reduce((sum, p, i) => sum + p * x[2 * i + k], 0));

  // From the middle of the tilted density to that of the particles
  function drawMiss(panel, x, weights, distance) {
    const [from, to] = [target().middle, meanOf(x, weights)].map(([p, q]) => [panel.X(p), panel.Y(q)]);
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    if (Math.hypot(dx, dy) > 5) {
      const arrow = [from[0] + dx / 2, from[1] + dy / 2, dx, dy];
      panel.arrows(colors.page, 6.5, 0.9, arrow);
      panel.arrows(colors.error, 3.5, 1, arrow);
    }
    panel.text(`${fixed(distance)} away`, panel.width - 14, 15, "right", false, "ink");
  }

  function draw() {
    const { x, weights } = cloud();
    const { guided: missed, corrected } = numbers();
    for (const [panel, places, shares, distance] of [
      [plain, flow(), even, missed],
      [better, x, weights, corrected],
    ]) {
      drawLaws(panel);
      drawCloud(panel, places, shares);
      drawMiss(panel, places, shares, distance);
      panel.axes();
    }
  }

  function readout() {
    const { t, w } = values;
    const { guided: missed, corrected, floor, share, draws } = numbers();
    const away = `guided ${fixed(missed)}, corrected ${fixed(corrected)}, as many exact draws ${fixed(floor)}`;
    const counted = `effective sample size ${Math.round(100 * share)}%, resamplings ${draws}`;
    return `t = ${fixed(t)}, y = ${chosen}, w = ${fixed(w, 1)} · distance to the tilted density: ${away} · ${counted}`;
  }

  // Steps are taken a few at a time, so that a slow phone can scroll meanwhile
  function prepare(deadline) {
    for (let t = 0; t < values.t; t += 0.1) {
      flowed(t);
      simulated(t);
      if (performance.now() > deadline) return false;
    }
  }

  function change(name) {
    if (name === "low" && values.low > values.high) engine.set("high", values.low);
    if (name === "high" && values.high < values.low) engine.set("low", values.high);
  }

  return {
    draw,
    readout,
    prepare,
    change,
    reset() {
      chosen = spec.chosen;
    },
    state: () => ({ ...numbers(), chosen, middle: target().middle }),
    positions: () => [...flow(), ...cloud().x],
  };
}
