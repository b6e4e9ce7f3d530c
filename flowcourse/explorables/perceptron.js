// A multilayer perceptron with SiLU between its layers, flowlib's `VelocityMLP` on points of the plane and time: forward,
// backward, and Adam. Rows of a matrix lie one after the other in a Float32Array; a batch is a matrix with one row a point.

// out (n, m) = a (n, k) b^T, b (m, k). Four rows by two columns of sums stay in the processor's registers.
export function multiply(a, b, out, n, k, m) {
  const rows = n - (n % 4);
  const columns = m - (m % 2);
  for (let i = 0; i < rows; i += 4) {
    const a0 = i * k;
    const a1 = a0 + k;
    const a2 = a1 + k;
    const a3 = a2 + k;
    for (let j = 0; j < columns; j += 2) {
      const b0 = j * k;
      const b1 = b0 + k;
      let s00 = 0;
      let s01 = 0;
      let s10 = 0;
      let s11 = 0;
      let s20 = 0;
      let s21 = 0;
      let s30 = 0;
      let s31 = 0;
      for (let p = 0; p < k; p++) {
        const y0 = b[b0 + p];
        const y1 = b[b1 + p];
        const x0 = a[a0 + p];
        s00 += x0 * y0;
        s01 += x0 * y1;
        const x1 = a[a1 + p];
        s10 += x1 * y0;
        s11 += x1 * y1;
        const x2 = a[a2 + p];
        s20 += x2 * y0;
        s21 += x2 * y1;
        const x3 = a[a3 + p];
        s30 += x3 * y0;
        s31 += x3 * y1;
      }
      const q = i * m + j;
      out[q] = s00;
      out[q + 1] = s01;
      out[q + m] = s10;
      out[q + m + 1] = s11;
      out[q + 2 * m] = s20;
      out[q + 2 * m + 1] = s21;
      out[q + 3 * m] = s30;
      out[q + 3 * m + 1] = s31;
    }
  }
  // What is left over at the right and at the bottom
  for (let i = 0; i < n; i++)
    for (let j = i < rows ? columns : 0; j < m; j++) {
      let sum = 0;
      for (let p = 0; p < k; p++) sum += a[i * k + p] * b[j * k + p];
      out[i * m + j] = sum;
    }
}

// The transpose (m, n) of a (n, m)
export function transpose(a, out, n, m) {
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) out[j * n + i] = a[i * m + j];
}

// Numbers of the layers `sizes`: W (out, in) and b (out) of each in turn, in one array
export const count = (sizes) => sizes.slice(1).reduce((sum, m, l) => sum + m * (sizes[l] + 1), 0);

// torch's first weights: uniform on +-1 / sqrt(inputs)
export function initial(sizes, uniform) {
  let at = 0;
  const weights = new Float32Array(count(sizes));
  sizes.slice(1).forEach((m, l) => {
    const bound = 1 / Math.sqrt(sizes[l]);
    for (const end = at + m * (sizes[l] + 1); at < end; at++) weights[at] = bound * (2 * uniform() - 1);
  });
  return weights;
}

// The network of layers `sizes` on batches of up to `most` points. It works in `weights` itself, which may change between calls.
export function perceptron(sizes, most, weights) {
  const gradient = new Float32Array(weights.length);
  let at = 0;
  const layers = sizes.slice(1).map((m, l) => {
    const k = sizes[l];
    const part = (array) => [array.subarray(at, at + m * k), array.subarray(at + m * k, at + m * k + m)];
    const [W, b] = part(weights);
    const [dW, db] = part(gradient);
    at += m * (k + 1);
    const room = (size) => new Float32Array(size);
    return {
      ...{ k, m, W, b, dW, db, last: l === sizes.length - 2 },
      ...{ z: room(most * m), s: room(most * m), h: room(most * m), dz: room(most * m) }, // h = silu(z) = z s
      ...{ dzT: room(most * m), inputT: room(most * k), WT: room(m * k) },
    };
  });

  // Rows (x_1, x_2, t) -> velocities (n, 2); the array is the network's own.
  function forward(input, n) {
    let below = input;
    for (const layer of layers) {
      const { m, z, s, h, b } = layer;
      multiply(below, layer.W, z, n, layer.k, m);
      for (let i = 0, q = 0; i < n; i++) for (let j = 0; j < m; j++) z[q++] += b[j];
      if (layer.last) return z;
      for (let q = 0; q < n * m; q++) {
        s[q] = 1 / (1 + Math.exp(-z[q]));
        h[q] = z[q] * s[q];
      }
      below = h;
    }
  }

  // From the loss's slopes (n, 2) in the last answer, its gradient in all weights
  function backward(input, slopes, n) {
    layers.at(-1).dz.set(slopes.subarray(0, 2 * n));
    for (let l = layers.length - 1; l >= 0; l--) {
      const { k, m, W, dW, db, dz, dzT, inputT, WT } = layers[l];
      const below = layers[l - 1];
      transpose(dz, dzT, n, m);
      transpose(below?.h ?? input, inputT, n, k);
      multiply(dzT, inputT, dW, m, n, k);
      for (let j = 0; j < m; j++) {
        let sum = 0;
        for (let i = 0; i < n; i++) sum += dzT[j * n + i];
        db[j] = sum;
      }
      if (!below) return gradient;
      transpose(W, WT, m, k);
      multiply(dz, WT, below.dz, n, m, k);
      for (let q = 0; q < n * k; q++) {
        const s = below.s[q];
        below.dz[q] *= s * (1 + below.z[q] * (1 - s)); // silu'(z)
      }
    }
  }

  return { weights, forward, backward };
}

// Adam (Kingma and Ba 2015), with torch's defaults: step(gradient, rate) changes the weights.
export function adam(weights) {
  const m = new Float32Array(weights.length);
  const v = new Float32Array(weights.length);
  let n = 0;
  return (gradient, rate) => {
    n++;
    const c = Math.sqrt(1 - 0.999 ** n);
    const length = rate / (1 - 0.9 ** n);
    for (let q = 0; q < weights.length; q++) {
      const g = gradient[q];
      m[q] += 0.1 * (g - m[q]);
      v[q] += 0.001 * (g * g - v[q]);
      weights[q] -= (length * m[q]) / (Math.sqrt(v[q]) / c + 1e-8);
    }
  };
}
