// Where particles land after a few steps of several methods, recorded with flowlib, beside the exact flow.

import { shade } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { between, decode16, logDensity } from "../explorables/numerics.js";
import { fixed } from "../explorables/words.js";

// Recorded places, state after state, as one array for each state
export function unpacked(text, count) {
  const flat = decode16(text);
  const size = flat.length / count;
  return Array.from({ length: count }, (_, n) => flat.slice(n * size, (n + 1) * size));
}

// The root mean square of the distances between two clouds, particle by particle
export function apart(x, y) {
  return Math.sqrt((2 * x.reduce((sum, p, i) => sum + (p - y[i]) ** 2, 0)) / x.length);
}

export function flow_map(spec, engine) {
  const { values, colors } = engine;
  const [plane, exact] = engine.panels;
  const remember = memory();
  const names = Object.keys(spec.methods);
  const truth = unpacked(spec.truth, 33);
  const name = () => values.method ?? names[0];
  const states = () =>
    remember("states", `${name()} ${values.steps}`, () =>
      unpacked(spec.methods[name()][values.steps], values.steps + 1),
    );
  const log = (x) => logDensity(spec.mixture, x, 1);
  const gap = () => apart(states().at(-1), truth.at(-1));

  function drawOne(panel, all, color) {
    const { t } = values;
    panel.plane(spec.window);
    panel.layer("density", "", 1, () => shade(panel, colors.muted, remember, "", log));
    const now = between(all, t);
    if (t > 0) {
      const passed = all.filter((_, n) => n < t * (all.length - 1));
      panel.ways(color, 0.8, 0.35, [...passed, now]);
    }
    if (panel === plane && t === 1) panel.ways(colors.error, 1, 0.6, [now, truth.at(-1)]);
    panel.dots(colors.page, 3.4, now);
    panel.dots(color, 2.5, now);
    panel.axes();
  }

  return {
    draw() {
      drawOne(plane, states(), colors.model);
      drawOne(exact, truth, colors.truth);
    },
    readout() {
      const N = values.steps;
      const cost = `${N} evaluation${N > 1 ? "s" : ""}`;
      return `t = ${fixed(values.t)} · ${name()}, ${cost} · root mean square distance to the true ends: ${fixed(gap())}`;
    },
    state: () => ({ gap: gap(), ends: [...states().at(-1)] }),
    positions: () => [...between(states(), values.t)],
  };
}
