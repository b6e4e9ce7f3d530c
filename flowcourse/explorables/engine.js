// What every explorable shares: it finds its figure, binds the native controls, plays time, draws when there is reason to,
// follows the page's colors and width, and says in words what the numbers are.
//
// A scene is a function (spec, engine) -> { draw(), readout(), heard?(), change?(name), reset?(), state?(),
// positions?(), prepare?(deadline) }.

import { makePanel } from "./panel.js";
import { fixed } from "./words.js";

const ROLES = ["source", "data", "path", "model", "truth", "error", "muted", "ink", "page"];
const READING = 100; // milliseconds for which a text stays while time runs: nobody reads faster, and a new one costs a layout

// Outputs that are run again repeat the name: a figure that is ready is left alone.
export function mount(name, scene, spec) {
  for (const figure of document.querySelectorAll(`[data-flow-explorable="${name}"]:not([data-ready])`))
    bring(figure, scene, spec);
}

function bring(figure, scene, spec) {
  figure.dataset.ready = "";
  const find = (selector) => [...figure.querySelectorAll(selector)];
  const [play] = find(".flow-play");
  const [line] = find(".flow-readout");
  const [live] = find("[aria-live]");
  const inputs = Object.fromEntries(find("[data-control]").map((input) => [input.dataset.control, input]));
  const clock = inputs.t ?? inputs.frame;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const engine = { figure, inputs, values: {}, colors: {}, draw, set, say, live: true };
  const { values } = engine;
  let running;
  let prepared = false;
  let near = false;
  let dirty = false;
  let playing = 0; // when the last frame was, if time runs
  let told = 0; // when the texts were last written
  let poster = true; // the figure opens somewhere in between: the first Play starts at 0

  // Controls: the value of one is a number, a text, or true and false.

  const steps = (input) => JSON.parse(input.dataset.values ?? "null");
  const read = (input) => {
    if (input.type === "checkbox") return input.checked;
    return input.type !== "range" ? input.value : (steps(input)?.[input.value] ?? +input.value);
  };

  const due = () => !playing || performance.now() - told >= READING;
  function show(input) {
    const value = values[input.dataset.control];
    if (input.type === "checkbox") input.checked = value;
    else input.value = steps(input)?.indexOf(value) ?? value;
    if (input.type !== "range" || (input === clock && !due())) return;
    const text = input.dataset.values ? String(value) : fixed(value, input.dataset.digits);
    input.setAttribute("aria-valuetext", text);
    input.closest(".flow-control").querySelector("output").value = text;
  }

  function set(name, value) {
    if (!(name in inputs)) throw new RangeError(`no control ${name}; there are ${Object.keys(inputs)}`);
    values[name] = value;
    show(inputs[name]);
    running?.change?.(name);
    draw();
  }

  for (const [name, input] of Object.entries(inputs)) {
    values[name] = read(input);
    show(input);
    input.addEventListener("input", () => {
      const value = read(input);
      if (input === clock) {
        stop();
        poster = false;
      }
      set(name, value);
    });
  }
  const initial = { ...values };

  // Time: four seconds from 0 to its end, or longer if a unit would take less than one. Who asked for less motion goes through
  // time in eight steps, or in `data-moments`. Without time, Play turns over the pictures that stand in for it.

  const listed = clock && steps(clock);
  const end = clock && +clock.max;
  const pace = listed ? 0.001 : Math.min(end / 4000, 0.001);
  let hand = 0; // where time is, or the number of the picture

  function turn(to) {
    hand = to;
    set(clock.dataset.control, listed ? listed[Math.floor(to)] : to);
  }

  function stop() {
    playing = 0;
    play?.setAttribute("aria-label", calm ? "Next moment" : "Play");
    if (play) play.dataset.playing = "";
    if (clock) show(clock);
    draw();
  }

  function frame(now) {
    if (!playing) return;
    turn(Math.min(end, hand + Math.max(0, now - playing) * pace));
    playing = now;
    if (hand < end) requestAnimationFrame(frame);
    else stop();
  }

  play?.addEventListener("click", () => {
    if (playing) return stop();
    const step = listed ? 1 : end / (clock.dataset.moments ?? 8);
    hand = listed ? +clock.value : values.t;
    if (poster || hand >= end) turn(0);
    poster = false;
    if (calm) return turn(Math.min(end, (Math.floor(hand / step + 1e-9) + 1) * step));
    playing = performance.now();
    play.setAttribute("aria-label", "Pause");
    play.dataset.playing = "1";
    requestAnimationFrame(frame);
  });
  stop();

  find(".flow-reset")[0]?.addEventListener("click", () => {
    stop();
    poster = true;
    Object.assign(values, initial);
    Object.values(inputs).forEach(show);
    running?.reset?.();
    draw();
  });

  // Panels: canvases as sharp as the screen

  engine.panels = find("canvas").map((canvas) => makePanel(canvas, canvas.getContext("2d"), engine.colors));

  function resize(panel) {
    const { canvas, pen } = panel;
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = Math.min(devicePixelRatio, 2);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    Object.assign(panel, { width, height });
  }

  function draw() {
    if (dirty || !prepared || !near) return;
    dirty = true;
    requestAnimationFrame(paint);
  }

  function paint() {
    dirty = false;
    if (engine.panels.some((panel) => !panel.width)) return; // not laid out, as in print
    for (const panel of engine.panels) panel.pen.clearRect(0, 0, panel.width, panel.height);
    running.draw();
    if (!due()) return;
    told = performance.now();
    const text = running.readout();
    if (!("live" in figure.dataset) || line.textContent !== text) {
      line.textContent = text;
      say(running.heard?.() ?? text);
    }
    if (!("live" in figure.dataset)) figure.dataset.live = ""; // the style sheet now hides the still picture
  }

  // The first picture is computed in slices, so that a slow phone can scroll meanwhile; the still picture stands in for it.
  function prepare() {
    if (running.prepare?.(performance.now() + 8) === false) return setTimeout(prepare);
    prepared = true;
    draw();
  }

  // A screen reader hears the line once the numbers rest, not at every frame.
  let timer;
  function say(text) {
    clearTimeout(timer);
    timer = setTimeout(() => (live.textContent = text), 700);
  }

  function recolor() {
    const style = getComputedStyle(figure);
    for (const role of ROLES) engine.colors[role] = style.getPropertyValue(`--flow-${role}`).trim();
    draw();
  }

  function start() {
    if (running) return running;
    near = true;
    recolor();
    engine.panels.forEach(resize);
    running = scene(spec, engine);
    new ResizeObserver(() => {
      engine.panels.forEach(resize);
      if (prepared) paint(); // at once, for resizing cleared the canvas
    }).observe(engine.panels[0]?.canvas ?? figure);
    const observer = new MutationObserver(recolor);
    for (const page of [document.documentElement, document.body])
      observer.observe(page, { attributes: true });
    prepare();
    return running;
  }

  new IntersectionObserver(
    ([entry]) => {
      near = entry.isIntersecting;
      if (!near) return stop();
      start();
      draw();
    },
    { rootMargin: "300px" },
  ).observe(figure);

  // For tests: what the scene believes, and a way to turn its controls.
  figure.flow = {
    state: () => ({ ...values, ...start().state?.() }),
    positions: () => start().positions?.(),
    set(name, value) {
      start();
      set(name, value);
    },
  };
}
