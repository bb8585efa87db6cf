// Markets: their states and gates, and for an operator what moves them on.

import { all, get, post } from "./api.js";
import { html, useEffect, useLoaded, useState, Confirmed, Table, Trouble, Waiting, moment, span } from "./ui.js";

const REFRESH_MS = 5000;

function useNow() {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** What the clock will do to a gate. */
function gate(market, now) {
  const opens = new Date(market.gate_opens_at) - now;
  const closes = new Date(market.gate_closes_at) - now;
  if (market.state === "scheduled") return `gate opens in ${span(opens)}`;
  if (market.state === "open") return `gate closes in ${span(closes)}`;
  return `gate closed ${moment(market.gate_closes_at, market.market_timezone)}`;
}

export const State = ({ state }) => html`<span class=${`state ${state}`}>${state}</span>`;

export function Markets({ who }) {
  const now = useNow();
  const { value, error, again } = useLoaded(() => all("v1/markets"), [who.role, who.participant_id]);
  useEffect(() => {
    const timer = setInterval(again, REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  const rows = (value || []).slice().sort((a, b) => b.starts_at.localeCompare(a.starts_at) || a.name.localeCompare(b.name));
  return html`<h1>Markets</h1>
    <${Trouble} error=${error} />
    ${value
      ? html`<${Table}
          caption="Markets"
          empty="There is no market yet: an operator registers one over HTTP."
          rows=${rows}
          columns=${[
            { name: "Market", of: (row) => html`<a href=${`#/market/${row.id}`}>${row.name}</a>` },
            { name: "Feeder", of: (row) => row.feeder },
            { name: "Trade date", of: (row) => row.trade_date },
            { name: "State", of: (row) => html`<${State} state=${row.state} />` },
            { name: "Gate", of: (row) => gate(row, now) },
            { name: "Version", right: true, of: (row) => row.price_version ?? "–" },
          ]}
        />`
      : html`<${Waiting} />`}`;
}

const MOVES = {
  scheduled: [["open", "Open the gate", "Open the gate now, before its time?"]],
  open: [["close", "Close the gate", "Close the gate now? No bid is taken any more."]],
};

function Moves({ market, runs, published, act }) {
  const id = encodeURIComponent(market.id);
  const underWay = runs.find((run) => run.state === "queued" || run.state === "running");
  const latest = runs.find((run) => run.state === "succeeded");
  const newest = latest && latest.kind === "clearing" && latest.id !== published ? latest : null;
  const closed = !["scheduled", "open"].includes(market.state);
  return html`<div class="buttons" role="group" aria-label="Move the market on">
    ${(MOVES[market.state] || []).map(
      ([step, label, question]) =>
        html`<${Confirmed} key=${step} label=${label} question=${question} act=${() => act(() => post(`v1/markets/${id}/${step}`))} />`,
    )}
    ${closed && !underWay && !market.price_version
      ? html`<${Confirmed} key="run" label="Clear" question="Freeze the bids and clear the market?" act=${() => act(() => post(`v1/markets/${id}/runs`))} />`
      : null}
    ${closed && !underWay && market.price_version
      ? html`<${Confirmed} key="correct" label="Correct" question="Clear the market again, as a correction of what is published?" reason="Reason of the correction"
          act=${(reason) => act(() => post(`v1/markets/${id}/runs`, { correction_reason: reason }))} />`
      : null}
    ${underWay
      ? html`<${Confirmed} key="cancel" label="Cancel the run" question="End the run that is under way?" act=${() => act(() => post(`v1/runs/${encodeURIComponent(underWay.id)}/cancel`))} />`
      : null}
    ${newest && !underWay
      ? html`<${Confirmed} key="publish" className="primary" label="Publish" question=${`Publish run ${newest.number} for all, as version ${(market.price_version || 0) + 1}?`}
          act=${() => act(() => post(`v1/markets/${id}/publish`))} />`
      : null}
  </div>`;
}

function Runs({ runs }) {
  return html`<${Table}
    caption="Runs"
    empty="No run yet."
    rows=${runs}
    columns=${[
      { name: "Run", of: (run) => run.number },
      { name: "Kind", of: (run) => run.kind },
      { name: "State", of: (run) => html`<${State} state=${run.state} />` },
      { name: "What it does", of: (run) => run.reason || run.progress?.text || run.summary?.status || "–" },
      { name: "Correction", of: (run) => run.correction_reason || "–" },
    ]}
  />`;
}

/** The market above each of its views, and for an operator its runs, live. */
export function MarketHead({ id, who, view, views, children }) {
  const now = useNow();
  const [error, setError] = useState(null);
  const reads = who.scopes.includes("runs:read");
  const path = `v1/markets/${encodeURIComponent(id)}`;
  const { value, error: missing, again } = useLoaded(async () => {
    const [market, runs] = await Promise.all([get(path), reads ? all(`${path}/runs`) : []]);
    const published = reads && market.price_version ? (await get(`${path}/prices?limit=1`)).run_id : null;
    return { market, published, runs: runs.sort((a, b) => b.number - a.number) };
  }, [id, who.role]);
  const isBusy = value?.runs.some((run) => run.state === "queued" || run.state === "running");
  useEffect(() => {
    const timer = setInterval(again, isBusy ? 500 : REFRESH_MS);
    return () => clearInterval(timer);
  }, [isBusy]);
  if (!value) return missing ? html`<${Trouble} error=${missing} />` : html`<${Waiting} />`;
  const { market, published, runs } = value;
  const act = async (work) => {
    setError(null);
    try {
      await work();
    } catch (refused) {
      setError(refused);
    }
    again();
  };
  return html`<div class="heading">
      <h1>${market.name}</h1>
      <${State} state=${market.state} />
      <span class="quiet">${market.feeder} · ${market.trade_date} · ${gate(market, now)}${market.price_version ? ` · version ${market.price_version}` : ""}</span>
    </div>
    <${Trouble} error=${error || missing} />
    ${who.scopes.includes("markets:write") ? html`<${Moves} ...${{ market, runs, published, act }} />` : null}
    ${reads && runs.length ? html`<details open=${isBusy}><summary>Runs</summary><${Runs} runs=${runs} /></details>` : null}
    <nav class="tabs" aria-label="Views of the market">
      ${Object.entries(views).map(
        ([name, label]) => html`<a href=${`#/market/${encodeURIComponent(id)}/${name}`} aria-current=${name === view ? "page" : null}>${label}</a>`,
      )}
    </nav>
    ${children({ market, again })}`;
}
