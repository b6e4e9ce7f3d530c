// The exact detector of detector.py: which scene a picture (side, side, 3) of colors from 0 to 1 shows. Where a rounding could
// decide, it rounds as Python's does, to float32.

const f = Math.fround;

function distance(shape, r, x, y) {
  const box = (width, height) => {
    const [a, b] = [Math.abs(x) - width, Math.abs(y) - height];
    return Math.hypot(Math.max(a, 0), Math.max(b, 0)) + Math.min(Math.max(a, b), 0);
  };
  if (shape === "circle") return Math.hypot(x, y) - r;
  if (shape === "square") return box(0.88 * r, 0.88 * r);
  if (shape === "triangle") {
    const half = 0.99 * r;
    return Math.max((Math.sqrt(3) * Math.abs(x) - (y + half)) / 2, y - half);
  }
  if (shape === "cross") return Math.min(box(r, 0.34 * r), box(0.34 * r, r));
  if (shape === "ring") return Math.abs(Math.hypot(x, y) - 0.74 * r) - 0.26 * r;
  throw new RangeError(`no shape ${shape}`);
}

// Coverages of each kind around each center near the middle of a window: [{ shape, size, step, cover, total }]
export function templates({ shapes, sizes, half }) {
  const found = [];
  for (const shape of Object.keys(shapes))
    for (const [size, r] of Object.entries(sizes))
      for (const dy of [-1, 0, 1])
        for (const dx of [-1, 0, 1]) {
          const cover = new Float32Array(4 * half * half);
          for (let i = 0; i < 2 * half; i++)
            for (let j = 0; j < 2 * half; j++) {
              const away = distance(shape, r, j - half + 0.5 - dx, i - half + 0.5 - dy);
              cover[2 * half * i + j] = Math.min(1, Math.max(0, 0.5 - away));
            }
          found.push({ shape, size, step: [dx, dy], cover, total: cover.reduce((a, b) => a + b, 0) });
        }
  return found;
}

function nearestColor(color, known, { unknown, off }) {
  let [best, name] = [Infinity, unknown];
  for (const [other, value] of Object.entries(known)) {
    const square = value.reduce((sum, v, k) => sum + (color[k] - v) ** 2, 0);
    if (square < best) [best, name] = [square, other];
  }
  return Math.sqrt(best) <= off ? [name, known[name]] : [unknown, color];
}

// The pixels of each object: those marked that touch, also by a corner, in the order of their first
function parts(marked, side) {
  const seen = new Uint8Array(marked.length);
  const found = [];
  for (let start = 0; start < marked.length; start++) {
    if (!marked[start] || seen[start]) continue;
    const part = [start];
    seen[start] = 1;
    for (let n = 0; n < part.length; n++) {
      const [y, x] = [Math.floor(part[n] / side), part[n] % side];
      for (let i = Math.max(y - 1, 0); i <= Math.min(y + 1, side - 1); i++)
        for (let j = Math.max(x - 1, 0); j <= Math.min(x + 1, side - 1); j++) {
          const pixel = i * side + j;
          if (!marked[pixel] || seen[pixel]) continue;
          seen[pixel] = 1;
          part.push(pixel);
        }
    }
    found.push(part.sort((a, b) => a - b));
  }
  return found;
}

export function detector(tables) {
  const { side, different, speck, core, overlap, unknown, half } = tables;
  const kinds = templates(tables);

  const matched = (cover, center) => {
    const window = new Float32Array(4 * half * half);
    for (let i = 0; i < 2 * half; i++)
      for (let j = 0; j < 2 * half; j++) {
        const [y, x] = [center[1] - half + i, center[0] - half + j];
        if (y >= 0 && y < side && x >= 0 && x < side) window[2 * half * i + j] = cover[y * side + x];
      }
    const total = cover.reduce((a, b) => a + b, 0);
    let [best, found] = [-1, kinds[0]];
    for (const kind of kinds) {
      let both = 0;
      for (let p = 0; p < window.length; p++) both += Math.min(window[p], kind.cover[p]);
      const value = f(both / (total + kind.total - both));
      if (value > best) [best, found] = [value, kind];
    }
    const { shape, size, step } = found;
    return best >= overlap ? { shape, size, step } : { shape: unknown, size: unknown, step };
  };

  return (picture) => {
    const border = [];
    for (let i = 0; i < side; i++)
      for (let j = 0; j < side; j++)
        if ([0, side - 1].includes(i) || [0, side - 1].includes(j)) border.push(3 * (i * side + j));
    const background = [0, 1, 2].map((c) => {
      const sorted = border.map((at) => picture[at + c]).sort((a, b) => a - b);
      const middle = sorted.length / 2;
      return f((sorted[middle - 1] + sorted[middle]) / 2);
    });
    const away = new Float32Array(side * side);
    for (let p = 0; p < away.length; p++)
      for (let c = 0; c < 3; c++)
        away[p] = Math.max(away[p], Math.abs(f(picture[3 * p + c] - background[c])));
    const objects = [];
    const marked = away.map((d) => d > different);
    for (const part of parts(marked, side)) {
      if (part.length < speck) continue;
      const most = part.reduce((most, p) => Math.max(most, away[p]), 0);
      const center = part.filter((p) => away[p] >= f(f(core) * most));
      const mean = [0, 1, 2].map((c) =>
        f(center.reduce((sum, p) => sum + picture[3 * p + c], 0) / center.length),
      );
      const [color, value] = nearestColor(mean, tables.colors, tables);
      const direction = value.map((v, c) => v - background[c]);
      const square = Math.max(
        direction.reduce((sum, d) => sum + d * d, 0),
        1e-9,
      );
      const cover = new Float32Array(side * side);
      for (const p of part) {
        const along = direction.reduce((sum, d, c) => sum + d * f(picture[3 * p + c] - background[c]), 0);
        cover[p] = Math.min(1, Math.max(0, along / square));
      }
      const box = (ends) => Math.floor((Math.min(...ends) + Math.max(...ends) + 1) / 2);
      const middle = [box(part.map((p) => p % side)), box(part.map((p) => Math.floor(p / side)))];
      const { shape, size, step } = matched(cover, middle);
      objects.push({ shape, color, size, center: middle.map((m, axis) => m + step[axis]) });
    }
    return { background: nearestColor(background, tables.backgrounds, tables)[0], objects };
  };
}
