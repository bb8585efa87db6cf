// An aggregator's own resources, bids, awards and statement; for an operator or auditor everyone's.

import { all, get, newName, post } from "./api.js";
import { html, useEffect, useLoaded, useMemo, useRef, useState, Table, Trouble, Waiting, clock, moment, money, number } from "./ui.js";
import { Curve } from "./curve.js";

const FAULT = /^\/bids\/(\d+)(?:\/segments\/(\d+))?(?:\/(.*))?$/;

export function Bids({ market, again, who }) {
  const id = encodeURIComponent(market.id);
  const loaded = useLoaded(async () => {
    const version = `price_version=${market.price_version}`;
    const published = market.price_version !== null;
    const [participants, resources, bids, awards, segments, statement] = await Promise.all([
      who.scopes.includes("participants:read") ? all("v1/participants") : [],
      all("v1/resources"),
      all(`v1/bids?market_id=${id}&state=live`),
      published ? all(`v1/markets/${id}/awards?${version}`) : [],
      published ? all(`v1/markets/${id}/awards?of=segments&${version}`) : [],
      published ? all(`v1/markets/${id}/statements?${version}`) : [],
    ]);
    return { resources: resources.filter((one) => one.feeder === market.feeder), bids, awards, segments, statement, names: new Map(participants.map((one) => [one.id, one.name])) };
  }, [market.id, market.price_version, market.state, who.participant_id]);
  const { value, error } = loaded;
  return html`<section aria-label="Bids and awards">
    <${Trouble} error=${error} />
    ${who.scopes.includes("bids:write") && value
      ? html`<${Upload} market=${market} resources=${value.resources} placed=${() => {
          loaded.again();
          again();
        }} />`
      : null}
    ${value ? html`<${Holdings} market=${market} ...${value} />` : error ? null : html`<${Waiting} />`}
  </section>`;
}

function Holdings({ market, names, resources, bids, awards, segments, statement }) {
  const [name, setName] = useState(null);
  const named = useMemo(() => new Map(resources.map((one) => [one.id, one.name])), [resources]);
  const chosen = resources.find((one) => one.name === name) || resources.find((one) => bids.some((bid) => bid.resource_id === one.id)) || resources[0];
  const zone = market.market_timezone;
  return html`${chosen
      ? html`<div class="controls">
            <label>Resource
              <select value=${chosen.name} onChange=${(e) => setName(e.target.value)}>${resources.map((one) => html`<option value=${one.name}>${one.name}</option>`)}</select>
            </label>
            <span class="quiet">${chosen.kind} at bus ${chosen.bus}, ${number(chosen.p_min_kw)} to ${number(chosen.p_max_kw)} kW</span>
          </div>
          <${Own} key=${chosen.id} market=${market} resource=${chosen} bids=${bids.filter((bid) => bid.resource_id === chosen.id)}
            awards=${awards.filter((row) => row.resource === chosen.name)} segments=${segments.filter((row) => row.resource === chosen.name)} />`
      : html`<p class="quiet">No resource is registered on ${market.feeder}.</p>`}
    <${Table} caption="Bids that stand" empty="No bid stands in this market." rows=${bids} columns=${[
      { name: "Resource", of: (bid) => named.get(bid.resource_id) ?? bid.resource_id },
      { name: "Product", of: (bid) => bid.product },
      { name: "From", of: (bid) => clock(bid.interval_start, zone) },
      { name: "To", of: (bid) => clock(bid.interval_end, zone) },
      { name: "Terms", of: (bid) => terms(bid, market.currency) },
      { name: "Version", right: true, of: (bid) => bid.version },
      { name: "Received", of: (bid) => moment(bid.received_at, zone) },
    ]} />
    ${market.price_version
      ? html`<${Table} caption="Statement" empty="Nothing is owed." rows=${statement} columns=${[
          ...(new Set(statement.map((row) => row.participant)).size > 1 ? [{ name: "Participant", of: (row) => names.get(row.participant) ?? row.participant }] : []),
          { name: "Resource", of: (row) => row.resource },
          { name: "Product", of: (row) => row.product },
          { name: "Quantity", right: true, of: (row) => `${number(row.quantity)} ${row.unit}` },
          { name: `Amount [${market.currency}]`, right: true, of: (row) => row.amount },
        ]} />`
      : html`<p class="quiet">Awards and statements follow when the market is published.</p>`}`;
}

function terms(bid, currency) {
  if (bid.terms.segments) {
    const parts = bid.terms.segments.map((part) => `${number(part.quantity_kw ?? part.quantity_kvar)} at ${number(part.price_usd_per_mwh ?? part.price_usd_per_mvarh)}`);
    return `${bid.terms.side} ${parts.join(", ")} ${currency}`;
  }
  return Object.entries(bid.terms)
    .filter(([, value]) => value !== null && typeof value !== "object")
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`)
    .join(", ");
}

function Own({ market, resource, bids, awards, segments }) {
  const [interval, setInterval] = useState(0);
  const start = new Date(market.starts_at).getTime();
  const time = new Date(start + interval * market.interval_minutes * 60000).toISOString();
  const standing = bids.filter((bid) => bid.terms.segments && bid.product === "energy" && bid.interval_start <= time.replace(".000", "") && time.replace(".000", "") < bid.interval_end);
  const award = awards.find((row) => row.interval === interval);
  return html`<div class="controls">
      <div class="time">
        <input type="range" aria-label="Interval" min="0" max=${market.intervals - 1} value=${interval} onInput=${(e) => setInterval(Number(e.target.value))} />
        <output>${clock(time, market.market_timezone)}</output>
      </div>
    </div>
    ${standing.length
      ? standing.map((bid) => html`<${Curve} key=${bid.id} bid=${bid} award=${award} currency=${market.currency} name=${resource.name}
          accepted=${segments.filter((row) => row.interval === interval && row.side === bid.terms.side).reduce((sum, row) => sum + row.award_kw, 0)} />`)
      : html`<p class="quiet">No curve of ${resource.name} stands in this interval.</p>`}
    ${award
      ? html`<p>Awarded <b class="award">${number(award.net_injection_kw)} kW</b> into the grid at ${money(award.lmp_usd_per_mwh)} ${market.currency}/MWh.</p>`
      : null}`;
}

function Upload({ market, resources, placed }) {
  const [faults, setFaults] = useState([]);
  const [receipt, setReceipt] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const input = useRef(null);
  const go = async (event) => {
    event.preventDefault();
    const file = input.current.files[0];
    if (!file) return;
    setBusy(true);
    setFaults([]);
    setReceipt(null);
    setError(null);
    try {
      const text = await file.text();
      const { bids, lines } = await post(`console/markets/${encodeURIComponent(market.id)}/bid-file`, { text });
      try {
        setReceipt(await post("v1/bids/batch", { mode: "atomic", bids }, { "Idempotency-Key": newName() }));
        input.current.value = "";
        placed();
      } catch (refused) {
        if (!refused.faults?.length) throw refused;
        setFaults(refused.faults.map((fault) => toldByLine(fault, lines)));
      }
    } catch (refused) {
      if (refused.code && refused.faults?.length) setFaults(refused.faults.map((fault) => fault.detail));
      else setError(refused);
    } finally {
      setBusy(false);
    }
  };
  const open = market.state === "open";
  return html`<form class="upload" onSubmit=${go}>
    <h2>Place bids</h2>
    <p class="quiet">A CSV table as in a case folder: resource, interval, side, segment, quantity_kw, price_usd_per_mwh; or reactive bids, blocks or stores. All rows are placed, or none.</p>
    <div class="controls">
      <label>Table of bids <input ref=${input} type="file" accept=".csv,text/csv" required disabled=${!open} /></label>
      <button type="submit" class="primary" disabled=${!open || busy}>${busy ? "Placing …" : "Upload"}</button>
    </div>
    ${open ? null : html`<p class="quiet">The gate is not open.</p>`}
    <${Trouble} error=${error} />
    ${faults.length
      ? html`<div class="trouble" role="alert"><p>No bid was placed:</p><ul>${faults.map((fault) => html`<li>${fault}</li>`)}</ul></div>`
      : null}
    ${receipt
      ? html`<p role="status" class="receipt">${receipt.items.length} bids placed: receipt <code>${receipt.submission_id}</code>, number ${receipt.sequence}, ${moment(receipt.received_at, market.market_timezone)}.</p>`
      : null}
  </form>`;
}

/** A fault of a bid, at the line of the table where it comes from. */
export function toldByLine(fault, lines) {
  const found = FAULT.exec(fault.pointer);
  if (!found) return `${fault.pointer}: ${fault.detail}`;
  const own = lines[Number(found[1])] || [];
  const line = own[Number(found[2] ?? 0)] ?? own[0];
  return `line ${line}${found[3] ? `, ${found[3]}` : ""}: ${fault.detail}`;
}
