// Adaptive Runge-Kutta steps for a method with an error estimate, such as Dormand and Prince's, from t = 0 to 1 by `adaptive_steps`
// of flowlib: one step length for all points, of the root mean square of their errors, under proportional-integral control.

// Where points x stand after each accepted step: { times, states, slopes, evaluations }.
export function adaptive(
  field,
  start,
  { a, b, c, error, order },
  { rtol = 1e-5, atol = 1e-5, most = 1000 } = {},
) {
  const made = { times: [0], states: [Float64Array.from(start)], slopes: [], evaluations: 0 };
  const n = start.length;
  const at = (x, t) => {
    const out = new Float64Array(n);
    field(x, t, out);
    made.evaluations++;
    return out;
  };
  const combined = (x, h, weights, slopes) => {
    const out = x.slice();
    weights.forEach((w, i) => {
      if (w) for (let q = 0; q < n; q++) out[q] += h * w * slopes[i][q];
    });
    return out;
  };
  // A norm in units of the tolerance
  const size = (error, x, next) => {
    let sum = 0;
    for (let q = 0; q < n; q++)
      sum += (error[q] / (atol + rtol * Math.max(Math.abs(x[q]), Math.abs(next[q])))) ** 2;
    return Math.sqrt(sum / n);
  };

  let [x] = made.states;
  let k = at(x, 0);
  made.slopes.push(k);
  // Short enough for the first two derivatives: Hairer, Norsett and Wanner, end of II.4
  const firstLength = () => {
    const [state, speed] = [size(x, x, x), size(k, x, x)];
    const probe = Math.min(state, speed) >= 1e-5 ? Math.min((0.01 * state) / speed, 1) : 1e-6;
    const later = at(combined(x, probe, [1], [k]), probe);
    const bend = size(combined(later, -1, [1], [k]), x, x) / probe;
    const fastest = Math.max(speed, bend);
    return Math.min(100 * probe, fastest > 1e-15 ? (0.01 / fastest) ** (1 / order) : 100 * probe);
  };
  let h = firstLength();
  let t = 0;
  let before = 1e-4; // the last accepted error
  let growth = 10; // by how much the next step may grow
  for (let tried = 0; t < 1; tried++) {
    if (!(tried < most && h > 1e-12))
      throw new RangeError(`no step meets the tolerance at t = ${t} after ${tried} of them`);
    const last = 1 - t <= 1.1 * h;
    const to = last ? 1 : t + h;
    const slopes = [k];
    for (let i = 1; i < b.length; i++)
      slopes.push(at(combined(x, to - t, a[i], slopes), t + c[i] * (to - t)));
    const next = combined(x, to - t, b, slopes);
    slopes.push(at(next, to));
    const missed = size(combined(new Float64Array(n), to - t, error, slopes), x, next);
    const ratio = 0.9 * Math.max(missed, 1e-10) ** (-0.85 / order) * before ** (0.2 / order);
    const wanted = (to - t) * (Number.isFinite(missed) ? Math.min(Math.max(ratio, 0.2), growth) : 0.2);
    growth = 1;
    h = wanted;
    if (!(missed <= 1)) continue;
    [t, x, k, before, growth] = [to, next, slopes.at(-1), Math.max(missed, 1e-4), 10];
    made.times.push(t);
    made.states.push(x);
    made.slopes.push(k);
  }
  return made;
}

// Where the points are at time t, by the cubics that meet states and slopes (or, without slopes, along lines)
export function placed({ times, states, slopes }, t) {
  let n = 0;
  while (n < times.length - 2 && times[n + 1] <= t) n++;
  if (times.length < 2) return states[0];
  const h = times[n + 1] - times[n];
  const s = (t - times[n]) / h;
  const [x, y] = [states[n], states[n + 1]];
  if (!slopes) return x.map((from, q) => from + s * (y[q] - from));
  const [p, q] = [h * s * (1 - s) ** 2, -h * s * s * (1 - s)];
  const share = s * s * (3 - 2 * s);
  return x.map((from, i) => from + share * (y[i] - from) + p * slopes[n][i] + q * slopes[n + 1][i]);
}
