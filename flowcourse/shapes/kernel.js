// linear() of tensors.js in WebAssembly, four products at a time: the bytes of linear.wat. Weights are put into its memory
// once; rows come and go through the memory's beginning.

import { bytesOf } from "./weights.js";

const CODE =
  "AGFzbQEAAAABGgNgAXsBfWAHf39/f39/fwBgB39/f3t7e3sAAwUEAAECAQUDAQAhBxMCBm1lbW9yeQIABmxpbmVhcgADCvwGBBkAIAD9HwAgAP0fAZIgAP0fAiAA/R8DkpILngUCBH8LeyAAIAVqIQcgACAFaiEIIAggBWohCSAJIAVqIQogASACRwRAA0AgAf0ABAAhCyAC/QAEACEMIAD9AAQAIQ0gDiANIAv95gH95AEhDiASIA0gDP3mAf3kASESIAj9AAQAIQ0gDyANIAv95gH95AEhDyATIA0gDP3mAf3kASETIAn9AAQAIQ0gECANIAv95gH95AEhECAUIA0gDP3mAf3kASEUIAr9AAQAIQ0gESANIAv95gH95AEhESAVIA0gDP3mAf3kASEVIAH9AAQQIQsgAv0ABBAhDCAA/QAEECENIA4gDSAL/eYB/eQBIQ4gEiANIAz95gH95AEhEiAI/QAEECENIA8gDSAL/eYB/eQBIQ8gEyANIAz95gH95AEhEyAJ/QAEECENIBAgDSAL/eYB/eQBIRAgFCANIAz95gH95AEhFCAK/QAEECENIBEgDSAL/eYB/eQBIREgFSANIAz95gH95AEhFSABQSBqIQEgAkEgaiECIAhBIGohCCAJQSBqIQkgCkEgaiEKIABBIGoiACAHSQ0ACyAEIAYgAyAOIA8gECAREAIgBEEEaiAGIANBBGogEiATIBQgFRACBQNAIAH9AAQAIQsgDiAA/QAEACAL/eYB/eQBIQ4gDyAI/QAEACAL/eYB/eQBIQ8gECAJ/QAEACAL/eYB/eQBIRAgESAK/QAEACAL/eYB/eQBIREgAf0ABBAhCyAOIAD9AAQQIAv95gH95AEhDiAPIAj9AAQQIAv95gH95AEhDyAQIAn9AAQQIAv95gH95AEhECARIAr9AAQQIAv95gH95AEhESABQSBqIQEgCEEgaiEIIAlBIGohCSAKQSBqIQogAEEgaiIAIAdJDQALIAQgBiADIA4gDyAQIBEQAgsLSAEBfSACKgIAIQcgACADEAAgB5I4AgAgACABaiIAIAQQACAHkjgCACAAIAFqIgAgBRAAIAeSOAIAIAAgAWogBhAAIAeSOAIAC3cBBX8gBUECdCEJIAZBAnQhCgNAIAEgCWogASAIQQFqIAZJGyELQQAhBwNAIAAgByAJbGogASALIAIgAyAHIApsaiAJIAoQASAHQQRqIgcgBEkNAAsgCyAJaiEBIAJBCGohAiADQQhqIQMgCEECaiIIIAZJDQALCwDtAQRuYW1lARMDAANzdW0BBGZvdXICBXdyaXRlAq4BBAABAAF2ARYAAXgBAXUCAXYDBGJpYXMEAXkFA3JvdwYDb3V0BwNlbmQIAngxCQJ4MgoCeDMLAXAMAXENAXoOAWEPAWIQAWMRAWQSAWUTAWYUAWcVAWgCCAABeQEDb3V0AgRiaWFzAwFhBAFiBQFjBgFkBwNhZGQDDAABeAEGd2VpZ2h0AgRiaWFzAwF5BAFuBQFrBgFtBwFpCAFqCQNyb3cKA291dAsGc2Vjb25kAyACAQIBBG1vcmUCBG1vcmUDAgAHY29sdW1ucwEEcm93cw==";
const ROOM = 2 ** 20; // bytes for what comes in, and as many for what goes out
const places = new WeakMap(); // of layers, in bytes
let kernel; // null where there is none

function opened() {
  try {
    const { memory, linear } = new WebAssembly.Instance(new WebAssembly.Module(bytesOf(CODE))).exports;
    return { memory, linear, end: 2 * ROOM };
  } catch {
    return null; // a browser without it
  }
}

function place(layer) {
  const { weight, bias } = layer;
  const at = kernel.end;
  kernel.end += 4 * (weight.length + bias.length + 2); // an odd last column reads one bias too many
  kernel.end += -kernel.end & 15;
  const missing = kernel.end - kernel.memory.buffer.byteLength;
  if (missing > 0) kernel.memory.grow(Math.ceil(missing / 65536));
  new Float32Array(kernel.memory.buffer, at, weight.length).set(weight);
  new Float32Array(kernel.memory.buffer, at + 4 * weight.length, bias.length).set(bias);
  places.set(layer, at);
  return at;
}

// What linear() gives, or null if it has to do it without
export function fast(x, n, layer) {
  const { inputs: k, outputs: m } = layer;
  if (kernel === undefined) kernel = opened();
  const most = Math.floor(ROOM / (16 * Math.max(k, m))) * 4; // rows at a time
  if (!kernel || k % 8 || !most) return null;
  const weight = places.get(layer) ?? place(layer);
  const numbers = new Float32Array(kernel.memory.buffer);
  const y = new Float32Array(n * m);
  for (let i = 0; i < n; i += most) {
    const rows = Math.min(most, n - i);
    numbers.set(x.subarray(i * k, (i + rows) * k));
    kernel.linear(0, weight, weight + 4 * k * m, ROOM, 4 * Math.ceil(rows / 4), k, m);
    y.set(numbers.subarray(ROOM / 4, ROOM / 4 + rows * m), i * m);
  }
  return y;
}
