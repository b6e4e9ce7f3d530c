// The weights of a network, from the file that Python wrote (flowcourse/shapes/shipped.py): whole numbers of one byte with a
// scale for each row, or float32.

export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Tensors { shape, data } by name from the bytes of a safetensors file: its header's length, its header, numbers
export function tensorsOf(bytes) {
  const start = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(String.fromCharCode(...bytes.subarray(8, start)));
  const found = {};
  for (const [name, { dtype, shape, data_offsets: ends }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const kind = { F32: Float32Array, I8: Int8Array }[dtype];
    if (!kind) throw new TypeError(`${name} is ${dtype}, expected F32 or I8`);
    const own = bytes.slice(...ends.map((end) => start + end)); // in memory of its own, and so aligned
    found[name] = { shape, data: new kind(own.buffer) };
  }
  return found;
}

// The same with numbers in place of rounded ones: a row's times its scale
export function restored(packed) {
  const found = {};
  for (const [name, { shape, data }] of Object.entries(packed)) {
    if (name.endsWith(".scale")) continue;
    const scale = packed[`${name}.scale`]?.data;
    found[name] = { shape, data };
    if (!scale) continue;
    const row = data.length / shape[0];
    const numbers = new Float32Array(data.length);
    for (let i = 0; i < shape[0]; i++)
      for (let j = i * row; j < (i + 1) * row; j++) numbers[j] = data[j] * scale[i];
    found[name].data = numbers;
  }
  return found;
}

export const weightsOf = (base64) => restored(tensorsOf(bytesOf(base64)));
