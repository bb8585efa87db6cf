// Prices as a table and as files, their parts, their duration curve, and the limits that earn the most rent.

import uPlot from "./vendor/uPlot.esm.js";
import { all, get } from "./api.js";
import { html, useEffect, useLoaded, useMemo, useRef, useState, Table, Trouble, Waiting, clock, elementName, money, number } from "./ui.js";
import { PARTS } from "./colours.js";
import { Stack, chartOptions, useColours } from "./stack.js";

export function Prices({ market }) {
  if (!market.price_version) return html`<p class="waiting">Nothing is published yet.</p>`;
  return html`<${Published} key=${`${market.id} ${market.price_version}`} market=${market} />`;
}

function Published({ market }) {
  const [bus, setBus] = useState("");
  const [interval, setInterval] = useState(0);
  const id = encodeURIComponent(market.id);
  const version = `price_version=${market.price_version}`;
  const picture = useLoaded(() => get(`console/markets/${id}/picture?${version}`), []);
  const limits = useLoaded(() => all(`v1/markets/${id}/limits?${version}`), []);
  const buses = useMemo(() => [...new Set(picture.value?.node.bus || [])], [picture.value]);
  const chosen = bus || buses[0];
  const prices = useLoaded(
    async () => (chosen ? all(`v1/markets/${id}/prices?${version}&bus=${encodeURIComponent(chosen)}`) : []),
    [chosen],
  );
  const rows = prices.value || [];
  const phases = [...new Set(rows.map((row) => row.phase))];
  const [phase, setPhase] = useState(null);
  const own = rows.filter((row) => row.phase === (phases.includes(phase) ? phase : phases[0]));
  const files = ["csv", "parquet", "oasis"];
  const trouble = picture.error || limits.error || prices.error;
  return html`<section aria-label="Prices">
    <${Trouble} error=${trouble} />
    <div class="controls">
      <label>Bus
        <select value=${chosen} onChange=${(e) => setBus(e.target.value)}>
          ${buses.map((one) => html`<option value=${one}>${one}</option>`)}
        </select>
      </label>
      ${phases.length > 1
        ? html`<label>Phase <select value=${own[0]?.phase} onChange=${(e) => setPhase(e.target.value)}>${phases.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`
        : null}
      <div class="buttons" role="group" aria-label="Download all prices">
        ${files.map((form) => html`<a class="button" href=${`v1/markets/${id}/prices?format=${form}&${version}`} download=${`${market.name} ${market.trade_date}.${form === "parquet" ? "parquet" : "csv"}`}>${form === "oasis" ? "CSV as OASIS" : form.toUpperCase()}</a>`)}
      </div>
    </div>
    ${own.length
      ? html`<${Stack} label=${`Price of bus ${chosen} by part`} starts=${own.map((row) => row.interval_start)} zone=${market.market_timezone}
            unit=${`${market.currency}/MWh`} interval=${Math.min(interval, own.length - 1)} choose=${setInterval} line=${own.map((row) => row.price_usd_per_mwh)}
            series=${Object.keys(PARTS).map((name) => ({ name, colour: PARTS[name], values: own.map((row) => row[name]) })).filter((part) => part.values.some((value) => Math.abs(value) >= 0.005))} />
          <h2>Duration curve of bus ${chosen}</h2>
          <${Duration} prices=${own.map((row) => row.price_usd_per_mwh)} unit=${`${market.currency}/MWh`} label=${`Prices of bus ${chosen}, the highest first`} />
          <${Table} caption=${`Prices of bus ${chosen}`} rows=${own} columns=${[
            { name: "Begins", of: (row) => clock(row.interval_start, market.market_timezone) },
            { name: `Price [${market.currency}/MWh]`, right: true, of: (row) => money(row.price_usd_per_mwh) },
            ...Object.keys(PARTS).map((name) => ({ name, right: true, of: (row) => money(row[name]) })),
            { name: `Reactive [${market.currency}/MVArh]`, right: true, of: (row) => money(row.q_price_usd_per_mvarh) },
          ]} />`
      : html`<${Waiting} />`}
    <${Table} caption="Binding limits by rent" empty="No limit binds on this day." rows=${ranked(limits.value || [], market)} columns=${[
      { name: "Limit", of: (row) => row.name },
      { name: "Part", of: (row) => row.component },
      { name: "Size", right: true, of: (row) => row.size },
      { name: "Intervals", right: true, of: (row) => row.intervals },
      { name: `Rent [${market.currency}]`, right: true, of: (row) => money(row.rent) },
    ]} />
  </section>`;
}

/** Limits with what their shadow prices times their sizes come to over the day, the dearest first. */
export function ranked(limits, market) {
  const hours = market.interval_minutes / 60;
  const found = new Map();
  for (const limit of limits) {
    const name = elementName(limit);
    const key = `${name} ${limit.component} ${limit.limit}`;
    const row = found.get(key) || { name, component: limit.component, size: `${number(limit.limit)} ${limit.unit}`, intervals: 0, rent: 0 };
    row.intervals += 1;
    row.rent += Math.abs(limit.shadow_price_usd_per_h * limit.limit) * hours;
    found.set(key, row);
  }
  return [...found.values()].sort((a, b) => b.rent - a.rent);
}

function Duration({ prices, unit, label }) {
  const box = useRef(null);
  const turn = useColours();
  useEffect(() => {
    const sorted = prices.slice().sort((a, b) => b - a);
    const share = [...sorted.map((_, i) => (100 * i) / sorted.length), 100];
    const options = chartOptions(box.current, { unit, time: false, height: 180 });
    options.axes[0] = { ...options.axes[0], label: "share of the day [%]", labelSize: 18 };
    const chart = new uPlot(
      { ...options, series: [{}, { stroke: PARTS.energy, width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }] },
      [share, [...sorted, sorted.at(-1)]],
      box.current,
    );
    return () => chart.destroy();
  }, [prices.join(), turn]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label}></div>`;
}
