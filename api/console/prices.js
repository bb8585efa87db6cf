// Prices as a table and as files, their parts, their duration curve, and the limits that earn the most rent.

import uPlot from "./vendor/uPlot.esm.js";
import { all } from "./api.js";
import { html, useEffect, useLoaded, useMemo, useRef, useState, Cut, Table, Trouble, Waiting, clock, elementName, money, number } from "./ui.js";
import { PARTS } from "./colours.js";
import { Stack, chartOptions, useColours } from "./stack.js";

export function Prices({ market, who }) {
  const [seen, setSeen] = useState({ bus: "", phase: null, interval: 0 }); // outlives a version
  const see = (news) => setSeen((old) => ({ ...old, ...news }));
  if (!market.price_version) return html`<p class="waiting">Nothing is published yet.</p>`;
  return html`<${Published} ...${{ market, who, seen, see }} />`;
}

function Published({ market, who, seen, see }) {
  const { interval } = seen;
  const path = `v1/markets/${encodeURIComponent(market.id)}`;
  const version = `price_version=${market.price_version}`;
  const first = useLoaded(
    (signal) => all(`${path}/prices?${version}&interval_start=${encodeURIComponent(market.starts_at)}`, signal),
    [path, version],
  );
  const limits = useLoaded((signal) => all(`${path}/limits?${version}`, signal), [path, version, who.key_id]);
  const buses = useMemo(() => [...new Set((first.value || []).map((row) => row.bus))], [first.value]);
  const chosen = buses.includes(seen.bus) ? seen.bus : dearest(first.value || []);
  const options = useMemo(() => buses.map((one) => html`<option value=${one}>${one}</option>`), [buses]);
  const prices = useLoaded(
    async (signal) => (chosen === undefined ? null : all(`${path}/prices?${version}&bus=${encodeURIComponent(chosen)}`, signal)),
    [path, version, chosen ?? null],
  );
  const rows = prices.value || [];
  const phases = [...new Set(rows.map((row) => row.phase))];
  const own = rows.filter((row) => row.phase === (phases.includes(seen.phase) ? seen.phase : phases[0]));
  const files = ["csv", "parquet", "oasis"];
  const trouble = first.error || limits.error || prices.error;
  return html`<section aria-label="Prices">
    <${Trouble} error=${trouble} />
    <${Cut} lists=${[first.value, limits.value, prices.value]} />
    <div class="controls">
      <label>Bus
        <select value=${chosen} onChange=${(e) => see({ bus: e.target.value })}>${options}</select>
      </label>
      ${phases.length > 1
        ? html`<label>Phase <select value=${own[0]?.phase} onChange=${(e) => see({ phase: e.target.value })}>${phases.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`
        : null}
      <div class="buttons" role="group" aria-label="Download all prices">
        ${files.map((form) => html`<a class="button" href=${`${path}/prices?format=${form}&${version}`} download=${`${market.name} ${market.trade_date}.${form === "parquet" ? "parquet" : "csv"}`}>${form === "oasis" ? "CSV as OASIS" : form.toUpperCase()}</a>`)}
      </div>
    </div>
    ${own.length
      ? html`<${Stack} label=${`Price of bus ${chosen} by part`} starts=${own.map((row) => row.interval_start)} zone=${market.market_timezone}
            unit=${`${market.currency}/MWh`} interval=${Math.min(interval, own.length - 1)} choose=${(found) => see({ interval: found })} line=${own.map((row) => row.price_usd_per_mwh)}
            series=${Object.keys(PARTS).map((name) => ({ name, colour: PARTS[name], values: own.map((row) => row[name]) })).filter((part) => part.values.some((value) => Math.abs(value) >= 0.005))} />
          <h2>Duration curve of bus ${chosen}</h2>
          <${Duration} prices=${own.map((row) => row.price_usd_per_mwh)} unit=${`${market.currency}/MWh`} label=${`Prices of bus ${chosen}, the highest first`} />
          <${Table} caption=${`Prices of bus ${chosen}`} rows=${own} columns=${[
            { name: "Begins", of: (row) => clock(row.interval_start, market.market_timezone) },
            { name: `Price [${market.currency}/MWh]`, right: true, of: (row) => money(row.price_usd_per_mwh) },
            ...Object.keys(PARTS).map((name) => ({ name, right: true, of: (row) => money(row[name]) })),
            { name: `Reactive [${market.currency}/MVArh]`, right: true, of: (row) => money(row.q_price_usd_per_mvarh) },
          ]} />`
      : trouble
        ? null
        : html`<${Waiting} />`}
    ${limits.value
      ? html`<${Table} caption="Binding limits by rent" empty="No limit binds on this day." rows=${ranked(limits.value, market)} columns=${[
          { name: "Limit", of: (row) => row.name },
          { name: "Part", of: (row) => row.component },
          { name: "Size", right: true, of: (row) => row.size },
          { name: "Intervals", right: true, of: (row) => row.intervals.size },
          { name: `Rent [${market.currency}]`, right: true, of: (row) => money(row.rent) },
        ]} />`
      : trouble
        ? null
        : html`<${Waiting} />`}
  </section>`;
}

/** The bus that has most to tell: not the substation, where the price has one part. */
const dearest = (rows) => rows.reduce((best, row) => (best && best.price_usd_per_mwh >= row.price_usd_per_mwh ? best : row), undefined)?.bus;

/** Limits with what their shadow prices times their sizes come to over the day, the dearest first. */
export function ranked(limits, market) {
  const hours = market.interval_minutes / 60;
  const found = new Map();
  for (const limit of limits) {
    const name = elementName(limit);
    const key = `${name} ${limit.component} ${limit.limit}`;
    const row = found.get(key) || { name, component: limit.component, size: `${number(limit.limit)} ${limit.unit}`, intervals: new Set(), rent: 0 };
    row.intervals.add(limit.interval);
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
