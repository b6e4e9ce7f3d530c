// The prompt box: the reader writes a prompt, a worker draws it step by step, and the detector says whether it was obeyed.
// Weights and the worker's code are loaded when they are first needed, as classic scripts: a page from a file may do that.

import { fixed } from "../explorables/words.js";
import { continued, parse, wordsOf } from "../shapes/captions.js";

const waiting = {}; // who waits for a part, by name
const loading = {}; // promises of the parts' texts, shared by all boxes of a page

// What a part's script calls
export const handed = (name, text) => waiting[name]?.(text);

function load({ parts, folder }, name) {
  loading[name] ??= new Promise((resolve, reject) => {
    const root = document.documentElement.dataset.content_root;
    const fail = (why) => {
      delete loading[name];
      reject(new Error(why));
    };
    if (root === undefined)
      return fail("the weights lie beside the published page: here, in a notebook, call draw() in Python");
    waiting[name] = resolve;
    const script = document.createElement("script");
    script.src = `${root}${folder}/${parts[name].file}`;
    script.onerror = () => fail(`${script.src} could not be loaded: press the button to try again`);
    script.onload = () => script.remove(); // its text need not be kept twice
    document.head.append(script);
  });
  return loading[name];
}

export const megabytes = (bytes) => `${fixed(bytes / 1e6, 1)} MB`;

// Which parts a method needs
export const needed = (method) => ["painter", "decoder", method];

// What the detector saw, for a screen reader
export function announced(found) {
  const verdict = ({ said, obeyed }) => `the detector sees ${said}; ${obeyed ? "obeyed" : "not obeyed"}`;
  if (found.length === 1) return `picture ready: ${verdict(found[0])}`;
  const obeyed = found.filter((one) => one.obeyed).length;
  const each = found.map((one, i) => `Picture ${i + 1}: ${verdict(one)}.`).join(" ");
  return `${found.length} pictures ready, ${obeyed} obey. ${each}`;
}

export function prompt(spec, engine) {
  const { values, figure, inputs } = engine;
  const { tables, methods } = spec;
  const find = (selector) => figure.querySelector(selector);
  const [grid, note, chips, button, stop] = ["pictures", "note", "chips", "draw", "stop"].map((name) =>
    find(`.flow-${name}`),
  );
  const poster = [...grid.children].map((child) => child.cloneNode(true));
  const given = new Set(); // parts that the worker has
  let worker;
  let job = 0;
  let busy = false;
  let said = spec.said;
  let heard = null;
  let state = {};
  let kept = []; // what a drawing posted, by step, to go back to
  let back = null; // the step that is looked at again
  let offered; // the text that the chips continue

  const chosen = () =>
    Object.keys(methods).find((name) => methods[name].label === values.method) ?? spec.method;
  const missing = (method = chosen()) =>
    needed(method).reduce((sum, name) => sum + (given.has(name) ? 0 : spec.parts[name].size), 0);
  const ready = () => Object.keys(spec.parts).length > 0;
  const follows = () =>
    values["as I type"] && ready() && !missing() && continued(tables, values.prompt).complete;
  const seed = () => Math.min(spec.seeds, Math.max(0, Math.floor(+values.seed) || 0));

  function tell(text, aloud = null) {
    [said, heard] = [text, aloud];
    engine.draw();
  }

  // The pictures

  function places(count) {
    if (grid.dataset.count === String(count) && grid.querySelector("canvas")) return;
    grid.dataset.count = count;
    grid.replaceChildren(
      ...Array.from({ length: count }, () => {
        const item = document.createElement("li");
        const canvas = document.createElement("canvas");
        canvas.width = canvas.height = tables.side;
        canvas.setAttribute("role", "img");
        item.append(canvas, document.createElement("p"));
        return item;
      }),
    );
  }

  function show({ step, steps, pixels, found }, count) {
    places(count);
    const size = 4 * tables.side ** 2;
    [...grid.children].forEach((item, b) => {
      const [canvas, text] = item.children;
      const picture = new ImageData(pixels.subarray(b * size, (b + 1) * size), tables.side, tables.side);
      canvas.getContext("2d").putImageData(picture, 0, 0);
      const one = found?.[b];
      canvas.setAttribute(
        "aria-label",
        one ? `Picture ${b + 1}: ${one.said}` : `Picture ${b + 1}, step ${step} of ${steps}`,
      );
      const verdict = document.createElement("strong");
      verdict.textContent = one ? (one.obeyed ? "✓ obeyed" : "✗ not obeyed") : "";
      text.replaceChildren(verdict, one ? ` ${one.said}` : "");
      text.dataset.obeyed = one ? one.obeyed : "";
    });
  }

  // Back to an earlier step

  function stops(steps, at) {
    inputs.at.dataset.values = JSON.stringify([...Array(steps + 1).keys()]);
    inputs.at.max = steps;
    engine.set("at", at);
  }

  function look() {
    const message = kept[values.at];
    if (busy || !message || values.at === back) return;
    back = values.at;
    show(message, message.count);
    tell(message.said, message.heard);
  }

  // Drawing

  function halt(text) {
    job += 1;
    if (kept.length) kept.at(-1).said = text;
    busy = false;
    worker?.postMessage({ stop: true });
    tell(text);
  }

  function received({ data }, asked) {
    if (data.error) return halt(`Something went wrong: ${data.error}`);
    show(data, asked.count);
    const { step, steps, found } = data;
    const until = `After step ${step} of ${steps}, at t = ${fixed(asked.moments[step], 2)}`;
    kept[step] = { ...data, count: asked.count, said: until };
    back = step;
    stops(steps, step);
    state = { step, steps, found, seconds: (performance.now() - asked.began) / 1000, pixels: data.pixels };
    if (!found) return tell(`Step ${step} of ${steps}`, "Drawing");
    busy = false;
    const obeyed = found.filter((one) => one.obeyed).length;
    const verdict = found.length > 1 ? `${obeyed} of ${found.length} obey` : obeyed ? "obeyed" : "not obeyed";
    const how = `${steps} ${steps > 1 ? "steps" : "step"} of the ${methods[asked.method].label}`;
    const said = `“${asked.caption}”, seed ${asked.seed}: ${how} in ${fixed(state.seconds, 1)} s, ${verdict}`;
    Object.assign(kept[step], { said, heard: announced(found) });
    tell(said, announced(found));
  }

  async function start() {
    if (!ready()) return;
    const id = ++job; // what runs is of no interest any more
    worker?.postMessage({ stop: true });
    const asked = { id, caption: values.prompt.trim(), seed: seed(), count: +values.count, method: chosen() };
    try {
      parse(tables, asked.caption);
    } catch (error) {
      busy = false;
      return tell(`This is no prompt: ${error.message}.`);
    }
    const { moments } = methods[asked.method];
    Object.assign(asked, { scale: values.scale, moments: moments[values.steps] });
    busy = true;
    [state, kept] = [{}, []];
    if (missing()) tell(`Loading ${megabytes(missing())} …`);
    try {
      for (const name of needed(asked.method)) {
        const text = await load(spec, name);
        if (id !== job) return;
        if (given.has(name)) continue;
        if (name === "painter") {
          worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
          worker.onerror = (event) => halt(`The worker stopped: ${event.message}`);
          worker.postMessage({ tables });
        } else worker.postMessage({ name, base64: text });
        given.add(name);
      }
    } catch (error) {
      if (id === job) halt(`Nothing was loaded: ${error.message}.`);
      return;
    }
    asked.began = performance.now();
    worker.onmessage = (message) => message.data.id === job && received(message, asked);
    worker.postMessage(asked);
    tell(`Step 0 of ${asked.moments.length - 1}`, "Drawing");
  }

  // The prompt, and the words that may follow

  function chip(text, act, label = text) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    const color = tables.colors[text];
    if (color) made.style.setProperty("--flow-chip", `rgb(${color.map((c) => Math.round(255 * c))})`);
    made.addEventListener("click", act);
    return made;
  }

  function write(text) {
    engine.set("prompt", text);
    inputs.prompt.focus();
  }

  function offer() {
    const text = values.prompt;
    if (offered === text) return;
    offered = text;
    const { complete, next, error } = continued(tables, text);
    const wrong = !complete && !next.length;
    inputs.prompt.setAttribute("aria-invalid", wrong);
    note.dataset.wrong = wrong;
    if (wrong) note.textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;
    else if (!next.length) note.textContent = "A whole prompt.";
    else note.textContent = complete ? "A whole prompt. It could go on with:" : "It goes on with:";
    const said = wordsOf(text).join(" ");
    const follow = next.map((word) => chip(word, () => write(`${said} ${word}`.trim()), `add ${word}`));
    if (error?.near) {
      const mended = wordsOf(text).map((word) => (word === error.word ? error.near : word));
      follow.push(
        chip(error.near, () => write(mended.join(" ")), `put ${error.near} in place of ${error.word}`),
      );
    }
    chips.replaceChildren(...follow);
  }

  // Controls

  function adapt() {
    const method = chosen();
    const listed = Object.keys(methods[method].moments).map(Number);
    inputs.steps.dataset.values = JSON.stringify(listed);
    inputs.steps.max = listed.length - 1;
    inputs.scale.disabled = method === "student";
    if (!listed.includes(values.steps)) engine.set("steps", methods[method].steps);
    else engine.set("steps", values.steps); // its place among the others
  }

  const label = () => {
    if (!ready() || !missing()) return "Draw";
    return `Load ${megabytes(missing())} and draw`;
  };

  button.addEventListener("click", start);
  const interrupt = () => {
    const { step, steps } = state;
    halt(step === undefined ? "Stopped." : `Stopped after step ${step} of ${steps}.`);
    button.focus();
  };
  stop.addEventListener("click", interrupt);
  inputs.prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) start();
  });
  figure.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && busy) interrupt(); // the button may still be off, until the next frame
  });
  for (const one of figure.querySelectorAll("[data-try]"))
    one.addEventListener("click", () => write(one.dataset.try));
  note.id = `flow-note-${figure.dataset.flowExplorable}`;
  inputs.prompt.setAttribute("aria-describedby", note.id);
  adapt();

  return {
    draw() {
      button.textContent = label();
      button.disabled = !ready();
      stop.disabled = !busy;
      inputs.at.disabled = busy || kept.length < 2;
      figure.dataset.busy = busy ? "1" : "";
      offer();
    },
    change(name) {
      if (name === "method") adapt();
      if (name === "at") look();
      else if (follows()) start();
    },
    reset() {
      [state, kept] = [{}, []];
      halt(spec.said);
      grid.dataset.count = spec.count;
      grid.replaceChildren(...poster.map((child) => child.cloneNode(true)));
      adapt();
      stops(methods[spec.method].steps, methods[spec.method].steps);
    },
    readout: () => said,
    heard: () => heard ?? said,
    state: () => ({
      ...state,
      pixels: state.pixels && [...state.pixels],
      busy,
      method: chosen(),
      given: [...given],
    }),
  };
}
