// Noises and data of the plane in straight pairs, the best ones within batches: what the pairs cost, and which of them would
// cost less if they swapped partners.

import { assignment } from "../explorables/assignment.js";
import { hue } from "../explorables/drawing.js";
import { memory } from "../explorables/memory.js";
import { decode16 } from "../explorables/numerics.js";
import { choices, handles, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

const NEAR = 18; // pixels from a point at which a hand takes it
const ROUNDING = 1e-9; // a swap that gains less gains nothing

const squared = (a, i, b, j) => (a[2 * i] - b[2 * j]) ** 2 + (a[2 * i + 1] - b[2 * j + 1]) ** 2;

// For each datum the number of the noise that it is paired with: the best pairs within batches of this size, in order
export function pairedWithin(size, noises, data) {
  const partners = [];
  for (let first = 0; 2 * first < data.length; first += size) {
    const batch = Array.from({ length: Math.min(size, data.length / 2 - first) }, (_, i) => first + i);
    const costs = batch.flatMap((i) => batch.map((j) => squared(noises, i, data, j)));
    partners.push(...[...assignment(costs)].map((i) => first + i));
  }
  return partners;
}

// The mean of |x_1 - x_0|^2 over the pairs
export const meanCost = (noises, data, partners) =>
  partners.reduce((sum, i, j) => sum + squared(noises, i, data, j), 0) / partners.length;

// The pairs of pairs [j, k] that would cost less with partners swapped: <x_0j - x_0k, x_1j - x_1k> < 0
export function swaps(noises, data, partners) {
  const found = [];
  partners.forEach((a, j) => {
    for (let k = 0; k < j; k++) {
      const b = partners[k];
      const product =
        (noises[2 * a] - noises[2 * b]) * (data[2 * j] - data[2 * k]) +
        (noises[2 * a + 1] - noises[2 * b + 1]) * (data[2 * j + 1] - data[2 * k + 1]);
      if (product < -ROUNDING) found.push([k, j]);
    }
  });
  return found;
}

export function pairing(spec, engine) {
  const { values, colors } = engine;
  const [plane, chart] = engine.panels;
  const { window: reach, sizes } = spec;
  const remember = memory();
  let clouds, chosen; // [noises, data]; a point of them { cloud, i }
  let version = 0;
  let moved = "";

  const solved = (size) =>
    remember(`pairs of ${size}`, version, () => {
      const partners = pairedWithin(size, ...clouds);
      return { partners, cost: meanCost(...clouds, partners), swaps: swaps(...clouds, partners) };
    });
  const shown = () => solved(values.size);
  const best = () => solved(spec.pairs);
  const pairOf = ({ cloud, i }) => (cloud ? i : shown().partners.indexOf(i));
  // The pairs that would swap with this one
  const against = (pair) => shown().swaps.flatMap(([j, k]) => (j === pair ? k : k === pair ? j : []));

  // The pair that most others would swap with is the chosen one at first.
  function deal() {
    clouds = spec.draws[(values.draw ?? 1) - 1].map((text) => Float64Array.from(decode16(text)));
    version++;
    const counts = clouds[1].map((_, j) => against(j).length);
    chosen = { cloud: 0, i: shown().partners[Math.max(0, counts.indexOf(Math.max(...counts)))] };
  }
  deal();

  const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
  const named = () => {
    const { cloud, i } = chosen;
    const [x, y] = clouds[cloud].slice(2 * i, 2 * i + 2);
    return `${cloud ? "Datum" : "Noise"} ${i + 1} at ${fixed(x)}, ${fixed(y)}. `;
  };
  function put({ cloud, i }, x, y) {
    clouds[cloud].set([within(x, plane.right), within(y, plane.top)], 2 * i);
    version++;
    moved = named();
    engine.say(moved);
    engine.draw();
  }
  function choose(point) {
    if (point.cloud === chosen.cloud && point.i === chosen.i) return;
    chosen = point;
    engine.draw();
  }
  const step = (by) => () => {
    const all = 2 * spec.pairs;
    const next = (chosen.cloud * spec.pairs + chosen.i + by + all) % all;
    choose({ cloud: +(next >= spec.pairs), i: next % spec.pairs });
    moved = named();
    engine.say(moved + readout());
  };

  function nearest(X, Y) {
    let found;
    let least = NEAR;
    clouds.forEach((points, cloud) => {
      for (let i = 0; i < spec.pairs; i++) {
        const away = Math.hypot(X - plane.X(points[2 * i]), Y - plane.Y(points[2 * i + 1]));
        if (away < least) [least, found] = [away, { cloud, i }];
      }
    });
    return found;
  }
  handles(plane, {
    find: nearest,
    move(point, x, y) {
      chosen = point;
      put(point, x, y);
    },
    cursor(point, held) {
      if (point) choose(point); // also by a mouse that only passes over it
      return held ? "grabbing" : point ? "grab" : "default";
    },
  });
  keys(
    plane,
    (right, up) => {
      const { cloud, i } = chosen;
      put(chosen, clouds[cloud][2 * i] + 0.1 * right, clouds[cloud][2 * i + 1] + 0.1 * up);
    },
    { Enter: step(1), " ": step(1), Backspace: step(-1) },
  );

  // The plane, from back to front

  const segment = (pair) => {
    const [noises, data] = clouds;
    const i = shown().partners[pair];
    return [
      [noises[2 * i], noises[2 * i + 1]],
      [data[2 * pair], data[2 * pair + 1]],
    ];
  };
  const travelers = () =>
    shown().partners.flatMap((_, pair) => {
      const [from, to] = segment(pair);
      return from.map((x, k) => x + values.t * (to[k] - x));
    });

  function drawPairs() {
    const mine = pairOf(chosen);
    const bad = against(mine);
    const batch = (pair) => Math.floor(pair / values.size);
    const kinds = [[], [], []]; // of other batches, of the same, to be swapped
    shown().partners.forEach((_, pair) => {
      if (pair === mine) return;
      kinds[bad.includes(pair) ? 2 : +(batch(pair) === batch(mine))].push(segment(pair));
    });
    plane.lines(colors.path, 1.4, 0.5, kinds[0]);
    plane.lines(colors.path, 1.8, 0.9, kinds[1]);
    plane.lines(colors.page, 4, 0.8, kinds[2]);
    plane.lines(colors.error, 1.8, 1, kinds[2], [6, 5]);
    plane.line(colors.page, 7.5, 0.9, segment(mine));
    plane.line(colors.path, 4, 1, segment(mine));
  }

  const squares = (color, radius) => {
    const data = clouds[1];
    plane.ink(color, 0, 1, () => {
      for (let i = 0; i < data.length; i += 2) plane.square(plane.X(data[i]), plane.Y(data[i + 1]), radius);
    });
  };

  const shape = () => `${version} ${values.size} ${chosen.cloud} ${chosen.i}`;
  function drawPlane() {
    const { t } = values;
    const { source, data, page, ink } = colors;
    plane.plane(reach);
    plane.axes();
    plane.layer("pairs", shape(), 1, () => {
      drawPairs();
      plane.dots(page, 6, clouds[0]);
      plane.dots(source, 4.5, clouds[0]);
      squares(page, 5.5);
      squares(data, 4);
      const { cloud, i } = chosen;
      plane.dots(page, 10, clouds[cloud].slice(2 * i, 2 * i + 2), 1, 5);
      plane.dots(ink, 10, clouds[cloud].slice(2 * i, 2 * i + 2), 1, 2);
    });
    plane.dots(page, 4.6, travelers());
    plane.dots(`rgb(${hue(colors, t)})`, 3.4, travelers());
  }

  // The chart: for every batch size a bar for the cost, and one for the swaps below

  const HEAD = 0.12; // above the bars, for their heading and the number of the highest, in heights of the chart
  const column = () => chart.width / sizes.length;
  choices(
    chart,
    (X) => sizes[Math.max(0, Math.min(sizes.length - 1, Math.floor(X / column())))],
    (size) => {
      engine.set("size", size);
    },
  );

  function drawBars(heading, color, list, [top, bottom], told) {
    const wide = 0.6 * column();
    const most = Math.max(...list) || 1;
    const height = (value) => (value / most) * (bottom - top - HEAD * chart.height);
    const middle = (n) => (n + 0.5) * column();
    chart.text(heading, 6, top + 9, "left", false, "ink");
    list.forEach((value, n) => {
      const mine = sizes[n] === values.size;
      const high = Math.max(height(value), 1);
      chart.ink(color, 0, mine ? 1 : 0.4, (pen) => pen.rect(middle(n) - wide / 2, bottom - high, wide, high));
      chart.text(told(value), middle(n), bottom - high - 9, "center", false, mine ? "ink" : "muted");
    });
    chart.ink(colors.ink, 1, 0.6, (pen) => {
      pen.moveTo(2, bottom);
      pen.lineTo(chart.width - 2, bottom);
    });
    return bottom - height(list.at(-1));
  }

  function drawChart() {
    const all = sizes.map(solved);
    const { width, height } = chart;
    const foot = 0.87 * height; // shares, not pixels: a still is scaled
    const half = foot / 2;
    const least = drawBars(
      "mean cost of a pair",
      colors.path,
      all.map(({ cost }) => cost),
      [0.005 * height, half - 0.016 * height],
      (cost) => fixed(cost, 1),
    );
    chart.ink(
      colors.truth,
      1.5,
      0.8,
      (pen) => {
        pen.moveTo(4, least);
        pen.lineTo(width - 4, least);
      },
      [2, 5],
    );
    drawBars(
      "swaps that would cost less",
      colors.error,
      all.map((found) => found.swaps.length),
      [half + 0.016 * height, foot],
      String,
    );
    sizes.forEach((size, n) => {
      const mine = size === values.size;
      chart.text(String(size), (n + 0.5) * column(), foot + 12, "center", false, mine ? "ink" : "muted");
    });
    chart.text("batch size B", width / 2, height - 10, "center");
  }

  function readout() {
    const { cost, swaps } = shown();
    const { size } = values;
    const all = (spec.pairs * (spec.pairs - 1)) / 2;
    const kind = size === 1 ? "Independent pairs" : size < spec.pairs ? `Best within ${size}` : "Best of all";
    const told = `mean cost ${fixed(cost)}, of the best pairs ${fixed(best().cost)}`;
    const mine = swaps.length ? `, ${against(pairOf(chosen)).length} of them with the marked pair` : "";
    return `${kind} · ${told} · ${swaps.length} of ${all} swaps would cost less${mine}`;
  }

  return {
    draw() {
      drawPlane();
      chart.layer("bars", shape(), 1, drawChart);
    },
    readout,
    heard() {
      const text = moved + readout();
      moved = "";
      return text;
    },
    change(name) {
      if (name === "draw") deal();
    },
    reset: deal,
    state: () => ({
      clouds: clouds.map((points) => [...points]),
      chosen: [chosen.cloud, chosen.i],
      marked: against(pairOf(chosen)),
      partners: shown().partners,
      cost: shown().cost,
      best: best().cost,
      swaps: shown().swaps.length,
    }),
    positions: travelers,
  };
}
