// The first picture of a scene, in V8 without a page: the scene's own draw(), with a pen that writes SVG.

import { makePanel } from "./panel.js";
import { svgPen } from "./svg.js";

// As much of a page as scenes ask for
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
globalThis.performance = { now: () => 0 };
globalThis.setTimeout = (call) => call(); // what waits for the hand to rest need not wait
globalThis.clearTimeout = () => {};
globalThis.atob ??= (text) => {
  let bits = 0;
  let held = 0;
  let bytes = "";
  for (const c of text.replaceAll("=", "")) {
    held = ((held << 6) | DIGITS.indexOf(c)) & 0xffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += String.fromCharCode((held >> bits) & 255);
  }
  return bytes;
};
globalThis.OffscreenCanvas ??= class {
  constructor(width, height) {
    Object.assign(this, { width, height, pen: svgPen({ width, height }) });
  }
  getContext() {
    return this.pen;
  }
};
globalThis.ImageData ??= class {
  constructor(width, height) {
    Object.assign(this, { width, height, data: new Uint8ClampedArray(4 * width * height) });
  }
};

// A panel of some size; what the scene listens for is in `canvas.listeners`.
export function blankPanel([width, height], colors) {
  const canvas = {
    width,
    height,
    style: {},
    listeners: {},
    addEventListener: (name, listener) => {
      canvas.listeners[name] ??= [];
      canvas.listeners[name].push(listener);
    },
    setPointerCapture() {},
    getBoundingClientRect: () => ({ left: 0, top: 0, width, height }),
  };
  return Object.assign(makePanel(canvas, svgPen(canvas), colors), { width, height });
}

// A scene with the controls' values and panels of these sizes, and without an engine
export function opened(make, spec, values, sizes, colors) {
  const panels = sizes.map((size) => blankPanel(size, colors));
  const inputs = Object.fromEntries(Object.keys(values).map((name) => [name, {}]));
  const engine = {
    values,
    panels,
    colors,
    inputs,
    figure: { querySelector: () => null },
    draw() {},
    say() {},
  };
  let scene;
  engine.set = (name, value) => {
    values[name] = value;
    scene?.change?.(name);
  };
  scene = make(spec, engine);
  return { scene, engine, panels, values };
}

// The SVG of every panel, and what the scene says
export function still(make, spec, values, sizes, colors) {
  const { scene, panels } = opened(make, spec, { ...values }, sizes, colors);
  scene.draw();
  return { drawn: panels.map(({ pen }) => pen.svg()), said: scene.readout() };
}
