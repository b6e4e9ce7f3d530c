// Affine paths x_t = alpha x_1 + sigma x_0 by name: at time t, [alpha, sigma, alpha', sigma'].

const turn = Math.PI / 2;
export const affine = {
  linear: (t) => [t, 1 - t, 1, -1],
  cosine: (t) => [
    Math.sin(turn * t),
    Math.cos(turn * t),
    turn * Math.cos(turn * t),
    -turn * Math.sin(turn * t),
  ],
  squeeze: (t) => [t * t, (1 - t) ** 2, 2 * t, 2 * t - 2],
  "noise first": (t) => [t, (1 - t) ** 3, 1, -3 * (1 - t) ** 2],
};
