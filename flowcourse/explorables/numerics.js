// The mathematics of flowlib in the reader's browser: fields, and one Runge-Kutta loop for every Butcher tableau.
// Points stand flat in Float64Arrays: x_1 and x_2 of the first point, then of the second, and so on.
// A field v(x, t, out) writes the velocities of all points into `out`.

// The inverse of `encode16` in explorables/__init__.py: base64 of little-endian float16 numbers -> Float32Array.
export function decode16(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return Float32Array.from(new Uint16Array(bytes.buffer), (bits) => {
    const sign = bits >> 15 ? -1 : 1,
      exponent = (bits >> 10) & 31,
      fraction = (bits & 1023) / 1024;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
  });
}

// v(x) = A x
function linear({ matrix: [[a, b], [c, d]] }) {
  return (x, _, out) => {
    for (let i = 0; i < x.length; i += 2) {
      const p = x[i],
        q = x[i + 1];
      out[i] = a * p + b * q;
      out[i + 1] = c * p + d * q;
    }
  };
}

// v(x, t) = strength exp(-|x - c|^2 / (2 radius^2)) J (x - c) about the traveling center c
function vortex({ strength, radius, start, end }) {
  return (x, t, out) => {
    const c = start.map((from, i) => from + t * (end[i] - from));
    for (let i = 0; i < x.length; i += 2) {
      const p = x[i] - c[0],
        q = x[i + 1] - c[1];
      const speed = strength * Math.exp(-(p * p + q * q) / (2 * radius * radius));
      out[i] = -speed * q;
      out[i + 1] = speed * p;
    }
  };
}

// Walks over points x at time t on an affine path from N(0, I) to the mixture sum_k w_k N(mu_k, S_k) and calls
// write(i, v, score, log p) for each. `at` gives alpha, sigma and their derivatives at t, of the linear path if left out.
// With C = alpha^2 S_k + sigma^2 I, z = x - alpha mu_k and posterior weights r_k,
//     v = sum_k r_k [alpha' mu_k + (alpha alpha' S_k + sigma sigma' I) C^-1 z],   score = -sum_k r_k C^-1 z.
function posterior({ weights, means, covariances, at = (t) => [t, 1 - t, 1, -1] }, x, t, write) {
  const [alpha, sigma, rise, fall] = at(t),
    grow = alpha * rise,
    shrink = sigma * fall;
  const parts = weights.map((w, k) => {
    const [[a, b], [, d]] = covariances[k],
      [m, n] = means[k];
    const l = alpha * alpha,
      s = sigma * sigma,
      A = l * a + s,
      B = l * b,
      D = l * d + s,
      det = A * D - B * B;
    return {
      a,
      b,
      d,
      m,
      n,
      A: D / det,
      B: -B / det,
      D: A / det,
      top: Math.log(w / (2 * Math.PI * Math.sqrt(det))),
      p: 0,
      q: 0,
      r: 0,
    };
  });
  for (let i = 0; i < x.length; i += 2) {
    let top = -Infinity,
      sum = 0,
      v = 0,
      u = 0,
      f = 0,
      g = 0;
    for (const k of parts) {
      const y = x[i] - alpha * k.m,
        z = x[i + 1] - alpha * k.n;
      k.p = k.A * y + k.B * z;
      k.q = k.B * y + k.D * z;
      k.r = k.top - (y * k.p + z * k.q) / 2;
      if (k.r > top) top = k.r;
    }
    for (const k of parts) sum += k.r = Math.exp(k.r - top);
    for (const { a, b, d, m, n, p, q, r } of parts) {
      f -= r * p;
      g -= r * q;
      v += r * (rise * m + grow * (a * p + b * q) + shrink * p);
      u += r * (rise * n + grow * (b * p + d * q) + shrink * q);
    }
    write(i, v / sum, u / sum, f / sum, g / sum, top + Math.log(sum));
  }
}

// The exact marginal velocity, plus c J score: that carries the same densities, since div(p J grad log p) = div(J grad p) = 0.
function mixture(spec, c = 0) {
  return (x, t, out) =>
    posterior(spec, x, t, (i, v, u, f, g) => {
      out[i] = v - c * g;
      out[i + 1] = u + c * f;
    });
}

export const fields = { linear, vortex, mixture };

// log p_t(x) in nats, one for each point
export function logDensity(spec, x, t) {
  const out = new Float64Array(x.length / 2);
  posterior(spec, x, t, (i, _v, _u, _f, _g, log) => (out[i / 2] = log));
  return out;
}

// One method, by its Butcher tableau { a, b, c }: extends [x(t0), x(t0 + h), ...] to `count` steps of length h.
export function advance(states, count, field, t0, h, { a, b, c }) {
  const slopes = b.map(() => states[0].slice()),
    inner = states[0].slice();
  const combine = (x, weights, out) => {
    out.set(x);
    weights.forEach((w, j) => {
      if (w) for (let i = 0, k = slopes[j], s = w * h; i < out.length; i++) out[i] += s * k[i];
    });
    return out;
  };
  for (let n = states.length - 1; n < count; n++) {
    c.forEach((c_i, i) => field(combine(states[n], a[i], inner), t0 + (n + c_i) * h, slopes[i]));
    states.push(combine(states[n], b, inner.slice()));
  }
  return states;
}

// The states x(t0), ..., x(t1) after each of `steps` equal steps.
export function odeint(field, start, t0, t1, steps, tableau) {
  return advance([Float64Array.from(start)], steps, field, t0, (t1 - t0) / steps, tableau);
}

// Where the polygon through N + 1 states is when a fraction s of its N steps is done.
export function between(states, s, N = states.length - 1) {
  const n = Math.min(Math.floor(s * N), N - 1);
  const out = states[n].slice();
  for (let i = 0, next = states[n + 1], part = s * N - n; i < out.length; i++)
    out[i] += part * (next[i] - out[i]);
  return out;
}

// The field at points x and time t
export function velocities(field, x, t) {
  const out = new Float64Array(x.length);
  field(x, t, out);
  return out;
}

// The lengths of vectors v
export const lengths = (v) =>
  Array.from({ length: v.length / 2 }, (_, i) => Math.sqrt(v[2 * i] ** 2 + v[2 * i + 1] ** 2));

// The speed that nine in ten of the points x do not exceed, at any time
export function usualSpeed(field, x) {
  const all = [0, 0.25, 0.5, 0.75, 1].flatMap((t) => lengths(velocities(field, x, t)));
  return all.sort((a, b) => a - b)[Math.floor(0.9 * all.length)] || 1;
}
