// Colours that the colour-blind can tell apart: viridis for sizes, blue to orange around zero, Okabe and Ito's for parts.

const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const AROUND_ZERO = ["1f4e79", "3a7ca5", "81b1cf", "c9dde8", "e8e4dc", "f4d3a8", "eda35a", "d1711a", "9a4a06"];
const SHADES = 128;

export const PARTS = {
  energy: "#0072b2",
  loss: "#e69f00",
  congestion: "#cc79a7",
  voltage: "#009e73",
  unbalance: "#56b4e9",
  scarcity: "#b8a000",
};

const rgb = (text) => [0, 2, 4].map((at) => parseInt(text.slice(at, at + 2), 16));
function shades(anchors) {
  const points = anchors.map(rgb);
  return Array.from({ length: SHADES }, (_, i) => {
    const place = (i / (SHADES - 1)) * (points.length - 1);
    const below = Math.min(Math.floor(place), points.length - 2);
    const mixed = points[below].map((value, c) => Math.round(value + (place - below) * (points[below + 1][c] - value)));
    return `rgb(${mixed.join(",")})`;
  });
}
const SCALES = { size: shades(VIRIDIS), signed: shades(AROUND_ZERO) };

/** Which shade each value has, between the ends of a scale. */
export function scaleOf(values, signed) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!values.length) [low, high] = [0, 1];
  if (signed) [low, high] = [-Math.max(-low, high, 1e-6), Math.max(-low, high, 1e-6)];
  if (high - low < 1e-9) [low, high] = [low - 1, high + 1];
  const colours = signed ? SCALES.signed : SCALES.size;
  const step = (SHADES - 1) / (high - low);
  const shade = (value) => Math.max(0, Math.min(SHADES - 1, Math.round((value - low) * step)));
  return { low, high, colours, shade };
}

export const cssGradient = (scale) =>
  `linear-gradient(to right, ${scale.colours.filter((_, i) => i % 8 === 0).join(", ")}, ${scale.colours.at(-1)})`;
