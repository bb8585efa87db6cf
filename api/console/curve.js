// An offer as a curve, with what was accepted of it and the price where it stands.

import { html, money, number } from "./ui.js";

const WIDE = 520;
const HIGH = 240;
const LEFT = 64;
const BELOW = 40;

/** `parts` have a quantity and the prices where they begin and end; `price` and `accepted` are null until it is cleared. */
export function Curve({ title, parts, unit, priceUnit, price, accepted }) {
  const points = [];
  let quantity = 0;
  for (const part of parts) {
    points.push([quantity, part.begins], [quantity + part.quantity, part.ends]);
    quantity += part.quantity;
  }
  const isCleared = price !== null;
  const prices = [...points.map((point) => point[1]), 0, ...(isCleared ? [price] : [])];
  const low = Math.min(...prices);
  const high = Math.max(...prices, low + 1);
  const x = (at) => LEFT + ((WIDE - LEFT - 12) * at) / Math.max(quantity, 1e-9);
  const y = (at) => 12 + (HIGH - BELOW - 12) * (1 - (at - low) / (high - low));
  const text = isCleared
    ? `${title}: ${number(accepted)} of ${number(quantity)} ${unit} accepted at ${money(price)} ${priceUnit}`
    : `${title}, prices in ${priceUnit}; not cleared yet`;
  return html`<figure class="curve">
    <svg viewBox="0 0 ${WIDE} ${HIGH}" role="img" aria-label=${text}>
      ${[low, (low + high) / 2, high].map((at) => html`<g><line class="grid" x1=${LEFT} x2=${WIDE - 12} y1=${y(at)} y2=${y(at)} /><text x=${LEFT - 8} y=${y(at) + 4} text-anchor="end">${number(Math.round(at * 100) / 100)}</text></g>`)}
      ${[0, quantity / 2, quantity].map((at) => html`<text x=${x(at)} y=${HIGH - BELOW + 18} text-anchor="middle">${number(Math.round(at * 10) / 10)}</text>`)}
      <text x=${(LEFT + WIDE) / 2} y=${HIGH - 4} text-anchor="middle">${unit}</text>
      ${isCleared ? html`<rect class="accepted" x=${x(0)} y="12" width=${Math.max(0, x(accepted) - x(0))} height=${HIGH - BELOW - 12} />` : null}
      <polyline class="offer" points=${points.map(([at, worth]) => `${x(at)},${y(worth)}`).join(" ")} />
      ${isCleared ? html`<line class="at" x1=${LEFT} x2=${WIDE - 12} y1=${y(price)} y2=${y(price)} />` : null}
    </svg>
    <figcaption>${text}</figcaption>
  </figure>`;
}
