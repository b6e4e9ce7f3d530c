// A network that learns in the page to carry noise into a shape that the reader draws: the shape, the field and its samples, the
// loss, and how far samples end from the shape. A worker learns (learner.js); this draws what it tells.

import { placed } from "../explorables/adaptive.js";
import { background } from "../explorables/background.js";
import { hue } from "../explorables/drawing.js";
import { fieldOf, SIZES } from "../explorables/learner.js";
import { velocities } from "../explorables/numerics.js";
import { GAP, outlines } from "../explorables/outlines.js";
import { initial, perceptron } from "../explorables/perceptron.js";
import { keys, strokes } from "../explorables/pointer.js";
import { seeded } from "../explorables/random.js";
import { fixed } from "../explorables/words.js";

const NEEDS = ["adaptive", "assignment", "perceptron", "random"]; // of learner.js, in order
const PLACES = 256; // of the field, in one pass
const MEAN = 20; // steps whose losses make a point of the curve
const SHOWN = 24; // samples whose ways are drawn
const BENDS = 24; // pieces of a way
const MOST = 3000; // dots of a drawing
const WAIT = 150; // milliseconds in which the learner hears of a drawing once

export function trainer(spec, engine) {
  const { values, colors, figure } = engine;
  const [plane, chart] = engine.panels;
  const { window: reach, samplers, own, seed } = spec;
  const net = perceptron(SIZES, PLACES, initial(SIZES, seeded(seed).uniform));
  const field = fieldOf(net, PLACES);
  const noise = Float64Array.from({ length: 2 * spec.samples }, seeded(seed + 2).normal);
  let hand = []; // dots that the reader drew
  let dots = outlines[values.shape]();
  let now, post, later, cursor; // the last snapshot, the way to the learner, a timer, the pen of the keyboard
  let down = false; // whether that pen is on the paper
  let run = 0; // counts what was pressed: older snapshots no longer matter
  let training = false;
  let asked = false; // for a first snapshot
  let total = 0; // steps since the last reset
  let curve = []; // means of MEAN losses
  let open = []; // losses since the last of them
  let results = {}; // by pairs: { floor, distances, pairs }
  let latest; // of them

  // The learner

  function learn(message = {}) {
    const shape = { dots, width: spec.width };
    const told = { run, shape, pairs: values.pairs, count: samplers[values.sampler], ...message };
    if (!post) {
      const pause = globalThis.matchMedia?.("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;
      const fresh = { tableau: spec.tableau, samples: noise, samplers: Object.values(samplers), pause, seed };
      post = background(NEEDS, "learner", "learner", hear);
      post({ ...told, ...fresh, task: "reset" });
    }
    post(told);
  }

  function hear(told) {
    if (told.run !== run) return;
    now = told;
    training = told.training;
    net.weights.set(told.weights);
    for (const loss of told.losses) {
      total++;
      open.push(loss);
      if (open.length < MEAN) continue;
      curve.push(open.reduce((a, b) => a + b) / MEAN);
      open = [];
    }
    if (told.measured) results[told.measured.pairs] = latest = told.measured;
    label();
    engine.draw();
  }

  function train() {
    if (!training && !values.t) engine.set("t", 1); // where the samples end
    run++;
    training = !training && dots.length > 0;
    if (training) {
      down = false;
      finger(false);
      learn({ task: "train", steps: spec.steps });
    } else if (post) learn({ task: "stop" });
    label();
    engine.draw();
  }

  // Buttons

  const button = (name, press) => {
    const found = figure.querySelector(`[data-press="${name}"]`);
    found?.addEventListener("click", press);
    return (text) => found && found.textContent !== text && (found.textContent = text);
  };
  const trains = button("train", train);
  const draws = button("draw", () => {
    clear();
    finger(true);
    plane.canvas.focus?.({ preventScroll: true });
  });
  function label() {
    trains(training ? "Stop" : "Train");
    draws(values.shape === own ? "Clear" : "Draw");
  }

  // The shape: drawn by a mouse at any time, by a finger once that is asked for (else it scrolls the page), by keys

  const finger = (draws) => (plane.canvas.style.touchAction = draws ? "none" : "");
  function reshape(list) {
    dots = list;
    results = {};
    latest = undefined;
    if (training && dots.length && !later) later = setTimeout(teach, WAIT);
    label();
    engine.draw();
  }
  const teach = () => {
    later = undefined;
    if (training) learn();
  };
  const clear = () => {
    hand = [];
    if (values.shape === own) reshape(hand);
    else engine.set("shape", own);
  };
  // Dots from the last one (unless the pen was lifted) to the point (x, y)
  let pen;
  function ink(x, y) {
    if (values.shape !== own) clear();
    const far = pen ? Math.hypot(x - pen[0], y - pen[1]) : 0;
    const steps = Math.max(1, Math.round(far / GAP));
    const more = [];
    for (let k = 1; k <= steps; k++)
      more.push(...[x, y].map((to, c) => (pen ? pen[c] + (k / steps) * (to - pen[c]) : to)));
    pen = [x, y];
    hand = [...hand, ...more].slice(-2 * MOST);
    reshape(hand);
  }
  strokes(plane, {
    begin: (X, Y, event) => {
      if (event.pointerType === "touch" && plane.canvas.style.touchAction !== "none") return false;
      const kept = { shape: values.shape, hand };
      cursor = undefined;
      pen = undefined;
      ink(...plane.inverse(X, Y));
      return kept;
    },
    tap() {},
    along: (X, Y) => ink(...plane.inverse(X, Y)),
    undo(kept) {
      hand = kept.hand;
      if (kept.shape === own) reshape(hand);
      else engine.set("shape", kept.shape);
    },
  });
  const within = (x, most) => Math.round(100 * Math.max(-most, Math.min(most, x))) / 100;
  const aim = (x, y) => {
    cursor = [within(x, plane.right), within(y, plane.top)];
    if (down) ink(...cursor);
    engine.say(`Pen ${down ? "down" : "up"} at ${fixed(cursor[0])}, ${fixed(cursor[1])}`);
    engine.draw();
  };
  const toggle = () => {
    down = !down;
    pen = undefined;
    aim(...(cursor ?? [0, 0]));
  };
  keys(
    plane,
    (right, up) => {
      const [x, y] = cursor ?? [0, 0];
      aim(x + 0.1 * right, y + 0.1 * up);
    },
    { Enter: toggle, " ": toggle, Delete: clear, Backspace: clear },
  );

  // The plane, from back to front

  const positions = (t = values.t) => (now && t > 0 ? placed(now.way, t) : noise);

  function drawPlane() {
    plane.plane(reach);
    const { data, model, path, page, ink } = colors;
    const { t } = values;
    plane.dots(data, 5, dots, 0.35);
    if (now) {
      const gap = reach / 7;
      const places = plane.places(gap);
      plane.quiver(model, 1.3, 0.75, places, velocities(field, places, t), (speed) =>
        Math.min(0.17, (0.92 * gap) / speed),
      );
    }
    if (now && t > 0) {
      const states = Array.from({ length: BENDS + 1 }, (_, k) => placed(now.way, (k * t) / BENDS));
      plane.ways(path, 1.2, 0.8, states, [], (i) => i < SHOWN);
    }
    const samples = positions();
    plane.dots(page, 3.2, samples);
    plane.dots(`rgb(${hue(colors, t)})`, 2.3, samples);
    plane.axes();
    if (cursor) {
      const [X, Y] = [plane.X(cursor[0]), plane.Y(cursor[1])];
      plane.ink(ink, 1.5, 1, (pen) => {
        for (const [dx, dy] of [
          [10, 0],
          [0, 10],
        ]) {
          pen.moveTo(X - dx, Y - dy);
          pen.lineTo(X + dx, Y + dy);
        }
        plane.circle(X, Y, down ? 5 : 8);
      });
    }
    if (!dots.length) plane.text("draw here", plane.width / 2, plane.height / 2, "center", false, "ink");
  }

  // The chart: the loss above, the distances below

  const ceiling = () => Math.max(1, Math.ceil(Math.max(...curve.slice(0, 5), ...curve.slice(-40))));
  function drawLoss(top, bottom) {
    const { ink, muted, model } = colors;
    const [left, right] = [26, chart.width - 6];
    const high = ceiling();
    const last = Math.max(spec.steps, total);
    const X = (n) => left + (n / last) * (right - left);
    const Y = (loss) => bottom - Math.min(1.05, loss / high) * (bottom - top - 22);
    chart.text("loss", left, top + 9, "left", false, "ink");
    chart.ink(muted, 1, 0.25, (pen) => {
      for (let k = 1; k <= high; k++) {
        pen.moveTo(left, Y(k));
        pen.lineTo(right, Y(k));
      }
    });
    chart.ink(ink, 1, 0.6, (pen) => {
      pen.moveTo(left, top + 18);
      pen.lineTo(left, bottom);
      pen.lineTo(right, bottom);
    });
    for (const k of high < 6 ? Array.from({ length: high + 1 }, (_, k) => k) : [0, high])
      chart.text(String(k), left - 6, Y(k), "right");
    chart.text("0", left, bottom + 11);
    chart.text(`${last.toLocaleString("en")} steps`, right, bottom + 11, "right");
    chart.ink(model, 1.8, 1, (pen) =>
      curve.forEach((loss, i) => pen[i ? "lineTo" : "moveTo"](X((i + 0.5) * MEAN), Y(loss))),
    );
  }

  function drawDistances(top, bottom) {
    const { ink, path, truth } = colors;
    const kinds = Object.keys(results);
    chart.text("W₂ from the samples to the shape", 6, top + 9, "left", false, "ink");
    const names = Object.keys(samplers);
    const wide = chart.width / names.length;
    const bar = 0.3 * wide;
    const most = Math.max(0.1, ...kinds.flatMap((kind) => results[kind].distances));
    const height = (value) => (value / most) * (bottom - top - 40);
    names.forEach((name, n) => {
      const middle = (n + 0.5) * wide;
      const mine = name === values.sampler;
      chart.text(name, middle, bottom + 11, "center", false, mine ? "ink" : "muted");
      for (const kind of kinds) {
        const value = results[kind].distances[n];
        const at = middle + (kind === "optimal" ? 0.06 : -1.06) * bar;
        const box = (pen) => pen.rect(at, bottom - height(value), bar, height(value));
        if (kind === "optimal") chart.ink(path, 0, 0.9, box);
        else chart.ink(path, 2, 1, box);
        chart.text(
          fixed(value),
          at + bar / 2,
          bottom - height(value) - 9,
          "center",
          false,
          mine ? "ink" : "muted",
        );
      }
    });
    chart.ink(ink, 1, 0.6, (pen) => {
      pen.moveTo(2, bottom);
      pen.lineTo(chart.width - 2, bottom);
    });
    if (!kinds.length)
      return chart.text(
        training ? "measured when it stops" : "measured after training",
        chart.width / 2,
        (top + bottom) / 2,
      );
    const level = bottom - height(results[kinds.at(-1)].floor);
    chart.ink(
      truth,
      1.5,
      0.9,
      (pen) => {
        pen.moveTo(4, level);
        pen.lineTo(chart.width - 4, level);
      },
      [2, 5],
    );
  }

  function drawChart() {
    const { height } = chart;
    drawLoss(0, 0.44 * height);
    drawDistances(0.54 * height, height - 22);
  }

  function readout() {
    if (!dots.length) return "Nothing to learn yet: draw a shape, or pick one.";
    if (!total && training) return "Training begins.";
    if (!total) return `${net.weights.length.toLocaleString("en")} weights, drawn at random. Press Train.`;
    const loss = curve.length ? `loss ${fixed(curve.at(-1))}` : "";
    if (training)
      return `Step ${now.step.toLocaleString("en")} of ${now.steps.toLocaleString("en")} · ${loss} · ${values.pairs} pairs`;
    const after = `${total.toLocaleString("en")} steps · ${loss}`;
    if (latest?.pairs !== values.pairs) return `${after}. Press Train to learn from ${values.pairs} pairs.`;
    const distance = latest.distances[Object.keys(samplers).indexOf(values.sampler)];
    return `${after} · W₂ with ${values.sampler}: ${fixed(distance)} · noise floor: ${fixed(latest.floor)}`;
  }

  return {
    draw() {
      drawPlane();
      drawChart();
    },
    readout,
    heard: () => (training ? "Training." : readout()),
    change(name) {
      if (name === "shape") {
        finger(values.shape === own);
        reshape(values.shape === own ? hand : outlines[values.shape]());
      }
      if (name === "pairs" && training) learn();
      if (name === "sampler" && now) learn();
      if (name === "t" && values.t > 0 && !now && !asked) {
        asked = true;
        learn();
      }
    },
    reset() {
      run++;
      training = asked = false;
      total = 0;
      [hand, curve, open, results] = [[], [], [], {}];
      [now, latest, cursor, down] = [undefined, undefined, undefined, false];
      dots = outlines[values.shape]();
      net.weights.set(initial(SIZES, seeded(seed).uniform));
      finger(false);
      if (post) learn({ task: "reset" });
      label();
    },
    positions: () => [...positions()],
    state: () => ({
      training,
      total,
      curve: [...curve],
      dots: dots.length / 2,
      results: { ...results },
      evaluations: now?.way.evaluations,
    }),
    train,
  };
}
