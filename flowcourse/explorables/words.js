// Numbers for readers.

export const minus = (text) => text.replace("-", "−");
export const fixed = (number, digits = 2) => minus(number.toFixed(digits));

// -12 -> "10⁻¹²"
export const power = (exponent) => `10${[...String(exponent)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("")}`;

// 0.00031 -> "3.1 × 10⁻⁴"
export function scientific(number) {
  if (!(number > 1e-12)) return number >= 0 ? `below ${power(-12)}` : "infinite";
  if (number >= 0.01 && number < 1000) return number.toPrecision(2);
  const [digits, exponent] = number.toExponential(1).split("e");
  return `${digits} × ${power(+exponent)}`;
}
