// A point of the plane that the exact marginal velocity carries, with a small square about it and the density where it is:
// log p along the trajectory is log p at the start less the integral of the divergence.

import { shade } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { between, fields, logDensity, odeint, velocities } from "../explorables/numerics.js";
import { handles, keys } from "../explorables/pointer.js";
import { fixed, scientific } from "../explorables/words.js";

const STEPS = 128;

// On the linear path from N(0, I) to the mixture sum_k w_k N(mu_k, S_k), at the point (x, y) and time t: the marginal velocity
// and its Jacobian matrix [u, v, du/dx, du/dy, dv/dx, dv/dy]. With C = t^2 S_k + (1 - t)^2 I, z = (x, y) - t mu_k, posterior
// weights r_k, u_k = mu_k + A_k z, A_k = (t S_k - (1 - t) I) C^-1 and g_k = -C^-1 z,
//     v = sum_k r_k u_k,   Dv = sum_k r_k [A_k + u_k (g_k - sum_j r_j g_j)^T].
export function linearized({ weights, means, covariances }, x, y, t) {
  const l = t * t,
    s = (1 - t) ** 2;
  const parts = weights.map((w, k) => {
    const [[a, b], [, d]] = covariances[k],
      [m, n] = means[k],
      A = l * a + s,
      B = l * b,
      D = l * d + s,
      det = A * D - B * B;
    const [P, Q, R] = [D / det, -B / det, A / det],
      z = x - t * m,
      zz = y - t * n,
      e = t * a - 1 + t,
      f = t * b,
      h = t * d - 1 + t;
    const J = [e * P + f * Q, e * Q + f * R, f * P + h * Q, f * Q + h * R],
      g = [-P * z - Q * zz, -Q * z - R * zz];
    return {
      J,
      g,
      u: [m + J[0] * z + J[1] * zz, n + J[2] * z + J[3] * zz],
      r: Math.log(w) - Math.log(det) / 2 + (z * g[0] + zz * g[1]) / 2,
    };
  });
  const top = Math.max(...parts.map(({ r }) => r)),
    out = [0, 0, 0, 0, 0, 0],
    score = [0, 0];
  let sum = 0;
  for (const part of parts) sum += part.r = Math.exp(part.r - top);
  for (const part of parts) {
    part.r /= sum;
    for (let i = 0; i < 2; i++) score[i] += part.r * part.g[i];
  }
  for (const { J, g, u, r } of parts)
    for (let i = 0; i < 2; i++) {
      out[i] += r * u[i];
      for (let j = 0; j < 2; j++) out[2 + 2 * i + j] += r * (J[2 * i + j] + u[i] * (g[j] - score[j]));
    }
  return out;
}

// The states [x, y, F_11, F_12, F_21, F_22, minus the integral of div v] from a start, where F' = Dv F carries a small square
export function carried(mixture, start, tableau, steps = STEPS) {
  const field = ([x, y, a, b, c, d], t, out) => {
    const [u, v, P, Q, R, S] = linearized(mixture, x, y, t);
    out.set([u, v, P * a + Q * c, P * b + Q * d, R * a + S * c, R * b + S * d, -P - S]);
  };
  return odeint(field, [...start, 1, 0, 0, 1, 0], 0, 1, steps, tableau);
}

export function density(spec, engine) {
  const { values, colors } = engine;
  const [plane, chart] = engine.panels;
  const { window: reach, mixture, side } = spec;
  const remember = memory();
  let start = [...spec.start];
  let moved = "";
  const log = (x, t) => logDensity(mixture, x.slice(0, 2), t)[0];

  // The trajectory, with log p as the formula has it and as it is
  const solved = () =>
    remember("solved", `${start}`, () => {
      const states = carried(mixture, start, spec.reference);
      const first = log(start, 0);
      return {
        states,
        found: states.map((x) => first + x[6]),
        exact: states.map((x, n) => log(x, n / STEPS)),
      };
    });
  const now = () => between(solved().states, values.t);

  const put = (x, y) => {
    const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
    start = [within(x, plane.right), within(y, plane.top)];
    moved = `Start at ${fixed(start[0])}, ${fixed(start[1])}. `;
    engine.draw();
  };
  handles(plane, {
    find: (X, Y) => Math.hypot(X - plane.X(start[0]), Y - plane.Y(start[1])) < 30 && "start",
    move: (_, x, y) => put(x, y),
    tap: put,
  });
  keys(plane, (right, up) => put(start[0] + 0.1 * right, start[1] + 0.1 * up));

  // A dot with a rim of the page's color
  const dot = (panel, color, radius, place) => {
    panel.dots(colors.page, radius + 1.5, place);
    panel.dots(color, radius, place);
  };

  function drawPlane() {
    const { t } = values;
    const { source, path, data } = colors;
    const { states } = solved();
    const x = now();
    const n = Math.floor(t * STEPS);
    plane.plane(reach);
    if (values.density) shade(plane, colors.muted, remember, t, (x) => logDensity(mixture, x, t));
    if (values.arrows) {
      const gap = reach / 5;
      const places = plane.places(gap);
      const v = velocities(fields.mixture(mixture), places, t);
      plane.quiver(colors.truth, 1.1, 0.5, places, v, (speed) => gap / (2 + speed));
    }
    const square =
      ([x, y, a, b, c, d]) =>
      (pen) => {
        const corners = [
          [-1, -1],
          [1, -1],
          [1, 1],
          [-1, 1],
        ].map(([p, q]) => [p * (side / 2), q * (side / 2)]);
        plane.trace(corners.map(([p, q]) => [x + a * p + b * q, y + c * p + d * q]));
        pen.closePath();
      };
    plane.line(path, 2.5, 0.4, [x, ...states.slice(n + 1)]);
    plane.line(path, 2.5, 1, [...states.slice(0, n + 1), x]);
    plane.ink(source, 1.5, 0.9, square(states[0]), [3, 4]);
    plane.ink(data, 0, 0.3, square(x));
    plane.ink(data, 2, 1, square(x));
    dot(plane, source, 7, start);
    dot(plane, path, 5, x.slice(0, 2));
    plane.axes();
  }

  function drawChart() {
    const { found, exact } = solved();
    const all = [...found, ...exact];
    const low = Math.floor(Math.min(...all) - 0.2);
    const high = Math.max(low + 3, Math.ceil(Math.max(...all) + 0.2));
    chart.frame(-0.03, 1.05, low, high, 34);
    chart.layer("curves", `${start}`, 1, drawCurves);
    chart.line(colors.muted, 1.5, 1, upright(values.t), [2, 4]);
    const [here] = between(
      found.map((y) => [y]),
      values.t,
    );
    dot(chart, colors.path, 5, [values.t, here]);
  }

  const upright = (t) => [
    [t, chart.bottom],
    [t, chart.top],
  ];

  function drawCurves() {
    const { found, exact } = solved();
    const { muted, ink, path, truth, source } = colors;
    const { X, Y, height, left, right, bottom, top } = chart;
    const every = Math.ceil((top - bottom) / 9);
    const numbers = [];
    for (let k = bottom + 1; k <= top; k += every) numbers.push(k);
    const curve = (list) => list.map((y, n) => [n / STEPS, y]);
    chart.lines(muted, 1, 0.22, [
      ...numbers.map((k) => [
        [left, k],
        [right, k],
      ]),
      ...[0, 0.5, 1].map(upright),
    ]);
    chart.line(ink, 1, 0.6, [
      [left, top],
      [left, bottom],
      [right, bottom],
    ]);
    chart.line(truth, 5, 0.4, curve(exact));
    chart.line(path, 2.5, 1, curve(found), [7, 6]);
    dot(chart, source, 5.5, [0, found[0]]);
    for (const k of numbers) if (k < top) chart.text(String(k), 28, Y(k), "right");
    for (const [s, name] of [
      [0, "0"],
      [0.5, "½"],
      [1, "1"],
    ])
      chart.text(name, X(s), height - 20);
    chart.text("t", (X(0.5) + X(1)) / 2, height - 18, "center", true);
  }

  // At the time shown: log p, minus the integral of the divergence, the area in units of the square's
  function told() {
    const x = now();
    const [a, b, c, d] = x.slice(2);
    return { log: log(x, values.t), gain: x[6], area: a * d - b * c, first: Math.exp(log(start, 0)) };
  }

  // Three digits
  const brief = (number) => {
    if (!(number >= 0.01 && number < 1000)) return scientific(number);
    return number.toFixed(Math.max(0, 2 - Math.floor(Math.log10(number))));
  };

  function readout() {
    const { log, gain, area, first } = told();
    const p = Math.exp(log);
    const logs = `log p = ${fixed(log)}, at the start ${fixed(Math.log(first))}, and −∫ div v dt = ${fixed(gain)}`;
    const mass = `p × area = ${brief(p * area)}, at the start ${brief(first)}`;
    return `t = ${fixed(values.t)} · ${logs} · p = ${brief(p)}, area × ${brief(area)} · ${mass}`;
  }

  return {
    draw() {
      drawPlane();
      drawChart();
    },
    readout,
    heard() {
      const text = moved + readout();
      moved = "";
      return text;
    },
    reset() {
      start = [...spec.start];
    },
    state: () => ({ starts: start, ...told() }),
    positions: () => [...now().slice(0, 2)],
  };
}
