// Many probability paths between the same two ends: x_t = alpha x_1 + sigma x_0 + m(t) in the plane, with a detour m that is
// 0 at both ends. Points are carried by each path's own marginal velocity.

import { affine } from "../explorables/affine.js";
import { haze, hue, shade } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { advance, between, decode16, fields, logDensity, velocities } from "../explorables/numerics.js";
import { choices, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const STEPS = 64;
const MOMENTS = [0, 0.25, 0.5, 0.75, 1];

// m = c sin(pi t) (cos 2 pi t, sin 2 pi t) and its derivative
export function detour(c, t) {
  const s = c * Math.sin(Math.PI * t);
  const ds = c * Math.PI * Math.cos(Math.PI * t);
  const turn = 2 * Math.PI * t;
  const [p, q] = [Math.cos(turn), Math.sin(turn)];
  return [s * p, s * q, ds * p - 2 * Math.PI * s * q, ds * q + 2 * Math.PI * s * p];
}

// The points moved by sign m(t)
export function shifted(x, c, t, sign = 1) {
  const m = detour(c, t);
  return x.map((p, i) => p + sign * m[i % 2]);
}

// The marginal velocity of the path with the detour: v(x - m, t) + m', if v is that without.
export function detoured(field, c) {
  return (x, t, out) => {
    field(shifted(x, c, t, -1), t, out);
    const m = detour(c, t);
    for (let i = 0; i < out.length; i++) out[i] += m[2 + (i % 2)];
  };
}

// What the way from t = 0 to t = 1 costs: the mean over the points of its length and of the integral of its squared speed
export function cost(states) {
  let length = 0;
  let energy = 0;
  for (let n = 1; n < states.length; n++)
    for (let i = 0; i < states[n].length; i += 2) {
      const square = (states[n][i] - states[n - 1][i]) ** 2 + (states[n][i + 1] - states[n - 1][i + 1]) ** 2;
      length += Math.sqrt(square);
      energy += square * (states.length - 1);
    }
  return [length, energy].map((sum) => (2 * sum) / states[0].length);
}

export function paths(spec, engine) {
  const { values, colors } = engine;
  const [panel, strip] = engine.panels;
  const { window: reach, reference, mixture } = spec;
  const points = decode16(spec.points);
  const first = Object.keys(spec.paths)[0];
  const remember = memory();
  const name = () => values.path ?? first;
  const law = (path = name()) => ({ ...mixture, at: affine[spec.paths[path]] });
  const key = () => `${name()} ${values.c}`;

  // The detour moves everything alike: trajectories are solved without it, and moved.
  const solved = (path, count = STEPS) => {
    const states = remember(`solved ${path}`, "", () => [Float64Array.from(points)]);
    return advance(states, count, fields.mixture(law(path)), 0, 1 / STEPS, reference);
  };
  const states = () =>
    remember("states", key(), () => solved(name()).map((x, n) => shifted(x, values.c, n / STEPS)));
  const now = () => shifted(between(solved(name()), values.t, STEPS), values.c, values.t);
  const costs = () => remember("costs", key(), () => cost(states()));
  const log = (t) => (x) => logDensity(law(), shifted(x, values.c, t, -1), t);

  // Small pictures of the density, to choose their moments
  const cell = (i) => {
    const size = Math.min(strip.height - 2, (strip.width - 34) / 5);
    return [1 + (i * (strip.width - 2 - size)) / 4, 1, size];
  };
  choices(
    strip,
    (X) => Math.min(4, Math.floor((5 * X) / strip.width)),
    (i) => engine.set("t", MOMENTS[i]),
  );
  const thumbnail = (t) => {
    const box = { left: -reach, right: reach, bottom: -reach, top: reach };
    const own = t % 1 ? key() : ""; // the ends are those of every path
    return remember(`thumbnail ${t}`, own + colors.path, () =>
      haze(new OffscreenCanvas(40, 40), box, hue(colors, t), log(t)),
    );
  };

  // One point stands out: a tap takes the nearest, arrow keys the next one.
  const apart = (i) => Math.hypot(points[2 * i] + reach / 3, points[2 * i + 1] - reach / 4);
  const usual = Array.from(points.subarray(points.length / 2), (_, i) => i).reduce((i, j) =>
    apart(j) < apart(i) ? j : i,
  ); // at first, one from the upper left, which must decide for an arm
  let one = usual;
  const choose = (i) => {
    one = (i + points.length / 2) % (points.length / 2);
    const [x, y] = now().subarray(2 * one);
    engine.say(`Point ${one + 1} of ${points.length / 2}, at ${fixed(x)}, ${fixed(y)}`);
    engine.draw();
  };
  choices(
    panel,
    (X, Y) => {
      const x = now();
      let nearest;
      for (let i = 0, least = 24; i < x.length; i += 2) {
        const away = Math.hypot(X - panel.X(x[i]), Y - panel.Y(x[i + 1]));
        if (away < least) [least, nearest] = [away, i / 2];
      }
      return nearest;
    },
    choose,
  );
  keys(panel, (right, up) => choose(one + Math.sign(right + up)));

  function drawTrajectories() {
    const all = states().filter((_, n) => n % 4 === 0); // smooth enough
    const every = Math.ceil(points.length / 100); // of many ways some
    panel.layer("ways", `${key()} ${one}`, 0.3, (alpha) =>
      panel.ways(colors.path, 1, alpha, all, [], (i) => i !== one && i % every === 0),
    );
  }

  // The chosen point: from its start, a ring, to its end, a square
  function drawChosen(t, x) {
    const way = states().map((x) => x.subarray(2 * one, 2 * one + 2));
    const n = Math.floor(t * STEPS);
    if (values.trajectories) {
      panel.line(colors.page, 6, 0.7, way);
      panel.line(colors.path, 2.5, 0.45, [x, ...way.slice(n + 1)]);
      panel.line(colors.path, 3.2, 1, [...way.slice(0, n + 1), x]);
      const end = way.at(-1);
      const square = (radius) => () => panel.square(panel.X(end[0]), panel.Y(end[1]), radius);
      panel.ink(colors.page, 0, 1, square(6.5));
      panel.ink(colors.data, 0, 1, square(5));
      panel.dots(colors.page, 6, way[0]);
      panel.dots(colors.source, 5, way[0], 1, 2.5);
    }
    panel.dots(colors.page, 9, x);
    panel.dots(colors.ink, 7.5, x);
    panel.dots(`rgb(${hue(colors, t)})`, 5.5, x);
  }

  function drawMain() {
    const { t, c } = values;
    panel.plane(reach);
    if (values.density) shade(panel, colors.muted, remember, `${key()} ${t}`, log(t));
    if (values.trajectories) drawTrajectories();
    const loop = Array.from({ length: 101 }, (_, n) => detour(c, n / 100));
    if (c) panel.line(colors.truth, 1.5, 0.8, loop, [2, 5]);
    if (values.arrows) {
      const x = panel.places(0.5);
      const v = velocities(detoured(fields.mixture(law()), c), x, t);
      panel.quiver(colors.truth, 1.2, 0.6, x, v, (speed) => 0.45 / (3 + speed));
    }
    const x = now();
    panel.dots(colors.page, 3.4, x);
    panel.dots(`rgb(${hue(colors, t)})`, 2.4, x, 0.8);
    drawChosen(t, x.subarray(2 * one, 2 * one + 2));
    if (c) {
      const [p, q] = detour(c, t);
      const [X, Y] = [panel.X(p), panel.Y(q)];
      panel.ink(colors.truth, 2, 1, (pen) => {
        for (const [a, b] of [
          [6, 0],
          [0, 6],
        ]) {
          pen.moveTo(X - a, Y - b);
          pen.lineTo(X + a, Y + b);
        }
      });
    }
    panel.axes();
  }

  const near = (t) => Math.abs(values.t - t) <= 0.125;
  function drawStrip() {
    MOMENTS.forEach((t, i) => {
      const [left, top, size] = cell(i);
      const here = near(t);
      strip.image(thumbnail(t), left, top, size, size);
      strip.ink(here ? colors.ink : colors.muted, here ? 2 : 1, here ? 1 : 0.5, (pen) =>
        pen.roundRect(left, top, size, size, 7),
      );
      strip.text(["t = 0", "¼", "½", "¾", "1"][i], left + 8, top + 13, "left");
    });
  }

  function readout() {
    const [length, energy] = costs();
    const [short, least] = remember("plain", "", () => cost(solved(first)));
    const told = `t = ${fixed(values.t)} · mean path length ${fixed(length)}, kinetic energy ${fixed(energy)}`;
    if (name() === first && !values.c) return told;
    return `${told} (${first.split(":")[0].toLowerCase()} without detour: ${fixed(short)} and ${fixed(least)})`;
  }

  function prepare(deadline) {
    for (let n = 0; n < STEPS; n++) {
      solved(name(), n + 1);
      if (performance.now() > deadline) return false;
    }
  }

  return {
    draw() {
      drawMain();
      strip.layer("strip", `${key()} ${MOMENTS.map(near)}`, 1, drawStrip);
    },
    readout,
    prepare,
    reset() {
      one = usual;
    },
    state: () => ({ length: costs()[0], energy: costs()[1], one }),
    positions: () => [...now()],
  };
}
