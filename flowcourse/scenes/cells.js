// Data points of the plane and the noise that goes to each: the cells of a power diagram, whose potentials are learned until
// all cells hold the same share of noise.

import { memory } from "../explorables/memory.js";
import { handles, keys } from "../explorables/pointer.js";
import { fixed } from "../explorables/words.js";

// n points of N(0, I) that fill the plane evenly: the sequence of the plastic number in the square (Roberts 2018), by Box and
// Muller's map
export function evenNoise(n) {
  const x = new Float64Array(2 * n);
  for (let i = 0; i < n; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - ((0.5 + 0.7548776662466927 * (i + 1)) % 1)));
    const angle = 2 * Math.PI * ((0.5 + 0.5698402909980532 * (i + 1)) % 1);
    x.set([radius * Math.cos(angle), radius * Math.sin(angle)], 2 * i);
  }
  return x;
}

// The number j of the data point that a noise (x, y) goes to: the least |x - y_j|^2 - g_j
export function cellOf(data, potentials, x, y) {
  let least = Infinity;
  let found = 0;
  for (let j = 0; j < potentials.length; j++) {
    const power = (x - data[2 * j]) ** 2 + (y - data[2 * j + 1]) ** 2 - potentials[j];
    if (power < least) [least, found] = [power, j];
  }
  return found;
}

// The potentials after 0, 1, 2, ... steps of stochastic ascent from a start, as `fit_semidiscrete` takes them: g_j grows by
// rate s (1 - n p_j), where p_j is the share of the step's noises in cell j, s the product of the clouds' deviations, and the
// rate falls along half a cosine. picks[k] are the numbers of the noises of step k.
export function ascent(data, noise, picks, rate, start) {
  const n = data.length / 2;
  const deviation = (x) => {
    const mean = [0, 1].map((k) => x.reduce((sum, p, i) => sum + (i % 2 === k ? p : 0), 0) / (x.length / 2));
    return Math.sqrt(x.reduce((sum, p, i) => sum + (p - mean[i % 2]) ** 2, 0) / (x.length / 2));
  };
  const size = rate * deviation(noise) * deviation(data);
  const states = [Float64Array.from(start)];
  picks.forEach((batch, k) => {
    const g = states[k].slice();
    const step = (size * (1 + Math.cos((Math.PI * k) / picks.length))) / 2;
    const cost = (step * n) / batch.length;
    for (const i of batch) g[cellOf(data, states[k], noise[2 * i], noise[2 * i + 1])] -= cost;
    states.push(g.map((value) => value + step));
  });
  return states;
}

// The corners of a cell within a box, cut by one half-plane after the other (Sutherland and Hodgman 1974):
//     2 <x, y_k - y_j> <= |y_k|^2 - |y_j|^2 - g_k + g_j
export function corners(data, potentials, j, { left, right, bottom, top }) {
  let polygon = [
    [left, bottom],
    [right, bottom],
    [right, top],
    [left, top],
  ];
  const [p, q] = [data[2 * j], data[2 * j + 1]];
  for (let k = 0; k < potentials.length; k++) {
    if (k === j) continue;
    const [r, s] = [data[2 * k], data[2 * k + 1]];
    const [a, b] = [2 * (r - p), 2 * (s - q)];
    const c = r * r + s * s - p * p - q * q - potentials[k] + potentials[j];
    const over = polygon.map(([x, y]) => a * x + b * y - c);
    polygon = polygon.flatMap((corner, i) => {
      const next = (i + 1) % polygon.length;
      const kept = over[i] <= 0 ? [corner] : [];
      if (over[i] <= 0 === over[next] <= 0) return kept;
      const share = over[i] / (over[i] - over[next]);
      return [...kept, corner.map((x, d) => x + share * (polygon[next][d] - x))];
    });
  }
  return polygon;
}

const SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉";
const PAIRS = 200; // how many noises show where they go

export function cells(spec, engine) {
  const { values, colors } = engine;
  const [plane] = engine.panels;
  const { window: reach, steps, batch } = spec;
  const n = spec.data.length;
  const noise = evenNoise(spec.noises);
  const remember = memory();
  let data, probe, chosen; // chosen: the number of a data point, or n for the noise of one's own
  let version = 0;
  let moved = "";

  function open() {
    data = Float64Array.from(spec.data.flat());
    probe = [...spec.probe];
    chosen = n;
    version++;
  }
  open();

  let seed = 1;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const picks = Array.from({ length: steps }, () =>
    Array.from({ length: batch }, () => Math.floor(random() * spec.noises)),
  );
  const step = () => Math.round(100 * values.t);
  const learned = () =>
    remember("learned", `${version} ${values.rate}`, () =>
      ascent(data, noise, picks, values.rate, new Float64Array(n)),
    );
  const potentials = () => learned()[step()];
  const goal = ([x, y]) => cellOf(data, potentials(), x, y);

  // What every cell holds of the noise, where its middle is, and what all noises cost
  const held = () =>
    remember("held", `${version} ${values.rate} ${step()}`, () => {
      const goes = new Int32Array(spec.noises);
      const cells = Array.from({ length: n }, () => ({ share: 0, middle: [0, 0] }));
      let cost = 0;
      for (let i = 0; i < spec.noises; i++) {
        const [x, y] = [noise[2 * i], noise[2 * i + 1]];
        const j = cellOf(data, potentials(), x, y);
        goes[i] = j;
        cells[j].share += 1 / spec.noises;
        cells[j].middle[0] += x / spec.noises;
        cells[j].middle[1] += y / spec.noises;
        cost += ((x - data[2 * j]) ** 2 + (y - data[2 * j + 1]) ** 2) / spec.noises;
      }
      for (const cell of cells) if (cell.share) cell.middle = cell.middle.map((x) => x / cell.share);
      return { goes, cells, cost };
    });

  // Data and one's own noise: dragged, or moved by keys; a tap puts the noise elsewhere.
  const name = (j) => `y${[...String(j + 1)].map((digit) => SUBSCRIPTS[digit]).join("")}`;
  const place = (handle) => (handle === n ? probe : [...data.slice(2 * handle, 2 * handle + 2)]);
  const named = () => {
    const [x, y] = place(chosen).map((x) => fixed(x));
    return `${chosen === n ? "Your noise" : `Data point ${name(chosen)}`} at ${x}, ${y}. `;
  };
  const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
  function put(handle, x, y) {
    const at = [within(x, plane.right), within(y, plane.top)];
    chosen = handle;
    if (handle === n) probe = at;
    else {
      data.set(at, 2 * handle);
      version++;
    }
    moved = named();
    engine.say(moved);
    engine.draw();
  }
  const turn = (by) => () => {
    chosen = (chosen + by + n + 1) % (n + 1);
    moved = named();
    engine.say(moved + readout());
    engine.draw();
  };
  function nearest(X, Y) {
    let found;
    let least = 24;
    for (let handle = n; handle >= 0; handle--) {
      const [x, y] = place(handle);
      const away = Math.hypot(X - plane.X(x), Y - plane.Y(y));
      if (away < least) [least, found] = [away, { handle }];
    }
    return found;
  }
  handles(plane, {
    find: nearest,
    move: ({ handle }, x, y) => put(handle, x, y),
    tap: (x, y) => put(n, x, y),
  });
  keys(
    plane,
    (right, up) => {
      const [x, y] = place(chosen);
      put(chosen, x + 0.1 * right, y + 0.1 * up);
    },
    { Enter: turn(1), " ": turn(1), Backspace: turn(-1) },
  );

  // From back to front

  // The noise, drawn once
  function cloud() {
    const { canvas, width } = plane;
    return remember("cloud", `${width} ${canvas.width} ${canvas.height} ${colors.source}`, () => {
      const picture = new OffscreenCanvas(canvas.width, canvas.height);
      const pen = picture.getContext("2d");
      pen.scale(canvas.width / width, canvas.width / width);
      Object.assign(pen, { fillStyle: colors.source, globalAlpha: 0.55 });
      pen.beginPath();
      for (let i = 0; i < noise.length; i += 2) {
        const [X, Y] = [plane.X(noise[i]), plane.Y(noise[i + 1])];
        pen.moveTo(X + 1.3, Y);
        pen.arc(X, Y, 1.3, 0, 7);
      }
      pen.fill();
      return picture;
    });
  }

  function drawCells() {
    const polygons = Array.from({ length: n }, (_, j) => corners(data, potentials(), j, plane));
    const outline = (polygon) => () => {
      plane.trace(polygon);
      plane.pen.closePath();
    };
    held().cells.forEach(({ share }, j) => {
      const full = Math.min(0.6, 0.24 * n * share);
      if (polygons[j].length > 2) plane.ink(colors.data, 0, full, outline(polygons[j]));
    });
    if (values.noise) plane.image(cloud(), 0, 0, plane.width, plane.height);
    if (values.pairs) {
      const { goes } = held();
      const ways = Array.from({ length: PAIRS }, (_, i) => [
        [noise[2 * i], noise[2 * i + 1]],
        [data[2 * goes[i]], data[2 * goes[i] + 1]],
      ]);
      plane.lines(colors.path, 1, 0.5, ways);
    }
    const own = goal(probe);
    for (const polygon of polygons) if (polygon.length > 2) plane.ink(colors.ink, 1.2, 0.7, outline(polygon));
    if (polygons[own].length > 2) plane.ink(colors.ink, 2.6, 1, outline(polygons[own]));
  }

  function drawProbe() {
    const [x, y] = probe;
    const j = goal(probe);
    const [X, Y] = [plane.X(x), plane.Y(y)];
    const [dx, dy] = [plane.X(data[2 * j]) - X, plane.Y(data[2 * j + 1]) - Y];
    const part = Math.max(0, 1 - 10 / Math.hypot(dx, dy)); // up to the rim of the data point
    plane.line(colors.page, 8, 0.8, [probe, place(j)]);
    plane.arrows(colors.path, 3.5, 1, [X + (part * dx) / 2, Y + (part * dy) / 2, part * dx, part * dy]);
    plane.dots(colors.page, 9, probe);
    plane.dots(colors.source, 7, probe);
  }

  // A data point's name is at its right, or at its left where the panel ends.
  const side = (j) => (plane.X(data[2 * j]) > plane.width - 40 ? -1 : 1);

  // Whether a share can stand at a pixel: in its cell, and on nothing else
  function clear(j, X, Y) {
    const inside = [-14, 14].every((dx) => goal(plane.inverse(X + dx, Y)) === j);
    if (!inside || X < 26 || X > plane.width - 22 || Y < 12 || Y > plane.height - 12) return false;
    const own = goal(probe);
    const [A, B] = [plane.X(probe[0]), plane.Y(probe[1])];
    const [u, v] = [plane.X(data[2 * own]) - A, plane.Y(data[2 * own + 1]) - B];
    const along = Math.max(0, Math.min(1, ((X - A) * u + (Y - B) * v) / (u * u + v * v || 1)));
    if (Math.hypot(X - A - along * u, 1.5 * (Y - B - along * v)) < 26) return false;
    for (let k = 0; k < n; k++) {
      const [dx, dy] = [X - plane.X(data[2 * k]), Y - plane.Y(data[2 * k + 1])];
      if (Math.abs(dx) < 28 && Math.abs(dy) < 18) return false;
      if (Math.abs(dx - 22 * side(k)) < 30 && Math.abs(dy + 12) < 16) return false;
    }
    return true;
  }

  function drawNames() {
    const { page, data: orange, ink } = colors;
    plane.dots(page, 8, data);
    plane.dots(orange, 6, data);
    const at = place(chosen);
    plane.dots(page, 12, at, 1, 5);
    plane.dots(ink, 12, at, 1, 2);
    held().cells.forEach(({ share, middle }, j) => {
      const [X, Y] = [plane.X(data[2 * j]), plane.Y(data[2 * j + 1])];
      plane.text(name(j), X + 14 * side(j), Y - 12, side(j) > 0 ? "left" : "right", true);
      if (!share) return;
      const [M, N] = [plane.X(middle[0]), plane.Y(middle[1])];
      const near = [0, 22, -22, 44, -44].flatMap((dy) => [0, 26, -26, 52, -52].map((dx) => [dx, dy]));
      near.sort((a, b) => Math.hypot(...a) - Math.hypot(...b));
      const [dx, dy] = near.find(([dx, dy]) => clear(j, M + dx, N + dy)) ?? [0, 0];
      plane.text(percent(share), M + dx, N + dy, "center", false, "ink");
    });
  }

  const percent = (share) => `${fixed(100 * share, share < 0.0995 ? 1 : 0)}%`;

  function readout() {
    const { cells, cost } = held();
    const shares = cells.map(({ share }) => share);
    const [low, high] = [Math.min(...shares), Math.max(...shares)];
    const range = `shares of the noise from ${percent(low)} to ${percent(high)}, equal ones ${percent(1 / n)}`;
    return `Step ${step()} of ${steps} · ${range} · mean cost ${fixed(cost)} · your noise goes to ${name(goal(probe))}`;
  }

  return {
    draw() {
      plane.plane(reach);
      drawCells();
      drawProbe();
      drawNames();
      plane.axes();
    },
    readout,
    heard() {
      const text = moved + readout();
      moved = "";
      return text;
    },
    reset: open,
    state: () => ({
      data: [...data],
      probe,
      chosen,
      goal: goal(probe),
      potentials: [...potentials()],
      shares: held().cells.map(({ share }) => share),
      cost: held().cost,
    }),
    positions: () => [...probe],
  };
}
