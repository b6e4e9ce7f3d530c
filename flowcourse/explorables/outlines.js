// Shapes of the plane as dots along their lines, about as far from one another as a hand draws them.

export const GAP = 0.1; // units between dots

// Dots along a curve t -> [x_1, x_2], t from 0 to 1, evenly by its length
export function along(curve, gap = GAP) {
  const fine = Array.from({ length: 2001 }, (_, i) => curve(i / 2000));
  const dots = [...fine[0]];
  let left = gap;
  for (let i = 1; i < fine.length; i++) {
    left -= Math.hypot(fine[i][0] - fine[i - 1][0], fine[i][1] - fine[i - 1][1]);
    if (left > 0) continue;
    dots.push(...fine[i]);
    left += gap;
  }
  return dots;
}

const arc = (x, y, radius, from, to) => (s) => {
  const a = from + s * (to - from);
  return [x + radius * Math.cos(a), y + radius * Math.sin(a)];
};
const turn = 2 * Math.PI;

export const outlines = {
  Spiral: () =>
    along((s) => {
      const r = 0.5 + 2 * s;
      return [r * Math.cos(1.3 * turn * s), r * Math.sin(1.3 * turn * s)];
    }),
  "Two moons": () => [
    ...along(arc(-0.85, -0.45, 1.7, 0, turn / 2)),
    ...along(arc(0.85, 0.45, 1.7, turn / 2, turn)),
  ],
  Ring: () => along(arc(0, 0, 2.2, 0, turn)),
  Face: () => [
    ...along(arc(0, 0, 2.4, 0, turn)),
    ...along(arc(0, -0.2, 1.2, 0.55 * turn, 0.95 * turn)),
    ...along(arc(-0.8, 0.75, 0.25, 0, turn)),
    ...along(arc(0.8, 0.75, 0.25, 0, turn)),
  ],
  "Letter S": () => [
    ...along(arc(0, 1.1, 1.1, 0.12 * turn, 0.75 * turn)),
    ...along(arc(0, -1.1, 1.1, 0.25 * turn, -0.38 * turn)),
  ],
};
