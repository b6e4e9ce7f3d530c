// Points and a grid in the plane, carried through the layers of a normalizing flow, and small pictures of every state.

import { hue } from "../explorables/drawing.js";
import { between, decode16 } from "../explorables/numerics.js";
import { choices, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const FEW = 150; // points of a small picture, at most

// Numbers sent as base64, cut into `count` states
export function unpack(text, count) {
  const all = decode16(text);
  const size = all.length / count;
  return Array.from({ length: count }, (_, k) => all.subarray(k * size, (k + 1) * size));
}

// How far a step moves the points, on average, along each axis
export function moves(from, to) {
  const mean = [0, 0];
  from.forEach((x, i) => (mean[i % 2] += (Math.abs(to[i] - x) / from.length) * 2));
  return mean;
}

export function layers(spec, engine) {
  const { values, colors } = engine;
  const [panel, strip] = engine.panels;
  const { labels, window: reach, columns, length } = spec;
  const K = labels.length - 1;
  const states = unpack(spec.states, K + 1);
  const grid = spec.grid && unpack(spec.grid, K + 1);
  const rows = Math.ceil((K + 1) / columns);
  const layer = () => Math.max(1, Math.ceil(values.t - 1e-9)); // the one at work
  const few = states[0].length <= 1000;

  const cell = (k) => {
    const size = (strip.width - 2 - 6 * (columns - 1)) / columns;
    return [1 + (k % columns) * (size + 6), 1 + Math.floor(k / columns) * (size + 6), size];
  };
  const go = (k) => engine.set("t", Math.max(0, Math.min(K, k)));
  choices(
    strip,
    (X, Y) => Math.floor((rows * Y) / strip.height) * columns + Math.floor((columns * X) / strip.width),
    go,
  );
  keys(strip, (right, up) => go(right + up > 0 ? Math.floor(values.t) + 1 : Math.ceil(values.t) - 1));

  function drawMain() {
    const { t } = values;
    const now = between(states, t / K);
    const k = layer();
    panel.plane(reach);
    if (values.grid) {
      const { X, Y } = panel;
      const x = between(grid, t / K);
      panel.ink(colors.muted, 1, 0.55, (pen) => {
        for (let i = 0; i < x.length; i += 2)
          pen[i % (2 * length) ? "lineTo" : "moveTo"](X(x[i]), Y(x[i + 1]));
      });
    }
    if (values.moves) {
      panel.ways(colors.path, 1, 0.6, [states[k - 1], now]);
      panel.ways(colors.path, 1, 0.25, [now, states[k]]);
    }
    if (few) panel.dots(colors.page, 3.6, now);
    panel.dots(`rgb(${hue(colors, t / K)})`, few ? 2.7 : 1.8, now, few ? 1 : 0.8);
    panel.axes();
  }

  // Small pictures of all states, and a frame that passes on from one to the next
  function drawStrip() {
    const box = (k) => (pen) => pen.roundRect(...cell(k), cell(k)[2], 5);
    strip.layer("states", "", 1, () =>
      states.forEach((x, k) => {
        const [left, top, size] = cell(k);
        const scale = size / 2 / reach;
        strip.ink(`rgb(${hue(colors, k / K)})`, 0, 0.8, () => {
          for (let i = 0; i < Math.min(x.length, 2 * FEW); i += 2) {
            if (Math.max(Math.abs(x[i]), Math.abs(x[i + 1])) > reach) continue;
            const [X, Y] = [left + size / 2 + x[i] * scale, top + size / 2 - x[i + 1] * scale];
            strip.circle(X, Y, size / 90 + 0.2);
          }
        });
        strip.ink(colors.muted, 1, 0.5, box(k));
        if (size > 40) strip.text(String(k), left + 9, top + 11);
      }),
    );
    states.forEach((_, k) => {
      const here = Math.max(0, 1 - Math.abs(values.t - k));
      if (here) strip.ink(colors.ink, 2, here, box(k));
    });
  }

  function readout() {
    const k = layer();
    const [across, up] = moves(states[k - 1], states[k]);
    const place = `${values.t ? "" : `${labels[0]}, before `}layer ${k} of ${K}${labels[k] && `, ${labels[k]}`}`;
    const told = `moves points by a mean of ${fixed(across)} along x₁ and ${fixed(up)} along x₂`;
    return `k = ${fixed(values.t)} · ${place} · ${values.t ? "it" : "which"} ${told}`;
  }

  return {
    draw() {
      drawMain();
      drawStrip();
    },
    readout,
    state: () => ({ layer: layer(), means: moves(states[layer() - 1], states[layer()]) }),
    positions: () => [...between(states, values.t / K)],
  };
}
