// Many probability paths between the same two ends: x_t = alpha x_1 + sigma x_0 + m(t) in the plane, with a detour m that is
// 0 at both ends. Points are carried by each path's own marginal velocity.

import { affine } from "../affine.js";
import { haze, hue, rgb } from "../drawing.js";
import { advance, between, decode16, fields, logDensity } from "../numerics.js";
import { fixed } from "../engine.js";

const STEPS = 64, MOMENTS = [0, 0.25, 0.5, 0.75, 1];

// m = c sin(pi t) (cos 2 pi t, sin 2 pi t) and its derivative
export function detour(c, t) {
  const s = c * Math.sin(Math.PI * t), ds = c * Math.PI * Math.cos(Math.PI * t), turn = 2 * Math.PI * t;
  const p = Math.cos(turn), q = Math.sin(turn);
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
  let length = 0, energy = 0;
  for (let n = 1; n < states.length; n++)
    for (let i = 0; i < states[n].length; i += 2) {
      const square = (states[n][i] - states[n - 1][i]) ** 2 + (states[n][i + 1] - states[n - 1][i + 1]) ** 2;
      length += Math.sqrt(square);
      energy += square * (states.length - 1);
    }
  return [length, energy].map((sum) => (2 * sum) / states[0].length);
}

export function paths(spec, engine) {
  const { values, colors, panels: [panel, strip] } = engine, { window: reach, reference, mixture } = spec;
  const points = decode16(spec.points), first = Object.keys(spec.paths)[0], name = () => values.path ?? first;
  const law = (path = name()) => ({ ...mixture, at: affine[spec.paths[path]] });

  // Whatever takes time is remembered under a name until its key changes.
  const memory = {};
  const remember = (name, key, make) => {
    if (memory[name]?.key !== key) memory[name] = { key, value: make() };
    return memory[name].value;
  };

  // The detour moves everything alike: trajectories are solved without it, and moved.
  const solved = (path, count = STEPS) => {
    const states = remember(`solved ${path}`, "", () => [Float64Array.from(points)]);
    return advance(states, count, fields.mixture(law(path)), 0, 1 / STEPS, reference);
  };
  const moved = (path, c) => solved(path).map((x, n) => shifted(x, c, n / STEPS));
  const states = () => remember("states", `${name()} ${values.c}`, () => moved(name(), values.c));
  const now = () => shifted(between(solved(name()), values.t, STEPS), values.c, values.t);
  const costs = () => remember("costs", `${name()} ${values.c}`, () => cost(states()));

  // A tap on a small picture goes to its moment.
  const cell = (i) => {
    const gap = 8, size = Math.min(strip.height - 2, (strip.width - 4 * gap - 2) / 5);
    return [1 + i * (strip.width - 2 - size) / 4, 1, size];
  };
  strip.canvas.style.cursor = "pointer";
  strip.canvas.addEventListener("click", (event) => {
    const box = strip.canvas.getBoundingClientRect();
    engine.set("t", MOMENTS[Math.min(4, Math.floor((5 * (event.clientX - box.left)) / box.width))]);
  });

  const cloud = (canvas, box, t, color) => haze(canvas, box, color, (x) => logDensity(law(), shifted(x, values.c, t, -1), t));

  function thumbnails() {
    const box = { left: -reach, right: reach, bottom: -reach, top: reach };
    return MOMENTS.map((t) => {
      const key = t % 1 ? `${name()} ${values.c}` : ""; // the ends are those of every path
      return remember(`thumbnail ${t}`, key + colors.path, () => cloud(new OffscreenCanvas(40, 40), box, t, hue(colors, t)));
    });
  }

  function draw() {
    const unit = (2 * reach) / Math.min(panel.width, panel.height), { t, c } = values;
    panel.frame(-panel.width * unit / 2, panel.width * unit / 2, -panel.height * unit / 2, panel.height * unit / 2);
    drawMain(t, c);
    drawStrip(t);
  }

  function drawMain(t, c) {
    const { X, Y, width, height, pen } = panel, { path, source, muted } = colors, color = `rgb(${hue(colors, t)})`;
    if (values.density) {
      const n = Math.round((80 * height) / width), small = remember("small", n, () => new OffscreenCanvas(80, n));
      pen.globalAlpha = 1;
      pen.drawImage(cloud(small, panel, t, rgb(muted)), 0, 0, width, height);
    }
    const along = (from, to, alpha) => panel.ink(path, 1, alpha, (pen) => {
      const all = states(), a = from * STEPS, b = to * STEPS, inner = [];
      for (let n = 2 * Math.floor(a / 2) + 2; n < b; n += 2) inner.push(all[n]); // every other is smooth enough
      const way = [between(all, from), ...inner, between(all, to)];
      for (let i = 0; i < points.length; i += 2) way.forEach((x, n) => pen[n ? "lineTo" : "moveTo"](X(x[i]), Y(x[i + 1])));
    });
    if (values.trajectories) {
      if (t < 1) along(t, 1, 0.22);
      if (t > 0) along(0, t, 0.5);
    }
    if (c)
      panel.ink(colors.truth, 1.5, 0.8, (pen) => {
        for (let n = 0; n <= 100; n++) {
          const [p, q] = detour(c, n / 100);
          pen.lineTo(X(p), Y(q));
        }
      }, [2, 5]);
    if (values.arrows) {
      const places = [], arrows = [];
      for (let x = 0.25 - Math.ceil(2 * panel.right) / 2; x < panel.right; x += 0.5)
        for (let y = 0.25 - Math.ceil(2 * panel.top) / 2; y < panel.top; y += 0.5) places.push(x, y);
      const v = new Float64Array(places.length);
      detoured(fields.mixture(law()), c)(Float64Array.from(places), t, v);
      for (let i = 0; i < v.length; i += 2) {
        const size = (X(0.45) - X(0)) / (3 + Math.hypot(v[i], v[i + 1]));
        arrows.push(X(places[i]), Y(places[i + 1]), v[i] * size, -v[i + 1] * size);
      }
      panel.arrows(colors.truth, 1.2, 0.6, arrows);
    }
    const each = (x, radius) => (pen) => {
      for (let i = 0; i < x.length; i += 2) {
        pen.moveTo(X(x[i]) + radius, Y(x[i + 1]));
        pen.arc(X(x[i]), Y(x[i + 1]), radius, 0, 7);
      }
    };
    const x = now();
    panel.ink(colors.page, 0, 1, each(x, 4));
    panel.ink(color, 0, 1, each(x, 3));
    if (c) {
      const [p, q] = detour(c, t);
      panel.ink(colors.truth, 2, 1, (pen) => [[-6, 0], [0, -6]].forEach(([a, b]) => (pen.moveTo(X(p) + a, Y(q) + b), pen.lineTo(X(p) - a, Y(q) - b))));
    }
    panel.text("x₁", width - 14, height - 12, "center", true);
    panel.text("x₂", 9, 14, "left", true);
    for (const a of [-4, -2, 0, 2, 4]) {
      if (X(a) > 24 && X(a) < width - 30) panel.text(String(a), X(a), height - 11);
      if (Y(a) > 30 && Y(a) < height - 24) panel.text(String(a), 9, Y(a), "left");
    }
  }

  function drawStrip(t) {
    thumbnails().forEach((picture, i) => {
      const [left, top, size] = cell(i), here = Math.abs(t - MOMENTS[i]) <= 0.125;
      strip.pen.globalAlpha = 1;
      strip.pen.drawImage(picture, left, top, size, size);
      strip.ink(here ? colors.ink : colors.muted, here ? 2 : 1, here ? 1 : 0.5, (pen) => pen.roundRect(left, top, size, size, 7));
      strip.text(["t = 0", "¼", "½", "¾", "1"][i], left + 8, top + 13, "left");
    });
  }

  function readout() {
    const [length, energy] = costs(), [short, least] = remember("plain", "", () => cost(solved(first)));
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
    draw,
    readout,
    prepare,
    state: () => ({ length: costs()[0], energy: costs()[1] }),
    positions: () => [...now()],
  };
}
