// A bid curve with what was accepted of it and the price where it stands.

import { html, money, number } from "./ui.js";

const WIDE = 520;
const HIGH = 240;
const LEFT = 64;
const BELOW = 40;

export function Curve({ bid, award, accepted, currency, name }) {
  const points = [];
  let quantity = 0;
  for (const part of bid.terms.segments) {
    const end = part.price_end_usd_per_mwh ?? part.price_usd_per_mwh;
    points.push([quantity, part.price_usd_per_mwh], [quantity + part.quantity_kw, end]);
    quantity += part.quantity_kw;
  }
  const price = award?.lmp_usd_per_mwh;
  const prices = [...points.map((point) => point[1]), 0, ...(price === undefined ? [] : [price])];
  const low = Math.min(...prices);
  const high = Math.max(...prices, low + 1);
  const x = (kw) => LEFT + ((WIDE - LEFT - 12) * kw) / Math.max(quantity, 1e-9);
  const y = (at) => 12 + (HIGH - BELOW - 12) * (1 - (at - low) / (high - low));
  const text = `${bid.terms.side} curve of ${name}${award ? `: ${number(accepted)} of ${number(quantity)} kW accepted at ${money(price)} ${currency}/MWh` : ""}`;
  return html`<figure class="curve">
    <svg viewBox="0 0 ${WIDE} ${HIGH}" role="img" aria-label=${text}>
      ${[low, (low + high) / 2, high].map((at) => html`<g><line class="grid" x1=${LEFT} x2=${WIDE - 12} y1=${y(at)} y2=${y(at)} /><text x=${LEFT - 8} y=${y(at) + 4} text-anchor="end">${number(Math.round(at * 100) / 100)}</text></g>`)}
      ${[0, quantity / 2, quantity].map((kw) => html`<text x=${x(kw)} y=${HIGH - BELOW + 18} text-anchor="middle">${number(Math.round(kw * 10) / 10)}</text>`)}
      <text x=${(LEFT + WIDE) / 2} y=${HIGH - 4} text-anchor="middle">kW</text>
      ${award ? html`<rect class="accepted" x=${x(0)} y="12" width=${Math.max(0, x(accepted) - x(0))} height=${HIGH - BELOW - 12} />` : null}
      <polyline class="offer" points=${points.map(([kw, at]) => `${x(kw)},${y(at)}`).join(" ")} />
      ${award ? html`<line class="at" x1=${LEFT} x2=${WIDE - 12} y1=${y(price)} y2=${y(price)} />` : null}
    </svg>
    <figcaption>${text}${award ? "" : `, prices in ${currency}/MWh; not cleared yet`}</figcaption>
  </figure>`;
}
