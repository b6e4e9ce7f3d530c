// A point of the plane that the exact marginal velocity carries, with a small square about it and the density where it is:
// log p along the trajectory is log p at the start less the integral of the divergence.

import { haze, rgb } from "../drawing.js";
import { fixed, scientific } from "../engine.js";
import { arrowKeys, handles } from "../handles.js";
import { between, fields, logDensity, odeint } from "../numerics.js";

const STEPS = 128;

// On the linear path from N(0, I) to the mixture sum_k w_k N(mu_k, S_k), at the point (x, y) and time t: the marginal velocity
// and its Jacobian matrix [u, v, du/dx, du/dy, dv/dx, dv/dy]. With C = t^2 S_k + (1 - t)^2 I, z = (x, y) - t mu_k, posterior
// weights r_k, u_k = mu_k + A_k z, A_k = (t S_k - (1 - t) I) C^-1 and g_k = -C^-1 z,
//     v = sum_k r_k u_k,   Dv = sum_k r_k [A_k + u_k (g_k - sum_j r_j g_j)^T].
export function linearized({ weights, means, covariances }, x, y, t) {
  const l = t * t, s = (1 - t) ** 2;
  const parts = weights.map((w, k) => {
    const [[a, b], [, d]] = covariances[k], [m, n] = means[k], A = l * a + s, B = l * b, D = l * d + s, det = A * D - B * B;
    const [P, Q, R] = [D / det, -B / det, A / det], z = x - t * m, zz = y - t * n, e = t * a - 1 + t, f = t * b, h = t * d - 1 + t;
    const J = [e * P + f * Q, e * Q + f * R, f * P + h * Q, f * Q + h * R], g = [-P * z - Q * zz, -Q * z - R * zz];
    return { J, g, u: [m + J[0] * z + J[1] * zz, n + J[2] * z + J[3] * zz], r: Math.log(w) - Math.log(det) / 2 + (z * g[0] + zz * g[1]) / 2 };
  });
  const top = Math.max(...parts.map(({ r }) => r)), out = [0, 0, 0, 0, 0, 0], score = [0, 0];
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
  const { values, colors, panels: [plane, chart] } = engine, { window: reach, mixture, side } = spec;
  const small = new OffscreenCanvas(80, 80);
  let start = [...spec.start], known, moved = "";
  const log = (x, t) => logDensity(mixture, x.slice(0, 2), t)[0];

  // The trajectory, with log p as the formula has it and as it is
  const solved = () => {
    if (known?.start !== start) {
      const states = carried(mixture, start, spec.reference), first = log(start, 0);
      known = { start, states, found: states.map((x) => first + x[6]), exact: states.map((x, n) => log(x, n / STEPS)) };
    }
    return known;
  };
  const now = () => between(solved().states, values.t);

  const put = (x, y) => {
    const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
    start = [within(x, plane.right), within(y, plane.top)];
    moved = `Start at ${fixed(start[0])}, ${fixed(start[1])}. `;
    engine.draw();
  };
  handles(
    plane,
    (name, held) => (held ? "grabbing" : name ? "grab" : "crosshair"),
    (X, Y) => Math.hypot(X - plane.X(start[0]), Y - plane.Y(start[1])) < 30 && "start",
    (_, x, y) => put(x, y),
    put,
  );
  arrowKeys(plane, (right, up) => put(start[0] + 0.1 * right, start[1] + 0.1 * up));

  const line = (pen, points) => points.forEach((point, i) => pen[i ? "lineTo" : "moveTo"](...point));
  const dot = (panel, color, radius, X, Y) => panel.ink(color, 0, 1, (pen) => pen.arc(X, Y, radius, 0, 7));

  function drawPlane() {
    const { width, height, pen } = plane, unit = (2 * reach) / Math.min(width, height), { t } = values, { source, path, data, muted, page, truth } = colors;
    plane.frame(-width * unit / 2, width * unit / 2, -height * unit / 2, height * unit / 2);
    const { X, Y } = plane, pixels = (x) => [X(x[0]), Y(x[1])], { states } = solved(), x = now(), n = Math.floor(t * STEPS);
    pen.globalAlpha = 1;
    if (values.density) pen.drawImage(haze(small, plane, rgb(muted), (x) => logDensity(mixture, x, t)), 0, 0, width, height);
    if (values.arrows) {
      const places = [], arrows = [], gap = reach / 5;
      for (let a = -6.5; a < 7; a++) for (let b = -6.5; b < 7; b++) places.push(a * gap, b * gap);
      const v = new Float64Array(places.length);
      fields.mixture(mixture)(Float64Array.from(places), t, v);
      for (let i = 0; i < v.length; i += 2) {
        const [A, B] = pixels(places.slice(i, i + 2)), size = (X(gap) - X(0)) / (2 + Math.hypot(v[i], v[i + 1]));
        if ((A < 32 && B < 28) || (A > width - 32 && B > height - 28)) continue; // here the axes have their names
        arrows.push(A, B, v[i] * size, -v[i + 1] * size);
      }
      plane.arrows(truth, 1.1, 0.5, arrows);
    }
    const square = ([x, y, a, b, c, d]) => (pen) => {
      line(pen, [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([p, q]) => pixels([x + (side / 2) * (a * p + b * q), y + (side / 2) * (c * p + d * q)])));
      pen.closePath();
    };
    plane.ink(path, 2.5, 0.4, (pen) => line(pen, [x, ...states.slice(n + 1)].map(pixels)));
    plane.ink(path, 2.5, 1, (pen) => line(pen, [...states.slice(0, n + 1), x].map(pixels)));
    plane.ink(source, 1.5, 0.9, square(states[0]), [3, 4]);
    plane.ink(data, 0, 0.3, square(x));
    plane.ink(data, 2, 1, square(x));
    dot(plane, page, 8.5, ...pixels(start));
    dot(plane, source, 7, ...pixels(start));
    dot(plane, page, 6.5, ...pixels(x));
    dot(plane, path, 5, ...pixels(x));
    plane.text("x₁", width - 14, height - 12, "center", true);
    plane.text("x₂", 9, 14, "left", true);
    for (const a of [-4, -2, 0, 2, 4]) {
      if (X(a) > 24 && X(a) < width - 30) plane.text(String(a), X(a), height - 11);
      if (Y(a) > 30 && Y(a) < height - 24) plane.text(String(a), 9, Y(a), "left");
    }
  }

  function drawChart() {
    const { found, exact } = solved(), all = [...found, ...exact], { muted, ink, path, truth, source, page } = colors, { t } = values;
    const low = Math.floor(Math.min(...all) - 0.2), high = Math.max(low + 3, Math.ceil(Math.max(...all) + 0.2));
    chart.frame(-0.03, 1.05, low, high, 34);
    const { X, Y, width, height } = chart, floor = height - 34, every = Math.ceil((high - low) / 9);
    const curve = (list) => (pen) => line(pen, list.map((y, n) => [X(n / STEPS), Y(y)]));
    chart.ink(muted, 1, 0.22, (pen) => {
      for (let k = low + 1; k <= high; k += every) line(pen, [[34, Y(k)], [width, Y(k)]]);
      for (const s of [0, 0.5, 1]) line(pen, [[X(s), 0], [X(s), floor]]);
    });
    chart.ink(ink, 1, 0.6, (pen) => line(pen, [[34, 0], [34, floor], [width, floor]]));
    chart.ink(muted, 1.5, 1, (pen) => line(pen, [[X(t), 0], [X(t), floor]]), [2, 4]);
    chart.ink(truth, 5, 0.4, curve(exact));
    chart.ink(path, 2.5, 1, curve(found), [7, 6]);
    dot(chart, page, 7, X(0), Y(found[0]));
    dot(chart, source, 5.5, X(0), Y(found[0]));
    const [here] = between(found.map((y) => [y]), t);
    dot(chart, page, 6.5, X(t), Y(here));
    dot(chart, path, 5, X(t), Y(here));
    for (let k = low + 1; k < high; k += every) chart.text(String(k), 28, Y(k), "right");
    for (const [s, name] of [[0, "0"], [0.5, "½"], [1, "1"]]) chart.text(name, X(s), height - 20);
    chart.text("t", (X(0.5) + X(1)) / 2, height - 18, "center", true);
  }

  // At the time shown: log p, minus the integral of the divergence, the area in units of the square's
  function told() {
    const x = now(), [a, b, c, d] = x.slice(2);
    return { log: log(x, values.t), gain: x[6], area: a * d - b * c, first: Math.exp(log(start, 0)) };
  }

  const brief = (number) => (number >= 0.01 && number < 1000 ? number.toFixed(Math.max(0, 2 - Math.floor(Math.log10(number)))) : scientific(number));

  function readout() {
    const { log, gain, area, first } = told(), p = Math.exp(log);
    return `t = ${fixed(values.t)} · log p = ${fixed(log)}, at the start ${fixed(Math.log(first))}, and −∫ div v dt = ${fixed(gain)} · p = ${brief(p)}, area × ${brief(area)} · p × area = ${brief(p * area)}, at the start ${brief(first)}`;
  }

  return {
    draw: () => (drawPlane(), drawChart()),
    readout,
    heard() {
      const text = moved + readout();
      moved = "";
      return text;
    },
    reset: () => (start = [...spec.start]),
    state: () => ({ starts: start, ...told() }),
    positions: () => [...now().slice(0, 2)],
  };
}
