// What every explorable shares: it finds its figure, binds the native controls, plays time, draws when there is reason to,
// follows the page's colors and width, and says in words what the numbers are.
//
// A scene is a function (spec, engine) -> { draw(), readout(), heard?(), change?(name), reset?(), state?(),
// positions?(), prepare?(deadline) }.

const minus = (text) => text.replace("-", "−");
export const fixed = (number, digits = 2) => minus(number.toFixed(digits));

// 0.00031 -> "3.1 × 10⁻⁴"
export function scientific(number) {
  if (!(number > 1e-12)) return number >= 0 ? "below 10⁻¹²" : "infinite";
  if (number >= 0.01 && number < 1000) return number.toPrecision(2);
  const [digits, power] = number.toExponential(1).split("e");
  return `${digits} × 10${[...String(+power)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;
}

export function mount(hash, scene, spec) {
  // Outputs that are run again repeat the hash: each script takes the next figure that has none yet.
  const figure = document.querySelector(`[data-flow-explorable="${hash}"]:not([data-ready])`);
  if (!figure) return;
  figure.dataset.ready = "";
  const find = (selector) => [...figure.querySelectorAll(selector)];
  const [play] = find(".flow-play"), [line] = find(".flow-readout"), [live] = find("[aria-live]");
  const inputs = Object.fromEntries(find("[data-control]").map((input) => [input.dataset.control, input]));
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const engine = { figure, inputs, values: {}, colors: {}, draw, set, say };
  const { values } = engine;
  let running, prepared, near, dirty, playing = 0, poster = true, initial;

  // Controls: the value of one is a number, a text, or true and false.

  const steps = (input) => JSON.parse(input.dataset.values ?? "null");
  const read = (input) => {
    if (input.type === "checkbox") return input.checked;
    return input.type !== "range" ? input.value : steps(input)?.[input.value] ?? +input.value;
  };

  function show(input) {
    const value = values[input.dataset.control];
    if (input.type === "checkbox") input.checked = value;
    else input.value = steps(input)?.indexOf(value) ?? value;
    if (input.type !== "range") return;
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
      if (name === "t") stop(), (poster = false);
      set(name, read(input));
    });
  }
  initial = { ...values };

  // Time: four seconds from 0 to its end, or longer if a unit would take less than one. The figure opens somewhere in between,
  // as a poster: the first Play starts at 0. Who asked for less motion goes through time in eight steps, or in `data-moments`.

  function stop() {
    playing = 0;
    if (play) play.setAttribute("aria-label", calm ? "Next moment" : "Play"), (play.dataset.playing = "");
  }

  function frame(now) {
    if (!playing) return;
    const end = +inputs.t.max, t = Math.min(end, values.t + Math.max(0, now - playing) * Math.min(end / 4000, 0.001));
    playing = now;
    set("t", t);
    t < end ? requestAnimationFrame(frame) : stop();
  }

  play?.addEventListener("click", () => {
    if (playing) return stop();
    const end = +inputs.t.max, step = end / (inputs.t.dataset.moments ?? 8);
    if (poster || values.t >= end) set("t", 0);
    poster = false;
    if (calm) return set("t", Math.min(end, (Math.floor(values.t / step + 1e-9) + 1) * step));
    playing = performance.now();
    play.setAttribute("aria-label", "Pause");
    play.dataset.playing = "1";
    requestAnimationFrame(frame);
  });
  stop();

  find(".flow-reset")[0]?.addEventListener("click", () => {
    stop();
    poster = true;
    for (const name in initial) values[name] = initial[name];
    Object.values(inputs).forEach(show);
    running?.reset?.();
    draw();
  });

  // Panels: canvases as sharp as the screen, with axes from world to pixels.

  engine.panels = find("canvas").map((canvas) => {
    const panel = { canvas, pen: canvas.getContext("2d"), width: 0, height: 0 };
    panel.frame = (left, right, bottom, top, margin = 0) => {
      panel.X = (x) => margin + ((x - left) / (right - left)) * (panel.width - margin);
      panel.Y = (y) => ((top - y) / (top - bottom)) * (panel.height - margin);
      panel.inverse = (X, Y) => [
        left + ((X - margin) / (panel.width - margin)) * (right - left),
        top - (Y / (panel.height - margin)) * (top - bottom),
      ];
      Object.assign(panel, { left, right, bottom, top });
    };
    // Strokes (or fills) what `trace` draws, as one path.
    panel.ink = (color, width, alpha, trace, dash = []) => {
      const { pen } = panel;
      Object.assign(pen, { strokeStyle: color, fillStyle: color, lineWidth: width, globalAlpha: alpha, lineJoin: "round", lineCap: "round" });
      pen.setLineDash(dash);
      pen.beginPath();
      trace(pen);
      width ? pen.stroke() : pen.fill();
    };
    // Arrows of (dx, dy) pixels centered at (X, Y): [X, Y, dx, dy, ...]
    panel.arrows = (color, width, alpha, list) => {
      const ends = (visit) => {
        for (let i = 0; i < list.length; i += 4) {
          const [X, Y, dx, dy] = list.slice(i, i + 4), length = Math.hypot(dx, dy);
          if (length > 2) visit(X + dx / 2, Y + dy / 2, dx, dy, Math.min(0.4, (2.5 + 2.5 * width) / length), length);
        }
      };
      panel.ink(color, width, alpha, (pen) => ends((X, Y, dx, dy, head) => {
        pen.moveTo(X - dx, Y - dy);
        pen.lineTo(X - head * dx, Y - head * dy);
      }));
      panel.ink(color, 0, alpha, (pen) => ends((X, Y, dx, dy, head) => {
        pen.moveTo(X, Y);
        pen.lineTo(X - head * (dx + 0.45 * dy), Y - head * (dy - 0.45 * dx));
        pen.lineTo(X - head * (dx - 0.45 * dy), Y - head * (dy + 0.45 * dx));
      }));
    };
    // Text with a halo of the page's color, legible on whatever lies below.
    panel.text = (text, X, Y, align = "center", italic, role = italic ? "ink" : "muted") => {
      const { pen } = panel, { colors } = engine;
      Object.assign(pen, { textAlign: align, textBaseline: "middle", globalAlpha: 1, lineWidth: 4, lineJoin: "round", strokeStyle: colors.page, fillStyle: colors[role] });
      pen.font = italic ? "italic 17px KaTeX_Math, 'Times New Roman', serif" : "12px system-ui, sans-serif";
      pen.setLineDash([]);
      pen.strokeText(minus(text), X, Y);
      pen.fillText(minus(text), X, Y);
    };
    return panel;
  });

  const resize = (panel) => {
    const { width, height } = panel.canvas.getBoundingClientRect(), ratio = Math.min(devicePixelRatio, 2);
    Object.assign(panel, { width, height });
    panel.canvas.width = Math.round(width * ratio);
    panel.canvas.height = Math.round(height * ratio);
    panel.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  };

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
    figure.dataset.live = ""; // the style sheet now hides the still picture
    const text = running.readout();
    if (line.textContent === text) return;
    line.textContent = text;
    say(running.heard?.() ?? text);
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
    for (const role of ["source", "data", "path", "truth", "error", "muted", "ink", "page"])
      engine.colors[role] = style.getPropertyValue(`--flow-${role}`).trim();
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
    for (const page of [document.documentElement, document.body]) observer.observe(page, { attributes: true });
    prepare();
    return running;
  }

  new IntersectionObserver(([entry]) => {
    near = entry.isIntersecting;
    if (near) start(), draw();
    else stop();
  }, { rootMargin: "300px" }).observe(figure);

  // For tests: what the scene believes, and a way to turn its controls.
  figure.flow = {
    state: () => ({ ...values, ...start().state?.() }),
    positions: () => start().positions?.(),
    set: (name, value) => (start(), set(name, value)),
  };
}
