// The networks of chapter 10 as flowlib has them (text.py, mmdit.py, mmdit_blocks.py, autoencoder.py), and how they draw.
// Where an argument `seen` is given, seen(name, numbers) is told what comes out of each part: the tests compare it.

import { attention, circles, gelu, layerNorm, linear, plus, rmsNorm, silu, standardized } from "./tensors.js";

// Layers by their names in the state: a matrix with its bias, or a norm
const part = (state, name) => {
  const { shape, data: weight } = state[`${name}.weight`];
  return {
    weight,
    bias: state[`${name}.bias`]?.data,
    outputs: shape[0],
    inputs: weight.length / shape[0],
  };
};

// What a state of text encoder and MMDiT, or of an autoencoder, holds
export function textToImage(state, { heads, patch, latent }) {
  const of = (name) => part(state, name);
  const names = Object.keys(state);
  const count = (start) => new Set(names.map((name) => name.match(`^${start}\\.(\\d+)\\.`)?.[1])).size - 1;
  const perceptron = (name) => [of(`${name}.0`), of(`${name}.2`)];
  const stream = (name) => {
    const last = !(`${name}.out.weight` in state);
    const parts = ["adaln", "qkv", ...(last ? [] : ["out", "mlp_in", "mlp_out"])];
    const found = Object.fromEntries(parts.map((part) => [part, of(`${name}.${part}`)]));
    const norms = ["norm_q", "norm_k"].map((norm) => state[`${name}.${norm}.weight`].data);
    return { ...found, norms, last };
  };
  return {
    heads,
    patch,
    latent,
    words: state["text.words"].data,
    wordPositions: state["text.positions"].data,
    layers: Array.from({ length: count("text.layers") }, (_, k) =>
      Object.fromEntries(
        ["norm_attention", "norm_mlp", "qkv", "out", "mlp_in", "mlp_out"].map((name) => [
          name,
          of(`text.layers.${k}.${name}`),
        ]),
      ),
    ),
    norm: of("text.norm"),
    patches: of("field.patch"),
    positions: state["field.positions"].data,
    text: of("field.text"),
    time: perceptron("field.time"),
    pooled: perceptron("field.pooled"),
    span: "field.span.0.weight" in state ? perceptron("field.span") : null,
    blocks: Array.from({ length: count("field.blocks") }, (_, k) => ({
      image: stream(`field.blocks.${k}.image`),
      text: stream(`field.blocks.${k}.text`),
    })),
    adaln: of("field.adaln"),
    out: of("field.out"),
  };
}

// The text

// A sequence (L, d) and one vector (d) from the tokens of a caption
export function encoded(net, tokens) {
  const { words, wordPositions, heads } = net;
  const d = net.norm.outputs;
  const n = tokens.length;
  let h = wordPositions.map((z, i) => z + words[tokens[Math.floor(i / d)] * d + (i % d)]);
  for (const layer of net.layers) {
    const qkv = linear(layerNorm(h, layer.norm_attention), n, layer.qkv);
    h = plus(h, linear(attention(qkv, n, heads.text), n, layer.out));
    h = plus(h, linear(gelu(linear(layerNorm(h, layer.norm_mlp), n, layer.mlp_in)), n, layer.mlp_out));
  }
  const sequence = layerNorm(h, net.norm);
  const pooled = new Float32Array(d);
  const said = tokens.filter((token) => token).length;
  for (let i = 0; i < n; i++)
    if (tokens[i]) for (let j = 0; j < d; j++) pooled[j] += sequence[i * d + j] / Math.max(said, 1);
  return { sequence, pooled };
}

// The field

const told = ([first, second], numbers) => linear(silu(linear(numbers, 1, first)), 1, second);

// What holds for all tokens of a picture (d): time, text and, for a student, how far it is to jump
function conditioning(net, t, pooled, end) {
  const dimension = net.time[0].inputs;
  const fastest = 1000 * 1e-4 ** (1 - dimension / 256);
  let c = plus(told(net.time, circles(t, dimension, fastest, 0.1)), told(net.pooled, pooled));
  if (net.span) c = plus(c, told(net.span, circles((end ?? t) - t, net.span[0].inputs, 10, 0.01)));
  else if (end !== undefined) throw new Error("this network is told one time only");
  return c;
}

// Images (B, c, h p, w p) as rows of patches (B h w, p p c), or back
function patched(x, { patch: p, latent: [c, height, width] }, back = false) {
  const y = new Float32Array(x.length);
  const [h, w] = [height / p, width / p];
  let row = 0;
  for (let b = 0; b < x.length / (c * height * width); b++)
    for (let i = 0; i < h; i++)
      for (let j = 0; j < w; j++)
        for (let dy = 0; dy < p; dy++)
          for (let dx = 0; dx < p; dx++)
            for (let k = 0; k < c; k++, row++) {
              const pixel = ((b * c + k) * height + i * p + dy) * width + j * p + dx;
              if (back) y[pixel] = x[row];
              else y[row] = x[pixel];
            }
  return y;
}

// adaLN: rows normalized, then scaled and shifted as their picture's conditioning says
const modulated = (x, d, rows, shift, scale) =>
  standardized(x, d, 1e-6, (z, j, row) => {
    const of = Math.floor(row / rows);
    return shift(of, j) + z * (1 + scale(of, j));
  });

// One modality in a block: its rows of tokens (B rows, d), and the modulation of each picture
function side(stream, x, rows, c, of) {
  const d = stream.qkv.inputs;
  const all = linear(c, c.length / d, stream.adaln);
  const modulation = Array.from(
    { length: stream.adaln.outputs / d },
    (_, k) => (b, j) => all[of(b) * stream.adaln.outputs + k * d + j],
  );
  const n = x.length / d;
  const qkv = linear(modulated(x, d, rows, modulation[0], modulation[1]), n, stream.qkv);
  stream.norms.forEach((weight, which) => {
    for (let h = 0; h < d; h += weight.length) rmsNorm(qkv, which * d + h, qkv.length, 3 * d, weight);
  });
  return { stream, x, rows, qkv, modulation, d, n };
}

// x plus what the attention saw, plus a perceptron of each token, both as far as their gates are open
function updated({ stream, x, rows, modulation, d, n }, seen) {
  const [, , gate, shift, scale, gateMlp] = modulation;
  const gated = (x, y, gate) => {
    const out = new Float32Array(x.length);
    for (let row = 0, i = 0; row < n; row++) {
      const of = Math.floor(row / rows);
      for (let j = 0; j < d; j++, i++) out[i] = x[i] + gate(of, j) * y[i];
    }
    return out;
  };
  const y = gated(x, linear(seen, n, stream.out), gate);
  const h = gelu(linear(modulated(y, d, rows, shift, scale), n, stream.mlp_in));
  return gated(y, linear(h, n, stream.mlp_out), gateMlp);
}

// The velocity at latents x (B, c, h, w) at time t; with an end, the average velocity up to it. Of G texts, each is told to
// B / G latents in a row.
export function velocity(net, x, t, texts, end, seen) {
  const d = net.patches.outputs;
  const B = x.length / net.latent.reduce((a, b) => a * b);
  const of = (b) => Math.floor((b * texts.length) / B);
  const joined = (rows) => {
    const all = new Float32Array(rows.length * rows[0].length);
    rows.forEach((row, i) => all.set(row, i * row.length));
    return all;
  };
  const conditions = joined(texts.map(({ pooled }) => conditioning(net, t, pooled, end)));
  seen?.("conditioning", conditions);
  const c = silu(conditions);
  const patches = patched(x, net);
  let image = linear(patches, patches.length / net.patches.inputs, net.patches);
  const N = image.length / d / B;
  if (net.positions.length !== N * d) throw new Error("the table of positions is of another size");
  image = image.map((z, i) => z + net.positions[i % (N * d)]);
  const sequences = texts.map(({ sequence }) =>
    linear(sequence, sequence.length / net.text.inputs, net.text),
  );
  const L = sequences[0].length / d;
  let text = joined(Array.from({ length: B }, (_, b) => sequences[of(b)]));
  seen?.("tokens", image);
  net.blocks.forEach((block, k) => {
    const [ofImage, ofText] = [side(block.image, image, N, c, of), side(block.text, text, L, c, of)];
    const [sawImage, sawText] = [new Float32Array(B * N * d), new Float32Array(B * L * d)];
    for (let b = 0; b < B; b++) {
      const row = 3 * d;
      const both = new Float32Array((N + L) * row);
      both.set(ofImage.qkv.subarray(b * N * row, (b + 1) * N * row));
      both.set(ofText.qkv.subarray(b * L * row, (b + 1) * L * row), N * row);
      const saw = attention(both, N + L, net.heads.field);
      sawImage.set(saw.subarray(0, N * d), b * N * d);
      sawText.set(saw.subarray(N * d), b * L * d);
    }
    image = updated(ofImage, sawImage);
    if (!block.text.last) text = updated(ofText, sawText);
    seen?.(`image ${k}`, image);
    seen?.(`text ${k}`, text);
  });
  const all = linear(c, texts.length, net.adaln);
  const at = (k) => (b, j) => all[2 * d * of(b) + k * d + j];
  const answer = linear(modulated(image, d, N, at(0), at(1)), B * N, net.out);
  const v = patched(answer, net, true);
  seen?.("velocity", v);
  return v;
}

// The ways from noise to data: after each step { step, steps, x }

// Euler steps of the guided field between the given moments
export function* teacherSteps(net, x, { told, empty, scale, moments }) {
  const steps = moments.length - 1;
  for (let n = 0; n < steps; n++) {
    const both = new Float32Array(2 * x.length);
    both.set(x);
    both.set(x, x.length);
    const v = velocity(net, both, moments[n], [told, empty]);
    const h = moments[n + 1] - moments[n];
    x = x.map((z, i) => z + h * (v[x.length + i] + scale * (v[i] - v[x.length + i])));
    yield { step: n + 1, steps, x };
  }
}

// Jumps of a student, which knows where guidance leads; from the end it goes back, straight toward the noise again(k) of its
// k-th return, to the last moment before, and jumps once more
export function* studentSteps(net, x, { told, moments, again }) {
  const steps = moments.length - 1;
  const back = moments.filter((t) => t < 1).at(-1);
  let returns = 0;
  for (let n = 0; n < steps; n++) {
    let t = moments[n];
    if (t === 1) {
      const noise = again(++returns);
      t = back;
      x = x.map((z, i) => (1 - t) * noise[i] + t * z);
    }
    const u = velocity(net, x, t, [told], moments[n + 1]);
    x = x.map((z, i) => z + (moments[n + 1] - t) * u[i]);
    yield { step: n + 1, steps, x };
  }
}

// The decoder: numbers of a picture stand pixel by pixel, (h w, c)

// A convolution with its weights (outputs, k, k, inputs), so that a window of pixels is a row of a matrix
const convolution = (state, name) => {
  const found = part(state, name);
  const [outputs, inputs, k] = state[`${name}.weight`].shape;
  const weight = new Float32Array(found.weight.length);
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++)
      for (let p = 0; p < k * k; p++)
        weight[(o * k * k + p) * inputs + i] = found.weight[(o * inputs + i) * k * k + p];
  return { ...found, weight, channels: inputs, k };
};

export function decoder(state) {
  const of = (name) => convolution(state, `decoder.${name}`);
  const residual = (k) => ({ first: of(`${k}.first`), second: of(`${k}.second`) });
  return {
    start: of(0),
    coarse: [1, 2, 3].map(residual),
    wide: of(4),
    fine: [6, 7].map(residual),
    end: of(8),
  };
}

function convolved(x, side, layer) {
  const { k, channels } = layer;
  if (k === 1) return linear(x, side * side, layer);
  const windows = new Float32Array(side * side * k * k * channels); // zero outside of the picture
  const reach = (k - 1) / 2;
  for (let i = 0; i < side; i++)
    for (let j = 0; j < side; j++)
      for (let dy = -reach; dy <= reach; dy++)
        for (let dx = -reach; dx <= reach; dx++) {
          const [y, z] = [i + dy, j + dx];
          if (y < 0 || z < 0 || y >= side || z >= side) continue;
          const from = (y * side + z) * channels;
          const place = ((i * side + j) * k + dy + reach) * k + dx + reach;
          windows.set(x.subarray(from, from + channels), place * channels);
        }
  return linear(windows, side * side, layer);
}

// Four channels become 2 x 2 pixels of one
function shuffled(x, side, channels) {
  const y = new Float32Array(x.length);
  for (let i = 0; i < side; i++)
    for (let j = 0; j < side; j++)
      for (let c = 0; c < channels; c++)
        for (let dy = 0; dy < 2; dy++)
          for (let dx = 0; dx < 2; dx++)
            y[((2 * i + dy) * 2 * side + 2 * j + dx) * channels + c] =
              x[((i * side + j) * channels + c) * 4 + 2 * dy + dx];
  return y;
}

// A picture (4 side, 4 side, 3), from -1 to 1 and beyond, of one latent (c, side, side)
export function decoded(net, z, seen) {
  const { channels } = net.start;
  let side = Math.sqrt(z.length / channels);
  const residual = (x, { first, second }) =>
    plus(x, convolved(silu(convolved(silu(x), side, first)), side, second));
  let x = new Float32Array(z.length);
  for (let c = 0; c < channels; c++)
    for (let i = 0; i < side * side; i++) x[i * channels + c] = z[c * side * side + i];
  const tell = (name) => seen?.(name, x);
  x = convolved(x, side, net.start);
  tell("0");
  net.coarse.forEach((layer, k) => {
    x = residual(x, layer);
    tell(String(1 + k));
  });
  x = convolved(x, side, net.wide);
  x = shuffled(x, side, net.wide.outputs / 4);
  side *= 2;
  tell("5");
  net.fine.forEach((layer, k) => {
    x = residual(x, layer);
    tell(String(6 + k));
  });
  x = shuffled(convolved(x, side, net.end), side, net.end.outputs / 4);
  tell("9");
  return x;
}

// Its colors from 0 to 1
export const colorsOf = (x) => x.map((z) => Math.min(1, Math.max(0, z / 2 + 0.5)));
