// A panel: axes from the world to pixels, and what scenes draw with. It draws with any pen that has the methods of a canvas's
// 2D context: the canvas's own in the page, svg.js's for the still picture.

import { minus } from "./words.js";

const LETTER = "italic 17px KaTeX_Math, 'Times New Roman', serif";
const NAMES = [32, 28]; // the corners of a plane where its axes have their names

export function makePanel(canvas, own, colors) {
  let pen = own;
  const panel = { canvas, pen, width: 0, height: 0 };
  const kept = {};

  panel.frame = (left, right, bottom, top, margin = 0) => {
    panel.X = (x) => margin + ((x - left) / (right - left)) * (panel.width - margin);
    panel.Y = (y) => ((top - y) / (top - bottom)) * (panel.height - margin);
    panel.inverse = (X, Y) => [
      left + ((X - margin) / (panel.width - margin)) * (right - left),
      top - (Y / (panel.height - margin)) * (top - bottom),
    ];
    Object.assign(panel, { left, right, bottom, top });
  };

  // The plane with the origin in the middle: `reach` is half of what is seen of it in the shorter direction.
  panel.plane = (reach) => {
    const unit = reach / Math.min(panel.width, panel.height);
    panel.frame(-panel.width * unit, panel.width * unit, -panel.height * unit, panel.height * unit);
  };

  // Strokes (or fills, for width 0) what `trace` draws, as one path.
  panel.ink = (color, width, alpha, trace, dash = []) => {
    Object.assign(pen, { strokeStyle: color, fillStyle: color, lineWidth: width, globalAlpha: alpha });
    Object.assign(pen, { lineJoin: "round", lineCap: "round" });
    pen.setLineDash(dash);
    pen.beginPath();
    trace(pen);
    if (width) pen.stroke();
    else pen.fill();
  };

  // What draw(alpha) draws, kept as a picture under the name while the key, the size and the colors stay; a picture is made
  // when they have stayed for one frame, for what changes in every frame is drawn faster without
  panel.layer = (name, key, alpha, draw) => {
    if (!own.canvas) return draw(alpha); // a pen for print keeps nothing
    const whole = `${key} ${canvas.width} ${canvas.height} ${panel.right} ${Object.values(colors)}`;
    if (kept[name]?.key !== whole) {
      kept[name] = { key: whole };
      return draw(alpha);
    }
    if (!kept[name].picture) {
      const picture = new OffscreenCanvas(canvas.width, canvas.height);
      kept[name].picture = picture;
      panel.pen = pen = picture.getContext("2d");
      pen.scale(canvas.width / panel.width, canvas.height / panel.height);
      draw(1);
      panel.pen = pen = own;
    }
    panel.image(kept[name].picture, 0, 0, panel.width, panel.height, alpha);
  };

  // A line through points [x, y] of the world, or through those of each list
  panel.line = (color, width, alpha, points, dash) => panel.lines(color, width, alpha, [points], dash);
  panel.lines = (color, width, alpha, list, dash) =>
    panel.ink(color, width, alpha, () => list.forEach((points) => panel.trace(points)), dash);
  panel.trace = (points) => {
    points.forEach(([x, y], i) => pen[i ? "lineTo" : "moveTo"](panel.X(x), panel.Y(y)));
  };

  // The ways of many points through states [x_1, x_2, of the next, ...], or of those that are chosen
  panel.ways = (color, width, alpha, states, dash, chosen) =>
    panel.ink(
      color,
      width,
      alpha,
      () => {
        const apart = own.canvas && alpha === 1; // as dots are
        for (let i = 0; i < states[0].length; i += 2) {
          if (chosen && !chosen(i / 2)) continue;
          if (apart) {
            pen.stroke();
            pen.beginPath();
          }
          pen.moveTo(panel.X(states[0][i]), panel.Y(states[0][i + 1]));
          for (let n = 1; n < states.length; n++)
            pen.lineTo(panel.X(states[n][i]), panel.Y(states[n][i + 1]));
        }
      },
      dash,
    );

  // Dots (or rings, of a width) at points [x_1, x_2, of the next, ...] of the world
  panel.dots = (color, radius, x, alpha = 1, ring = 0) => {
    const apart = own.canvas && !ring && alpha === 1; // of full dots a screen draws each faster alone, and the same
    panel.ink(color, ring, alpha, () => {
      for (let i = 0; i < x.length; i += 2) {
        if (apart && i) {
          pen.fill();
          pen.beginPath();
        }
        panel.circle(panel.X(x[i]), panel.Y(x[i + 1]), radius, !apart);
      }
    });
  };
  panel.circle = (X, Y, radius, more = true) => {
    if (more) pen.moveTo(X + radius, Y);
    pen.arc(X, Y, radius, 0, 2 * Math.PI);
  };
  panel.square = (X, Y, radius) => pen.rect(X - radius, Y - radius, 2 * radius, 2 * radius);

  // Arrows of (dx, dy) pixels centered at (X, Y): [X, Y, dx, dy, ...]
  panel.arrows = (color, width, alpha, list) => {
    // Subpaths through corners [along, across] that are counted from an arrow's tip, in its lengths
    const each = (corners, drawn) => {
      for (let i = 0; i < list.length; i += 4) {
        const [dx, dy] = [list[i + 2], list[i + 3]];
        const length = Math.sqrt(dx * dx + dy * dy);
        if (length <= 2) continue;
        const [X, Y] = [list[i] + dx / 2, list[i + 1] + dy / 2];
        corners(Math.min(0.4, (2.5 + 2.5 * width) / length), width / 2 / length).forEach(([a, b], n) =>
          pen[n ? "lineTo" : "moveTo"](X - a * dx - b * dy, Y - a * dy + b * dx),
        );
        drawn?.();
      }
    };
    const tip = (head) => [
      [head, -0.45 * head],
      [0, 0],
      [head, 0.45 * head],
    ];
    if (own.canvas) {
      // a screen draws each faster alone, and in one piece
      const whole = (head, half) => [...tip(head), [head, half], [1, half], [1, -half], [head, -half]];
      const alone = () => {
        pen.fill();
        pen.beginPath();
      };
      return panel.ink(color, 0, alpha, () => each(whole, alone));
    }
    const shaft = (head) => [
      [1, 0],
      [head, 0],
    ];
    panel.ink(color, width, alpha, () => each(shaft));
    panel.ink(color, 0, alpha, () => each(tip));
  };

  // A square grid of places that covers the plane, `gap` apart
  panel.places = (gap) => {
    const list = [];
    for (let x = gap / 2 - gap * Math.ceil(panel.right / gap); x < panel.right; x += gap)
      for (let y = gap / 2 - gap * Math.ceil(panel.top / gap); y < panel.top; y += gap) list.push(x, y);
    return Float64Array.from(list);
  };
  // Velocities v at places x as arrows: a speed s is s long(s) units of the plane.
  panel.quiver = (color, width, alpha, x, v, long) => {
    const list = [];
    const unit = panel.X(1) - panel.X(0);
    for (let i = 0; i < x.length; i += 2) {
      const [X, Y] = [panel.X(x[i]), panel.Y(x[i + 1])];
      const named =
        (X < NAMES[0] && Y < NAMES[1]) || (X > panel.width - NAMES[0] && Y > panel.height - NAMES[1]);
      const length = unit * long(Math.sqrt(v[i] * v[i] + v[i + 1] * v[i + 1]));
      if (!named) list.push(X, Y, v[i] * length, -v[i + 1] * length);
    }
    panel.arrows(color, width, alpha, list);
  };

  panel.image = (picture, X, Y, width, height, alpha = 1) => {
    pen.globalAlpha = alpha;
    pen.drawImage(picture, X, Y, width, height);
  };

  // Text with a halo of the page's color, legible on whatever lies below
  panel.text = (text, X, Y, align = "center", italic = false, role = italic ? "ink" : "muted") => {
    Object.assign(pen, { textAlign: align, textBaseline: "middle", globalAlpha: 1, lineWidth: 4 });
    Object.assign(pen, { lineJoin: "round", strokeStyle: colors.page, fillStyle: colors[role] });
    pen.font = italic ? LETTER : "12px system-ui, sans-serif";
    pen.setLineDash([]);
    pen.strokeText(minus(text), X, Y);
    pen.fillText(minus(text), X, Y);
  };

  // The names of a plane's axes at their ends, and numbers where there is room
  panel.axes = () => panel.layer("axes", own.canvas && document.fonts.check(LETTER), 1, drawAxes);
  const drawAxes = () => {
    const { X, Y, width, height, right, top } = panel;
    panel.text("x₁", width - 14, height - 12, "center", true);
    panel.text("x₂", 9, 14, "left", true);
    const tick = 2 ** Math.floor(Math.log2(Math.min(right, top) / 1.1));
    const most = Math.floor(Math.max(right, top) / tick);
    for (let k = -most; k <= most; k++) {
      if (X(k * tick) > 24 && X(k * tick) < width - 30)
        panel.text(String(k * tick), X(k * tick), height - 11);
      if (Y(k * tick) > 30 && Y(k * tick) < height - 24) panel.text(String(k * tick), 9, Y(k * tick), "left");
    }
  };
  return panel;
}
