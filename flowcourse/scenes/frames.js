// Pictures made in advance, one for each value of a slider. A path that stands in the first picture already is sent once:
// elsewhere `data-same` gives its number. Images that the book keeps in files are asked for when the figure comes near.

export function frames(spec, engine) {
  const stage = engine.figure.querySelector(".flow-frames");
  const templates = stage.querySelectorAll("template");
  const index = () => spec.values.indexOf(engine.values.frame);
  const paths = [...stage.firstElementChild.querySelectorAll("path[d]")].map((path) =>
    path.getAttribute("d"),
  );
  const said = () => `${spec.label}: ${spec.symbol} = ${engine.values.frame}`;
  let shown = spec.first;

  const near = globalThis.IntersectionObserver && new IntersectionObserver(fetched, { rootMargin: "600px" });
  near?.observe(stage);
  function fetched([{ isIntersecting }]) {
    if (!isIntersecting) return;
    near.disconnect();
    for (const { content } of templates)
      for (const image of content.querySelectorAll('image:not([href^="data:"])'))
        new Image().src = image.getAttribute("href");
  }

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
