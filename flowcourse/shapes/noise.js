// Noise from a seed, the same here and in Python (noise.py): what it is depends on the seed and on its place alone.

// Chris Wellons's mixing function of 32 bits, "lowbias32"
export function mixed(x) {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

export const TURN = 2 ** 20; // numbers of a seed from one turn to the next

// Standard normal numbers number `from` to `from + count` of the seed, both even
export function seededNoise(seed, count, from = 0) {
  const key = mixed((seed + 0x9e3779b9) | 0);
  const uniform = (j) => (mixed((mixed(j) + key) | 0) + 0.5) / 2 ** 32;
  const x = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform(from + i)));
    const angle = 2 * Math.PI * uniform(from + i + 1);
    x[i] = radius * Math.cos(angle);
    x[i + 1] = radius * Math.sin(angle);
  }
  return x;
}
