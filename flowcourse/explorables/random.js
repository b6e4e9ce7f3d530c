// Random numbers from a seed, the same everywhere: seeded(1) -> { uniform(), normal(), below(n) }.

export function seeded(seed) {
  let state = seed | 0;
  // Mulberry32, by Tommy Ettinger, of the public domain
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  // Box and Muller
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  const below = (n) => Math.floor(n * uniform());
  return { uniform, normal, below };
}
