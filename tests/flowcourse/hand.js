// A scene in two panels of 400 by 400 pixels, drawn, and a hand on them.
globalThis.tried = (make, spec, values, colors) => {
  const it = opened(
    make,
    spec,
    values,
    [
      [400, 400],
      [400, 400],
    ],
    colors,
  );
  it.scene.draw();
  it.fire = (i, name, event) => {
    for (const listener of it.panels[i].canvas.listeners[name])
      listener({ button: 0, preventDefault() {}, ...event });
    it.scene.draw();
  };
  it.drag = (i, from, to) => {
    it.fire(i, "pointerdown", { clientX: from[0], clientY: from[1] });
    it.fire(i, "pointermove", { clientX: to[0], clientY: to[1] });
    it.fire(i, "pointerup", { clientX: to[0], clientY: to[1] });
  };
  it.tap = (i, X, Y) => it.drag(i, [X, Y], [X, Y]);
  it.press = (i, key, shiftKey = false) => it.fire(i, "keydown", { key, shiftKey });
  // Whether a finger there keeps the page from scrolling
  it.stops = (i, [clientX, clientY]) => {
    let stopped = false;
    const event = { touches: [{ clientX, clientY }], preventDefault: () => (stopped = true) };
    for (const listener of it.panels[i].canvas.listeners.touchstart) listener(event);
    return stopped;
  };
  return it;
};
