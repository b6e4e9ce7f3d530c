// Points and a grid in the plane, carried through the layers of a normalizing flow, and small pictures of every state.

import { hue } from "../drawing.js";
import { fixed } from "../engine.js";
import { arrowKeys } from "../handles.js";
import { between, decode16 } from "../numerics.js";

// Numbers sent as base64, cut into `count` states
export function unpack(text, count) {
  const all = decode16(text), size = all.length / count;
  return Array.from({ length: count }, (_, k) => all.subarray(k * size, (k + 1) * size));
}

// How far a step moves the points, on average, along each axis
export function moves(from, to) {
  const mean = [0, 0];
  from.forEach((x, i) => (mean[i % 2] += (Math.abs(to[i] - x) / from.length) * 2));
  return mean;
}

export function layers(spec, engine) {
  const { values, colors, panels: [panel, strip] } = engine, { labels, window: reach, columns } = spec, K = labels.length - 1;
  const states = unpack(spec.states, K + 1), grid = spec.grid && unpack(spec.grid, K + 1), rows = Math.ceil((K + 1) / columns);
  const layer = () => Math.max(1, Math.ceil(values.t - 1e-9)); // the one at work
  let pictures, key;

  // A tap on a small picture goes to its state, and so do arrow keys.
  const cell = (k) => {
    const size = (strip.width - 2 - 6 * (columns - 1)) / columns;
    return [1 + (k % columns) * (size + 6), 1 + Math.floor(k / columns) * (size + 6), size];
  };
  const go = (k) => engine.set("t", Math.max(0, Math.min(K, k)));
  strip.canvas.style.cursor = "pointer";
  strip.canvas.addEventListener("click", (event) => {
    const box = strip.canvas.getBoundingClientRect(), column = Math.floor((columns * (event.clientX - box.left)) / box.width);
    go(Math.floor((rows * (event.clientY - box.top)) / box.height) * columns + column);
  });
  arrowKeys(strip, (right, up) => go(right + up > 0 ? Math.floor(values.t) + 1 : Math.ceil(values.t) - 1));

  const dots = (x, radius, X, Y) => (pen) => {
    for (let i = 0; i < x.length; i += 2) {
      pen.moveTo(X(x[i]) + radius, Y(x[i + 1]));
      pen.arc(X(x[i]), Y(x[i + 1]), radius, 0, 7);
    }
  };

  function drawMain() {
    const unit = (2 * reach) / Math.min(panel.width, panel.height), { t } = values, few = states[0].length <= 1000;
    panel.frame(-panel.width * unit / 2, panel.width * unit / 2, -panel.height * unit / 2, panel.height * unit / 2);
    const { X, Y, width, height } = panel, now = between(states, t / K), k = layer();
    if (values.grid) {
      const x = between(grid, t / K), { length } = spec;
      panel.ink(colors.muted, 1, 0.55, (pen) => {
        for (let i = 0; i < x.length; i += 2) pen[i % (2 * length) ? "lineTo" : "moveTo"](X(x[i]), Y(x[i + 1]));
      });
    }
    if (values.moves)
      for (const [from, to, alpha] of [[states[k - 1], now, 0.6], [now, states[k], 0.25]])
        panel.ink(colors.path, 1, alpha, (pen) => {
          for (let i = 0; i < now.length; i += 2) pen.moveTo(X(from[i]), Y(from[i + 1])), pen.lineTo(X(to[i]), Y(to[i + 1]));
        });
    if (few) panel.ink(colors.page, 0, 1, dots(now, 3.6, X, Y));
    panel.ink(`rgb(${hue(colors, t / K)})`, 0, few ? 1 : 0.8, dots(now, few ? 2.7 : 1.8, X, Y));
    panel.text("x₁", width - 14, height - 12, "center", true);
    panel.text("x₂", 9, 14, "left", true);
    const tick = 2 ** Math.round(Math.log2(reach / 2.5));
    for (let a = -3 * tick; a <= 3 * tick; a += tick) {
      if (X(a) > 24 && X(a) < width - 30) panel.text(String(a), X(a), height - 11);
      if (Y(a) > 30 && Y(a) < height - 24) panel.text(String(a), 9, Y(a), "left");
    }
  }

  function drawStrip() {
    if (key !== (key = [strip.width, strip.canvas.width, colors.source].join())) {
      pictures = new OffscreenCanvas(strip.canvas.width, strip.canvas.height);
      const pen = pictures.getContext("2d"), ratio = pictures.width / strip.width, few = Math.min(1, 400 / states[0].length);
      pen.scale(ratio, ratio);
      states.forEach((x, k) => {
        const [left, top, size] = cell(k), scale = size / 2 / reach;
        pen.save();
        pen.beginPath();
        pen.rect(left, top, size, size);
        pen.clip();
        pen.beginPath();
        dots(x, size / 90 + 0.2, (a) => left + size / 2 + a * scale, (b) => top + size / 2 - b * scale)(pen);
        Object.assign(pen, { fillStyle: `rgb(${hue(colors, k / K)})`, globalAlpha: 0.4 + 0.5 * few });
        pen.fill();
        pen.restore();
      });
    }
    strip.pen.globalAlpha = 1;
    strip.pen.drawImage(pictures, 0, 0, strip.width, strip.height);
    states.forEach((_, k) => {
      const [left, top, size] = cell(k), here = Math.max(0, 1 - Math.abs(values.t - k)); // passes on from one to the next
      strip.ink(colors.muted, 1, 0.5, (pen) => pen.roundRect(left, top, size, size, 5));
      if (here) strip.ink(colors.ink, 2, here, (pen) => pen.roundRect(left, top, size, size, 5));
      if (size > 40) strip.text(String(k), left + 9, top + 11);
    });
  }

  function readout() {
    const k = layer(), [across, up] = moves(states[k - 1], states[k]);
    const place = `${values.t ? "" : labels[0] + ", before "}layer ${k} of ${K}${labels[k] && ", " + labels[k]}`;
    return `k = ${fixed(values.t)} · ${place} · ${values.t ? "it" : "which"} moves points by a mean of ${fixed(across)} along x₁ and ${fixed(up)} along x₂`;
  }

  return {
    draw: () => (drawMain(), drawStrip()),
    readout,
    state: () => ({ layer: layer(), means: moves(states[layer() - 1], states[layer()]) }),
    positions: () => [...between(states, values.t / K)],
  };
}
