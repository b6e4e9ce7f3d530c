// Colors in between, and densities as a haze.

export const rgb = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));

// From the color of x_0 at t = 0 over that of the path to that of x_1 at t = 1
export function hue({ source, path, data }, t) {
  const [from, to] = (t < 0.5 ? [source, path] : [path, data]).map(rgb);
  const s = (2 * t) % 1 || +(t === 1);
  return from.map((c, i) => c + s * (to[i] - c));
}

// Fills a small canvas with the color, clear to dim at the peak of a density over the box: log(points) gives its logarithm.
export function haze(canvas, { left, right, bottom, top }, [r, g, b], log) {
  const { width: m, height: n } = canvas;
  const x = new Float64Array(2 * m * n);
  let i = 0;
  for (let row = 0.5; row < n; row++)
    for (let column = 0.5; column < m; column++) {
      x[i++] = left + (column / m) * (right - left);
      x[i++] = top + (row / n) * (bottom - top);
    }
  const logs = log(x);
  const peak = Math.max(...logs);
  const image = new ImageData(m, n);
  new Uint32Array(image.data.buffer).fill((b << 16) | (g << 8) | r);
  for (let k = 0; k < logs.length; k++) image.data[4 * k + 3] = 150 * Math.exp(logs[k] - peak);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// A density of the plane over the whole panel, in pixels of about a hundredth of its width; the key names it
export function shade(panel, color, remember, key, log) {
  const rows = Math.round((80 * panel.height) / panel.width);
  const small = remember("small", rows, () => new OffscreenCanvas(80, rows));
  const shape = `${key} ${color} ${rows} ${panel.right}`;
  panel.image(
    remember("shade", shape, () => haze(small, panel, rgb(color), log)),
    0,
    0,
    panel.width,
    panel.height,
  );
}
