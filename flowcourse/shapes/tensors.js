// Arithmetic on rows of numbers: a matrix is a Float32Array, row by row.

import { fast } from "./kernel.js";

// (n, m): x (n, k) times the transpose of a layer's weight (m, k), plus its bias
export const linear = (x, n, layer) => fast(x, n, layer) ?? plain(x, n, layer);

// The same in JavaScript, with sums in double precision. Four rows meet two at a time, so that eight sums stay in registers:
// four times as fast as one after the other.
export function plain(x, n, { weight, bias, inputs: k, outputs: m }) {
  const y = new Float32Array(n * m);
  let i = 0;
  for (; i + 3 < n; i += 4) {
    const a = i * k;
    const b = a + k;
    const c = b + k;
    const d = c + k;
    for (let j = 0; j < m; j += 2) {
      const v = j * k;
      const w = j + 1 < m ? v + k : v;
      let av = 0;
      let aw = 0;
      let bv = 0;
      let bw = 0;
      let cv = 0;
      let cw = 0;
      let dv = 0;
      let dw = 0;
      for (let p = 0; p < k; p++) {
        const first = weight[v + p];
        const second = weight[w + p];
        const xa = x[a + p];
        const xb = x[b + p];
        const xc = x[c + p];
        const xd = x[d + p];
        av += xa * first;
        aw += xa * second;
        bv += xb * first;
        bw += xb * second;
        cv += xc * first;
        cw += xc * second;
        dv += xd * first;
        dw += xd * second;
      }
      const at = i * m + j;
      y[at] = av + bias[j];
      y[at + m] = bv + bias[j];
      y[at + 2 * m] = cv + bias[j];
      y[at + 3 * m] = dv + bias[j];
      if (j + 1 === m) continue;
      y[at + 1] = aw + bias[j + 1];
      y[at + m + 1] = bw + bias[j + 1];
      y[at + 2 * m + 1] = cw + bias[j + 1];
      y[at + 3 * m + 1] = dw + bias[j + 1];
    }
  }
  for (; i < n; i++)
    for (let j = 0; j < m; j++) {
      let sum = bias[j];
      for (let p = 0; p < k; p++) sum += x[i * k + p] * weight[j * k + p];
      y[i * m + j] = sum;
    }
  return y;
}

export const silu = (x) => x.map((z) => z / (1 + Math.exp(-z)));
// z (1 + tanh u) / 2, and that is z times the logistic function of 2u
export const gelu = (x) =>
  x.map((z) => z / (1 + Math.exp(-Math.sqrt(8 / Math.PI) * (z + 0.044715 * z * z * z))));
export const plus = (x, y) => x.map((z, i) => z + y[i]);

// Each row of d numbers with mean 0 and variance 1; write(row, column, number) says what becomes of them.
export function standardized(x, d, eps, write) {
  const y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += d) {
    let mean = 0;
    for (let j = 0; j < d; j++) mean += x[at + j] / d;
    let variance = 0;
    for (let j = 0; j < d; j++) variance += (x[at + j] - mean) ** 2 / d;
    const factor = 1 / Math.sqrt(variance + eps);
    for (let j = 0; j < d; j++) y[at + j] = write((x[at + j] - mean) * factor, j, at / d);
  }
  return y;
}

// Layer norm with a weight and a bias
export const layerNorm = (x, { weight, bias }) =>
  standardized(x, weight.length, 1e-5, (z, j) => z * weight[j] + bias[j]);

// Rows of d numbers divided by their root mean square, times a weight, in place: those from `at` to `end`, `step` apart
export function rmsNorm(x, at, end, step, weight) {
  const d = weight.length;
  for (; at < end; at += step) {
    let square = 0;
    for (let j = 0; j < d; j++) square += x[at + j] ** 2 / d;
    const factor = 1 / Math.sqrt(square + 1e-6);
    for (let j = 0; j < d; j++) x[at + j] *= factor * weight[j];
  }
}

// softmax(q k^T / sqrt(d)) v of each head, (n, width), from rows [q k v] of n tokens, (n, 3 width)
export function attention(qkv, n, heads) {
  const width = qkv.length / n / 3;
  const d = width / heads;
  const y = new Float32Array(n * width);
  const scores = new Float64Array(n);
  for (let h = 0; h < width; h += d)
    for (let i = 0; i < n; i++) {
      const q = 3 * width * i + h;
      let most = -Infinity;
      for (let j = 0; j < n; j++) {
        const k = 3 * width * j + width + h;
        let score = 0;
        for (let p = 0; p < d; p++) score += qkv[q + p] * qkv[k + p];
        scores[j] = score / Math.sqrt(d);
        most = Math.max(most, scores[j]);
      }
      let total = 0;
      for (let j = 0; j < n; j++) total += scores[j] = Math.exp(scores[j] - most);
      for (let j = 0; j < n; j++) {
        const share = scores[j] / total;
        const v = 3 * width * j + 2 * width + h;
        const at = i * width + h;
        for (let p = 0; p < d; p++) y[at + p] += share * qkv[v + p];
      }
    }
  return y;
}

// A number on circles: cosines, then sines, at angular frequencies that fall geometrically
export function circles(t, dimension, fastest, slowest) {
  const y = new Float32Array(dimension);
  const half = dimension / 2;
  for (let k = 0; k < half; k++) {
    const angle = t * fastest * (slowest / fastest) ** (k / half);
    y[k] = Math.cos(angle);
    y[half + k] = Math.sin(angle);
  }
  return y;
}
