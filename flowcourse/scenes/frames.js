// Pictures made in advance, one for each value of a slider. A path that stands in the first picture already is sent once:
// elsewhere `data-same` gives its number.

export function frames(spec, engine) {
  const stage = engine.figure.querySelector(".flow-frames");
  const templates = stage.querySelectorAll("template");
  const index = () => spec.values.indexOf(engine.values.frame);
  const paths = [...stage.firstElementChild.querySelectorAll("path[d]")].map((path) =>
    path.getAttribute("d"),
  );
  const said = () => `${spec.label}: ${spec.symbol} = ${engine.values.frame}`;
  let shown = spec.first;

  function draw() {
    if (shown === index()) return;
    shown = index();
    const picture = templates[shown].content.firstElementChild.cloneNode(true);
    for (const path of picture.querySelectorAll("[data-same]"))
      path.setAttribute("d", paths[path.dataset.same]);
    stage.firstElementChild.replaceWith(picture);
  }

  return {
    draw,
    readout: said,
    heard: () => `${said()}: ${stage.firstElementChild.getAttribute("aria-label")}`,
    state: () => ({ shown }),
  };
}
