// For operators and auditors: who changed what, whether the chain is whole, and whether the service is well.

import { get } from "./api.js";
import { html, useLoaded, useState, Table, Trouble, Waiting, moment } from "./ui.js";

const PAGE = 200;

export function Audit({ who }) {
  if (!who.scopes.includes("audit:read")) return html`<p>This needs the key of an operator or an auditor.</p>`;
  return html`<h1>Audit and health</h1><${Health} /><${Chain} /><${Entries} />`;
}

function Health() {
  const { value, error, again } = useLoaded((signal) => get("readyz", signal), []);
  return html`<section aria-label="Health">
    <h2>Health</h2>
    <${Trouble} error=${error} />
    ${value ? html`<p><span class="state published">${value.status}</span> The database answers and jobs are taken.</p>` : error ? null : html`<${Waiting} />`}
    <div class="buttons"><button type="button" onClick=${again}>Ask again</button><a class="button" href="metrics">Metrics</a></div>
  </section>`;
}

function Chain() {
  const [found, setFound] = useState(null);
  const [error, setError] = useState(null);
  const verify = () => {
    setError(null);
    get("v1/audit/verify").then(setFound, setError);
  };
  return html`<section aria-label="Chain">
    <h2>Audit chain</h2>
    <div class="buttons"><button type="button" onClick=${verify}>Verify</button></div>
    <${Trouble} error=${error} />
    ${found
      ? html`<p role="status">${found.is_whole ? `Whole: ${found.entries} entries, head ${found.head.slice(0, 16)}…` : "Not whole:"}</p>
          ${found.faults.length ? html`<ul class="trouble">${found.faults.map((fault) => html`<li>${JSON.stringify(fault)}</li>`)}</ul>` : null}`
      : null}
  </section>`;
}

function Entries() {
  const [places, setPlaces] = useState([null]);
  const cursor = places.at(-1);
  const { value, error } = useLoaded(
    (signal) => get(`v1/audit?order=newest_first&limit=${PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, signal),
    [cursor],
  );
  if (error) return html`<${Trouble} error=${error} />`;
  if (!value) return html`<${Waiting} />`;
  return html`<${Table} caption="Changes" rows=${value.items} columns=${[
      { name: "No.", right: true, of: (row) => row.sequence },
      { name: "When (UTC)", of: (row) => moment(row.at, "UTC") },
      { name: "Who", of: (row) => row.actor },
      { name: "What", of: (row) => row.action },
      { name: "On", of: (row) => row.target },
      { name: "Was and is", of: (row) => html`<${Change} before=${row.before} after=${row.after} />` },
      { name: "Hash", of: (row) => html`<code>${row.hash.slice(0, 12)}…</code>` },
    ]} />
    <div class="buttons">
      <button type="button" disabled=${places.length === 1} onClick=${() => setPlaces(places.slice(0, -1))}>Later</button>
      <button type="button" disabled=${!value.next_cursor} onClick=${() => setPlaces([...places, value.next_cursor])}>Earlier</button>
    </div>`;
}

function Change({ before, after }) {
  if (!before && !after) return "–";
  return html`<details><summary>show</summary><pre>${JSON.stringify({ before, after }, null, 1)}</pre></details>`;
}
