// Markets: their states and gates, and for an operator what moves them on.

import { all, get, post } from "./api.js";
import { html, useEffect, useLoaded, useState, Confirmed, Cut, Table, Trouble, Waiting, moment, span } from "./ui.js";

const REFRESH_MS = 5000;
const BUSY_MS = 500;
/** How far the clocks of a browser and the service may be apart. */
const SKEW_MS = 60000;

/** What the clock will do to a gate, or has done. */
function Gate({ market }) {
  const [now, setNow] = useState(Date.now());
  const moves = market.state === "scheduled" || market.state === "open";
  useEffect(() => {
    if (!moves) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [moves]);
  const closes = new Date(market.gate_closes_at);
  if (market.state === "scheduled") return `gate opens in ${span(new Date(market.gate_opens_at) - now)}`;
  if (market.state === "open") return `gate closes in ${span(closes - now)}`;
  return closes - now > SKEW_MS ? "gate closed early" : `gate closed ${moment(closes, market.market_timezone)}`;
}

export const State = ({ state }) => html`<span class=${`state ${state}`}>${state}</span>`;

export function Markets({ who }) {
  const { value, error } = useLoaded((signal) => all("v1/markets", signal), [who.key_id], REFRESH_MS);
  const rows = (value || []).slice().sort((a, b) => b.starts_at.localeCompare(a.starts_at) || a.name.localeCompare(b.name));
  return html`<h1>Markets</h1>
    <${Trouble} error=${error} />
    <${Cut} lists=${[value]} />
    ${value
      ? html`<${Table}
          caption="Markets"
          empty="There is no market yet: an operator registers one over HTTP."
          rows=${rows}
          columns=${[
            { name: "Market", of: (row) => html`<a href=${`#/market/${row.id}`}>${row.name}</a>` },
            { name: "State", of: (row) => html`<${State} state=${row.state} />` },
            { name: "Gate", of: (row) => html`<${Gate} market=${row} />` },
            { name: "Trade date", of: (row) => row.trade_date },
            { name: "Feeder", of: (row) => row.feeder },
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

/** The market above each of its views, and for an operator its runs as they go. */
export function MarketHead({ id, who, view, views, children }) {
  const [error, setError] = useState(null);
  const reads = who.scopes.includes("runs:read");
  const path = `v1/markets/${encodeURIComponent(id)}`;
  const [isBusy, setBusy] = useState(false);
  const { value, error: missing, again } = useLoaded(
    async (signal) => {
      const [market, runs] = await Promise.all([get(path, signal), reads ? all(`${path}/runs`, signal) : []]);
      const published = reads && market.price_version ? (await get(`${path}/prices?limit=1`, signal)).run_id : null;
      setBusy(runs.some((run) => run.state === "queued" || run.state === "running"));
      return { market, published, runs: runs.sort((a, b) => b.number - a.number) };
    },
    [id, who.key_id],
    isBusy ? BUSY_MS : REFRESH_MS,
  );
  if (!value) return missing ? html`<${Trouble} error=${missing} />` : html`<${Waiting} />`;
  const { market, published, runs } = value;
  const failed = runs[0]?.state === "failed" ? runs[0] : null;
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
      <span class="quiet">${market.feeder} · ${market.trade_date} · <${Gate} market=${market} />${market.price_version ? ` · version ${market.price_version}` : ""}</span>
    </div>
    <${Trouble} error=${error || missing} />
    ${failed ? html`<div class="trouble"><p>Run ${failed.number} failed: ${failed.reason}</p></div>` : null}
    ${who.scopes.includes("markets:write") ? html`<${Moves} ...${{ market, runs, published, act }} />` : null}
    ${reads && runs.length ? html`<details open=${isBusy}><summary>Runs</summary><${Runs} runs=${runs} /></details>` : null}
    <nav class="tabs" aria-label="Views of the market">
      ${Object.entries(views).map(
        ([name, label]) => html`<a href=${`#/market/${encodeURIComponent(id)}/${name}`} aria-current=${name === view ? "page" : null}>${label}</a>`,
      )}
    </nav>
    ${children({ market, again })}`;
}
