// What several scenes draw with: colors in between, and a density as a haze.

export const rgb = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));

// From the color of x_0 at t = 0 over that of the path to that of x_1 at t = 1
export function hue({ source, path, data }, t) {
  const [from, to] = (t < 0.5 ? [source, path] : [path, data]).map(rgb), s = (2 * t) % 1 || +(t === 1);
  return from.map((c, i) => c + s * (to[i] - c));
}

// Fills a small canvas with the color, clear to dim at the peak of a density over the box: log(points) gives its logarithm.
export function haze(canvas, { left, right, bottom, top }, [r, g, b], log) {
  const { width: m, height: n } = canvas, x = new Float64Array(2 * m * n);
  let i = 0;
  for (let row = 0.5; row < n; row++)
    for (let column = 0.5; column < m; column++) {
      x[i++] = left + (column / m) * (right - left);
      x[i++] = top + (row / n) * (bottom - top);
    }
  const logs = log(x), peak = Math.max(...logs), image = new ImageData(m, n);
  new Uint32Array(image.data.buffer).fill((b << 16) | (g << 8) | r);
  logs.forEach((l, i) => (image.data[4 * i + 3] = 150 * Math.exp(l - peak)));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
