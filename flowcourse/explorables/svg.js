// A pen with those methods of a canvas's 2D context that scenes use. It writes SVG: `svg()` is what was drawn. Places stand in
// quarters of a pixel, as whole numbers; widths are in pixels (the style sheet says so of strokes).

const FINE = 4; // places to a pixel
const NEAR = 2; // places by which a line may be off
const placed = (x) => Math.round(FINE * x);
const short = (x) => String(Math.round(100 * x) / 100).replace(/^(-?)0\./, "$1.");
const escaped = (text) => text.replace(/[&<]/g, (c) => ({ "&": "&amp;", "<": "&lt;" })[c]);

// The points of a line that are needed to draw it to NEAR (Douglas and Peucker)
export function thinned(points) {
  if (points.length < 3) return points;
  const [[x, y], [u, v]] = [points[0], points.at(-1)];
  const long = Math.hypot(u - x, v - y);
  let most = 0;
  let at = 0;
  for (let i = 1; i < points.length - 1; i++) {
    const [a, b] = [points[i][0] - x, points[i][1] - y];
    const along = long ? Math.max(0, Math.min(1, (a * (u - x) + b * (v - y)) / long ** 2)) : 0;
    const away = Math.hypot(a - along * (u - x), b - along * (v - y));
    if (away > most) [most, at] = [away, i];
  }
  if (most <= NEAR) return [points[0], points.at(-1)];
  return [...thinned(points.slice(0, at + 1)).slice(0, -1), ...thinned(points.slice(at))];
}

export function svgPen(canvas) {
  const pen = { globalAlpha: 1, textAlign: "left", font: "" };
  let out = [];
  let parts = []; // of the path: lines { points, closed }, circles { X, Y, radius }, rounded boxes { box }
  let dash = [];
  const outer = [];

  const start = (points) => parts.push({ points, closed: false });
  const seen = ({ points }) =>
    points.some(([x]) => x >= 0) &&
    points.some(([x]) => x <= FINE * canvas.width) &&
    points.some(([, y]) => y >= 0) &&
    points.some(([, y]) => y <= FINE * canvas.height);

  // Relative steps, as short as SVG lets them be
  const relative = (lines) => {
    let [x, y] = [0, 0];
    const step = (point) => {
      const [dx, dy] = [point[0] - x, point[1] - y];
      [x, y] = point;
      return `${dx} ${dy}`;
    };
    return lines
      .map(({ points, closed }) => {
        const from = points[0];
        const text = `m${step(from)}${points.length > 1 ? `l${points.slice(1).map(step).join(" ")}` : "h0"}${closed ? "z" : ""}`;
        if (closed) [x, y] = from;
        return text;
      })
      .join("")
      .replaceAll(" -", "-");
  };

  const look = () => {
    const alpha = pen.globalAlpha < 1 ? ` opacity="${short(pen.globalAlpha)}"` : "";
    return alpha + (dash.length ? ` stroke-dasharray="${dash.join(" ")}"` : "");
  };
  const path = (d, paint) => d && out.push(`<path ${paint}${look()} d="${d}"/>`);
  const lines = () =>
    parts
      .filter((part) => part.points?.length > 1 && seen(part))
      .map(({ points, closed }) => ({ points: thinned(points), closed }));
  const circles = () => parts.filter((part) => part.radius && seen({ points: [[part.X, part.Y]] }));

  // Full dots are points of lines with round ends; of dots that all but cover one another, one is enough.
  pen.fill = () => {
    path(relative(lines().map((part) => ({ ...part, closed: true }))), `fill="${pen.fillStyle}"`);
    for (const radius of new Set(circles().map((circle) => circle.radius))) {
      const cell = 1.2 * FINE;
      const dots = new Map();
      for (const circle of circles())
        if (circle.radius === radius)
          dots.set(`${Math.round(circle.X / cell)} ${Math.round(circle.Y / cell)}`, circle);
      const strip = ({ X }) => Math.floor(X / 100); // up one strip after the other: short steps make a small file
      const sorted = [...dots.values()].sort((a, b) => strip(a) - strip(b) || a.Y - b.Y);
      const d = relative(sorted.map(({ X, Y }) => ({ points: [[X, Y]] })));
      path(d, `stroke="${pen.fillStyle}" stroke-width="${short(2 * radius)}"`);
    }
  };
  pen.stroke = () => {
    const paint = `stroke="${pen.strokeStyle}" stroke-width="${short(pen.lineWidth)}"`;
    const rings = circles().map(({ X, Y, radius }) => {
      const r = placed(radius);
      return `M${X + r} ${Y}a${r} ${r} 0 1 1-${2 * r} 0a${r} ${r} 0 1 1 ${2 * r} 0`;
    });
    path(relative(lines()) + rings.join(""), paint);
    for (const { box } of parts)
      if (box) {
        const [x, y, width, height, radius] = box.map(placed);
        out.push(
          `<rect ${paint}${look()} x="${x}" y="${y}" width="${width}" height="${height}" rx="${radius}"/>`,
        );
      }
  };

  pen.beginPath = () => (parts = []);
  pen.setLineDash = (lengths) => (dash = lengths);
  pen.moveTo = (x, y) => Number.isFinite(x + y) && start([[placed(x), placed(y)]]);
  pen.lineTo = (x, y) => {
    if (!Number.isFinite(x + y)) return;
    if (parts.at(-1)?.points && !parts.at(-1).closed) parts.at(-1).points.push([placed(x), placed(y)]);
    else pen.moveTo(x, y);
  };
  pen.quadraticCurveTo = (_a, _b, x, y) => pen.lineTo(x, y);
  pen.closePath = () => {
    if (parts.length) parts.at(-1).closed = true;
  };
  pen.rect = (x, y, w, h) => {
    start(
      [
        [x, y],
        [x + w, y],
        [x + w, y + h],
        [x, y + h],
      ].map((corner) => corner.map(placed)),
    );
    pen.closePath();
  };
  pen.roundRect = (...box) => parts.push({ box });
  pen.arc = (x, y, radius) => Number.isFinite(x + y) && parts.push({ X: placed(x), Y: placed(y), radius });

  // A picture in a box. Its height is a style too, since a page may have another for every svg; some browsers ask for both.
  const nested = (x, y, width, height, box, content) => {
    const [X, Y, W, H] = [x, y, width, height].map(placed);
    const seen = `viewBox="${box.map(placed).join(" ")}" preserveAspectRatio="none"`;
    return `<svg x="${X}" y="${Y}" width="${W}" height="${H}" style="height:${H}px" ${seen}>${content}</svg>`;
  };

  // A clip is the box of the path.
  pen.save = () => {
    outer.push(out);
    out = [];
  };
  pen.clip = () => {
    const [[x, y], , [right, bottom]] = parts[0].points.map((corner) => corner.map((c) => c / FINE));
    outer.at(-1).box = [x, y, right - x, bottom - y];
  };
  pen.restore = () => {
    const inside = out.join("");
    out = outer.pop();
    out.push(nested(...out.box, out.box, inside));
  };
  pen.scale = () => {}; // for sharper screens

  // A picture of pixels becomes an image whose data Python makes: {width height red green blue alpha alpha ...}
  pen.putImageData = (image) => (pen.image = image);
  pen.drawImage = (picture, x, y, width, height) => {
    const drawn = picture.getContext("2d");
    if (!drawn.image)
      return out.push(nested(x, y, width, height, [0, 0, picture.width, picture.height], drawn.svg()));
    const { data } = drawn.image;
    const alpha = Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3]);
    const pixels = [drawn.image.width, drawn.image.height, ...data.slice(0, 3), ...alpha].join(" ");
    const place = [x, y, width, height].map(placed);
    out.push(
      `<image x="${place[0]}" y="${place[1]}" width="${place[2]}" height="${place[3]}" preserveAspectRatio="none" href="{${pixels}}"/>`,
    );
  };

  pen.measureText = (text) => ({ width: 6.5 * text.length });
  pen.strokeText = () => {}; // the style sheet gives every text its halo
  pen.fillText = (text, x, y) => {
    const anchor = { left: "", center: ' text-anchor="middle"', right: ' text-anchor="end"' }[pen.textAlign];
    const italic = pen.font.startsWith("italic") ? ' class="flow-letter"' : "";
    out.push(
      `<text x="${placed(x)}" y="${placed(y)}"${anchor}${italic} fill="${pen.fillStyle}">${escaped(text)}</text>`,
    );
  };

  pen.svg = () => out.join("");
  return pen;
}
