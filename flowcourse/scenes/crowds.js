// Two crowds on their way from noise to data: one walks in straight lines from random noises to random data, the other follows
// the first one's average. At one place: who of the first passes there, where everyone is going, and the average.

import { hue } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { advance, between, decode16, fields, velocities } from "../explorables/numerics.js";
import { handles, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const STEPS = 40;
const TAILS = 80; // of the walkers, so many show where they came from
const AHEAD = 0.25; // arrows reach as far as one comes in this time

// Where everyone is at time t who walks from noise to datum in a straight line
export const straight = (noises, data, t) => noises.map((x, i) => x + t * (data[i] - x));

// Those of the walkers x who are within a radius of a place
export function passing(x, [p, q], radius) {
  const found = [];
  for (let i = 0; i < x.length; i += 2) if (Math.hypot(x[i] - p, x[i + 1] - q) <= radius) found.push(i / 2);
  return found;
}

export function crowds(spec, engine) {
  const { values, colors, panels } = engine;
  const [taught, answer] = panels;
  const { window: reach, radius, mixture } = spec;
  const [noises, data] = spec.pairs.map((text) => Float64Array.from(decode16(text)));
  const ways = data.map((y, i) => y - noises[i]); // everyone's velocity, at all times
  const field = fields.mixture(mixture);
  const remember = memory();
  let put = [...spec.place]; // where the reader put the place, and where a mouse passes
  let over;

  const solved = (count = STEPS) => {
    const states = remember("solved", "", () => [noises]);
    return advance(states, count, field, 0, 1 / STEPS, spec.reference);
  };
  const followers = (t) => between(solved(), t);
  const place = () => over ?? put;

  // What is found at the place: who passes, their mean velocity, and the mean over all that could pass
  function survey() {
    const { t } = values;
    const here = passing(straight(noises, data, t), place(), radius);
    const mean = [0, 1].map((k) => here.reduce((sum, i) => sum + ways[2 * i + k], 0) / here.length);
    return { here, mean, exact: [...velocities(field, Float64Array.from(place()), t)] };
  }

  const within = (x, y) =>
    [
      [x, taught.right],
      [y, taught.top],
    ].map(([z, most]) => Math.round(100 * Math.max(-most, Math.min(most, z))) / 100);
  const move = (x, y) => {
    put = within(x, y);
    over = undefined;
    engine.draw();
  };
  for (const panel of panels)
    handles(panel, {
      find: (X, Y) => Math.hypot(X - panel.X(put[0]), Y - panel.Y(put[1])) < 30 && "place",
      move: (_, x, y) => move(x, y),
      tap: move,
      anywhere: "place",
      hover(...at) {
        over = at.length ? within(...at) : undefined;
        engine.draw();
      },
    });
  keys(taught, (right, up) => move(put[0] + 0.1 * right, put[1] + 0.1 * up));

  // Drawing, from back to front

  const some = (x) => x.subarray(0, 2 * TAILS);
  const tails = (panel, states) => panel.ways(colors.path, 1, 0.45, states.map(some));
  const arrow = (panel, color, width, alpha, [x, y], [u, v]) => {
    const [dx, dy] = [AHEAD * u, -AHEAD * v].map((d) => d * (panel.X(1) - panel.X(0)));
    panel.arrows(color, width, alpha, [panel.X(x) + dx / 2, panel.Y(y) + dy / 2, dx, dy]);
  };
  const crowd = (panel, x) => panel.dots(`rgb(${hue(colors, values.t)})`, 2, x, 0.85);

  function drawAverage(panel, exact) {
    const [x, y] = place();
    panel.ink(colors.page, 4, 0.8, () => panel.circle(panel.X(x), panel.Y(y), lens(panel)));
    panel.ink(colors.ink, 1.8, 1, () => panel.circle(panel.X(x), panel.Y(y), lens(panel)));
    arrow(panel, colors.page, 9, 0.85, place(), exact);
    arrow(panel, colors.truth, 4, 1, place(), exact);
  }
  const lens = (panel) => radius * (panel.X(1) - panel.X(0));

  function drawTaught({ here, exact }) {
    const now = straight(noises, data, values.t);
    tails(taught, [noises, now]);
    crowd(taught, now);
    for (const i of here) {
      const at = now.subarray(2 * i, 2 * i + 2);
      arrow(taught, colors.path, 1.6, 1, at, ways.subarray(2 * i, 2 * i + 2));
      taught.dots(colors.page, 4, at);
      taught.dots(colors.path, 3, at);
    }
    drawAverage(taught, exact);
  }

  function drawAnswer({ exact }) {
    const { t } = values;
    const n = Math.ceil(t * STEPS);
    const now = followers(t);
    tails(answer, [...solved().slice(0, n), now]);
    crowd(answer, now);
    drawAverage(answer, exact);
  }

  function readout() {
    const { here, mean, exact } = survey();
    const pair = ([x, y]) => `(${fixed(x)}, ${fixed(y)})`;
    const who = here.length === 1 ? "1 walker passes" : `${here.length || "no"} walkers pass`;
    const theirs = here.length ? `, mean velocity ${pair(mean)}` : "";
    return `t = ${fixed(values.t)} · near ${pair(place())} ${who}${theirs} · of all who could pass there ${pair(exact)}`;
  }

  return {
    draw() {
      const found = survey();
      for (const panel of panels) panel.plane(reach);
      drawTaught(found);
      drawAnswer(found);
      for (const panel of panels) panel.axes();
    },
    readout,
    prepare(deadline) {
      for (let n = 1; n <= STEPS; n++) {
        solved(n);
        if (performance.now() > deadline) return false;
      }
    },
    reset() {
      put = [...spec.place];
    },
    state: () => ({ ...survey(), place: place(), noises: [...noises], data: [...data] }),
    positions: () => [straight(noises, data, values.t), followers(values.t)].map((x) => [...x]),
  };
}
