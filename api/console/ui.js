// What all views share: elements, hooks, numbers and times as text, errors, confirmation.

import { html, render, useEffect, useMemo, useRef, useState } from "./vendor/preact-htm.module.js";
import { MOST_ROWS } from "./api.js";

export { html, render, useEffect, useMemo, useRef, useState };

/**
 * What `load` gives for `inputs`, texts and numbers, and how it went.  It is loaded again when an input changes, which
 * gives up what is under way and shows nothing of before; when `again` is called; and `everyMs` after it was loaded, as
 * long as the page is seen.
 */
export function useLoaded(load, inputs, everyMs = null) {
  const key = JSON.stringify(inputs);
  const [state, setState] = useState({});
  const [turn, setTurn] = useState(0);
  const again = () => setTurn((old) => old + 1);
  useEffect(() => {
    const given = new AbortController();
    const settle = (news) => {
      if (!given.signal.aborted) setState((old) => ({ ...(old.key === key ? old : null), ...news, key }));
    };
    load(given.signal).then(
      (value) => settle({ value, error: null }),
      (error) => settle({ error }),
    );
    return () => given.abort();
  }, [key, turn]);
  useEffect(() => {
    if (everyMs === null || state.key !== key) return undefined;
    const due = () => {
      if (!document.hidden) again();
    };
    const timer = setTimeout(due, everyMs);
    document.addEventListener("visibilitychange", due);
    return () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", due);
    };
  }, [state, key, everyMs]);
  const own = state.key === key ? state : {};
  return { value: own.value ?? null, error: own.error ?? null, again };
}

const format = (least, most = least) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: least, maximumFractionDigits: most });
const MONEY = format(2);
const PLAIN = format(0, 3);
export const money = (value) => MONEY.format(value).replace(/^-(0\.00)$/, "$1");
export const number = (value) => PLAIN.format(value).replace(/^-0$/, "0");

const formats = new Map();
const zoned = (zone, options) => {
  const key = zone + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat("en-GB", { timeZone: zone, ...options }));
  return formats.get(key);
};
export const clock = (time, zone) => zoned(zone, { hour: "2-digit", minute: "2-digit" }).format(new Date(time));
export const moment = (time, zone) =>
  zoned(zone, { day: "2-digit", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" }).format(
    new Date(time),
  );

const BALANCED = new Set(["", "-", "123"]);
/** A bus with its phase, where it has one of its own. */
export const nodeName = (bus, phase) => (BALANCED.has(phase) ? bus : `${bus}.${phase}`);
/** An element with its phase and end, where these tell anything. */
export function elementName({ element, phase, end }) {
  const ofPhase = BALANCED.has(phase ?? "") ? "" : ` on phase ${phase}`;
  return `${element}${ofPhase}${["from", "to"].includes(end) ? ` (${end} end)` : ""}`;
}

export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${seconds % 60} s`;
  return `${seconds} s`;
}

/** An error with everything that was wrong. */
export function Trouble({ error }) {
  if (!error) return null;
  return html`<div class="trouble" role="alert">
    <p>${error.message}</p>
    ${error.faults?.length
      ? html`<ul>
          ${error.faults.map((fault) => html`<li>${fault.pointer ? `${fault.pointer}: ` : ""}${fault.detail}</li>`)}
        </ul>`
      : null}
  </div>`;
}

export const Waiting = ({ text = "Loading …" }) => html`<p class="waiting" role="status">${text}</p>`;

/** Says so where a list is not whole. */
export const Cut = ({ lists }) =>
  lists.some((list) => list?.isCut)
    ? html`<p class="quiet">Only the first ${number(MOST_ROWS)} rows are shown; over HTTP, and in the files, there are all.</p>`
    : null;

/** A button that asks once more before it does anything, with a text field where a reason is needed. */
export function Confirmed({ label, question, reason, act, className = "" }) {
  const [asks, setAsks] = useState(false);
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const dialog = useRef(null);
  useEffect(() => {
    if (asks && dialog.current && !dialog.current.open) dialog.current.showModal();
  }, [asks]);
  const close = () => dialog.current?.close(); // gives the focus back
  const closed = () => {
    setAsks(false);
    setText("");
  };
  const go = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await act(text);
    } finally {
      setBusy(false);
      close();
    }
  };
  return html`<button type="button" class=${className} onClick=${() => setAsks(true)}>${label}</button>
    ${asks
      ? html`<dialog ref=${dialog} onClose=${closed} aria-label=${label}>
          <form onSubmit=${go}>
            <p>${question}</p>
            ${reason
              ? html`<label>${reason}<input required maxlength="500" value=${text} onInput=${(e) => setText(e.target.value)} /></label>`
              : null}
            <div class="buttons">
              <button type="submit" class="primary" disabled=${busy}>${label}</button>
              <button type="button" onClick=${close}>${busy ? "Close" : "Cancel"}</button>
            </div>
          </form>
        </dialog>`
      : null}`;
}

const ROWS_AT_ONCE = 500;
/** Rows under headers, some hundred at first; a wide table scrolls by itself. */
export function Table({ caption, columns, rows, empty = "Nothing yet." }) {
  const [most, setMost] = useState(ROWS_AT_ONCE);
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table>
      <caption>${caption}</caption>
      <thead>
        <tr>
          ${columns.map((column) => html`<th scope="col" class=${column.right ? "right" : ""}>${column.name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.length
          ? rows.slice(0, most).map(
              (row) => html`<tr>
                ${columns.map((column) => html`<td class=${column.right ? "right" : ""}>${column.of(row)}</td>`)}
              </tr>`,
            )
          : html`<tr><td colspan=${columns.length}>${empty}</td></tr>`}
      </tbody>
    </table>
    ${rows.length > most
      ? html`<div class="buttons more"><button type="button" onClick=${() => setMost(most + ROWS_AT_ONCE)}>Show more of ${number(rows.length)} rows</button></div>`
      : null}
  </div>`;
}
