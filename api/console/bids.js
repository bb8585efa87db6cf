// An aggregator's own resources, bids, awards and statement; for an operator or auditor everyone's.

import { Refused, all, newName, post, remove, tagged } from "./api.js";
import { html, useEffect, useLoaded, useMemo, useRef, useState, Confirmed, Cut, Table, Trouble, Waiting, clock, moment, money, number } from "./ui.js";
import { Curve } from "./curve.js";

const SERVICES = new Set(["capacity_up", "capacity_down", "var_up", "var_down"]);
/** Tables of what was accepted of bids, with the products that they are of. */
const AWARDS_OF = {
  segments: ["energy"],
  reactive_segments: ["reactive"],
  blocks: ["block"],
  stores: ["store", "deadline_load", "energy_band"],
  services: [...SERVICES],
};
const ofResource = (tables, name) => Object.fromEntries(Object.entries(tables).map(([key, rows]) => [key, rows.filter((row) => row.resource === name)]));
const MOST_BIDS = 1000;
const MOST_FAULTS = 200;
const PROFILE_FILE = "store_profile.csv";
const IN_DOUBT = "It is not known whether the bids were placed: upload the same table again before you close this page, and nothing is placed twice.";
const FAULT = /^\/bids\/(\d+)(?:\/segments\/(\d+))?(?:\/(.*))?$/;

export function Bids({ market, again, who }) {
  const id = encodeURIComponent(market.id);
  const [seen, setSeen] = useState({ name: null, interval: 0 }); // outlives a version
  const see = (news) => setSeen((old) => ({ ...old, ...news }));
  const bidsHere = who.scopes.includes("bids:write");
  const loaded = useLoaded(
    async (signal) => {
      const of = (name) => `v1/markets/${id}/${name}${name.includes("?") ? "&" : "?"}price_version=${market.price_version}`;
      const published = market.price_version !== null;
      const [participants, resources, bids] = await Promise.all([
        who.scopes.includes("participants:read") ? all("v1/participants", signal) : [],
        all("v1/resources", signal),
        all(`v1/bids?market_id=${id}&state=live`, signal),
      ]);
      const products = new Set(bids.map((bid) => bid.product));
      const parts = Object.entries(AWARDS_OF).map(async ([name, own]) => [
        name,
        published && own.some((product) => products.has(product)) ? await all(of(`awards?of=${name}`), signal) : [],
      ]);
      const [awards, awardsOf, statement, delta] = await Promise.all([
        published ? all(of("awards"), signal) : [],
        Promise.all(parts),
        published ? all(of("statements"), signal) : [],
        market.price_version > 1 ? all(of("statements/delta"), signal) : [],
      ]);
      const own = resources.filter((one) => one.feeder === market.feeder);
      const names = new Map(participants.map((one) => [one.id, one.name]));
      const lists = [participants, resources, bids, awards, statement, delta, ...awardsOf.map(([, rows]) => rows)];
      return { resources: own, names, bids, awards, awardsOf: Object.fromEntries(awardsOf), statement, delta, lists };
    },
    [market.id, market.price_version, who.key_id],
  );
  const { value, error } = loaded;
  const state = useRef(market.state);
  useEffect(() => {
    if (state.current !== market.state) loaded.again(); // bids that came in until the gate closed
    state.current = market.state;
  }, [market.state]);
  const renew = () => {
    loaded.again();
    again();
  };
  return html`<section aria-label="Bids and awards">
    <${Trouble} error=${error} />
    ${bidsHere ? html`<${Upload} ...${{ market, who, renew }} />` : null}
    ${value
      ? html`<${Cut} lists=${value.lists} /><${Holdings} ...${{ market, seen, see }} ...${value} renew=${bidsHere && market.state === "open" ? renew : null} />`
      : error
        ? null
        : html`<${Waiting} />`}
  </section>`;
}

/** What is registered, bid, awarded and owed; with `renew` bids may be withdrawn, and are then asked for again. */
function Holdings({ market, seen, see, names, resources, bids, awards, awardsOf, statement, delta, renew }) {
  const named = useMemo(() => new Map(resources.map((one) => [one.id, one.name])), [resources]);
  const chosen = resources.find((one) => one.name === seen.name) || resources.find((one) => bids.some((bid) => bid.resource_id === one.id)) || resources[0];
  const zone = market.market_timezone;
  const owed = [
    ...(new Set(statement.map((row) => row.participant)).size > 1 ? [{ name: "Participant", of: (row) => names.get(row.participant) ?? row.participant }] : []),
    { name: "Resource", of: (row) => row.resource },
    { name: "Product", of: (row) => row.product },
    { name: "Quantity", right: true, of: (row) => `${number(row.quantity)} ${row.unit}` },
    { name: `Amount [${market.currency}]`, right: true, of: (row) => row.amount },
  ];
  return html`${chosen
      ? html`<div class="controls">
            <label>Resource
              <select value=${chosen.name} onChange=${(e) => see({ name: e.target.value })}>${resources.map((one) => html`<option value=${one.name}>${one.name}</option>`)}</select>
            </label>
            <span class="quiet">${chosen.kind} at bus ${chosen.bus}, ${number(chosen.p_min_kw)} to ${number(chosen.p_max_kw)} kW</span>
          </div>
          <${Own} market=${market} resource=${chosen} interval=${seen.interval} choose=${(interval) => see({ interval })} bids=${bids.filter((bid) => bid.resource_id === chosen.id)}
            awards=${awards.filter((row) => row.resource === chosen.name)} of=${ofResource(awardsOf, chosen.name)} />`
      : html`<p class="quiet">No resource is registered on ${market.feeder}.</p>`}
    ${renew && bids.length ? html`<${Withdrawal} label="Withdraw all" bids=${bids} renew=${renew} />` : null}
    <${Table} caption="Bids that stand" empty="No bid stands in this market." rows=${bids} columns=${[
      { name: "Resource", of: (bid) => named.get(bid.resource_id) ?? bid.resource_id },
      { name: "Product", of: (bid) => bid.product },
      { name: "From", of: (bid) => clock(bid.interval_start, zone) },
      { name: "To", of: (bid) => clock(bid.interval_end, zone) },
      { name: "Terms", of: (bid) => terms(bid, market.currency) },
      { name: "Version", right: true, of: (bid) => bid.version },
      { name: "Received", of: (bid) => moment(bid.received_at, zone) },
      ...(renew ? [{ name: "", of: (bid) => html`<${Withdrawal} key=${bid.id} label="Withdraw" bids=${[bid]} renew=${renew} />` }] : []),
    ]} />
    ${market.price_version
      ? html`<${Table} caption="Statement" empty="Nothing is owed." rows=${statement} columns=${owed} />`
      : html`<p class="quiet">Awards and statements follow when the market is published.</p>`}
    ${market.price_version > 1
      ? html`<${Table} caption=${`What version ${market.price_version} changes`} empty="It changes nothing of the statement before." rows=${delta} columns=${owed} />`
      : null}`;
}

/** A button that withdraws bids one after the other, each as long as it is the version that is shown. */
function Withdrawal({ label, bids, renew }) {
  const [error, setError] = useState(null);
  const withdraw = async () => {
    setError(null);
    try {
      for (const bid of bids) {
        const path = `v1/bids/${encodeURIComponent(bid.id)}`;
        const [tag, newest] = await tagged(path);
        if (newest.version !== bid.version) throw new Refused(412, { detail: "The bid has changed since it was read." });
        await remove(path, { "If-Match": tag, "Idempotency-Key": newName() });
        unanswered.clear(); // what is withdrawn may be placed anew
      }
    } catch (refused) {
      setError(refused);
    }
    renew();
  };
  return html`<${Confirmed} label=${label} question=${`Withdraw ${bids.length === 1 ? "this bid" : `all ${bids.length} bids`}?`} act=${withdraw} />
    <${Trouble} error=${error} />`;
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

/** Segments of an offer with the prices where each begins and ends, by the units in their fields' names. */
const partsOf = (offer, unit, priced) =>
  offer.segments.map((part) => {
    const begins = part[`price_${priced}`];
    return { quantity: part[`quantity_${unit}`], begins, ends: part[`price_end_${priced}`] ?? begins };
  });

/** What a bid offers in an interval as a curve; null where it is none. */
export function curveOf(bid, { interval, currency, name, award, of }) {
  const { terms: offer, product } = bid;
  const alone = (quantity, price) => [{ quantity, begins: price, ends: price }];
  const sum = (rows, column) => rows.filter((row) => row.interval === interval && row.side === offer.side).reduce((all, row) => all + row[column], 0);
  if (product === "energy") {
    const parts = partsOf(offer, "kw", "usd_per_mwh");
    return { title: `${offer.side} curve of ${name}`, parts, unit: "kW", priceUnit: `${currency}/MWh`, price: award?.lmp_usd_per_mwh ?? null, accepted: sum(of.segments.filter((row) => row.segment > 0), "award_kw") }; // 0 is what is self-scheduled
  }
  if (product === "reactive") {
    const parts = partsOf(offer, "kvar", "usd_per_mvarh");
    return { title: `${name} to ${offer.side}`, parts, unit: "kvar", priceUnit: `${currency}/MVArh`, price: award?.lmp_q_usd_per_mvarh ?? null, accepted: sum(of.reactive_segments, "award_kvar") };
  }
  if (product === "block") {
    const share = of.blocks.find((row) => row.block === bid.id)?.accepted_share ?? 0;
    return { title: `${offer.side} block of ${name}`, parts: alone(offer.quantity_kw, offer.price_usd_per_mwh), unit: "kW", priceUnit: `${currency}/MWh`, price: award?.lmp_usd_per_mwh ?? null, accepted: share * offer.quantity_kw };
  }
  if (SERVICES.has(product)) {
    const row = of.services.find((one) => one.interval === interval && one.service === product);
    return { title: `${product.replace("_", " ")} of ${name}`, parts: alone(offer.quantity, offer.price_usd_per_mw_h), unit: product.startsWith("var") ? "kvar" : "kW", priceUnit: `${currency}/MW-h`, price: row?.price_usd_per_mw_h ?? null, accepted: row?.reserved ?? 0 };
  }
  return null;
}

function Own({ market, resource, bids, awards, of, interval, choose }) {
  const start = new Date(market.starts_at).getTime();
  const time = new Date(start + interval * market.interval_minutes * 60000).toISOString().replace(".000", "");
  const standing = bids.filter((bid) => bid.interval_start <= time && time < bid.interval_end);
  const award = awards.find((row) => row.interval === interval);
  const store = of.stores.find((row) => row.interval === interval);
  const curves = standing.map((bid) => [bid.id, curveOf(bid, { interval, currency: market.currency, name: resource.name, award, of })]).filter(([, curve]) => curve);
  return html`<div class="controls">
      <div class="time">
        <input type="range" aria-label="Interval" min="0" max=${market.intervals - 1} value=${interval} onInput=${(e) => choose(Number(e.target.value))} />
        <output>${clock(time, market.market_timezone)}</output>
      </div>
    </div>
    ${curves.length
      ? curves.map(([id, curve]) => html`<${Curve} key=${id} ...${curve} />`)
      : standing.length
        ? html`<p class="quiet">${resource.name} has a bid here that is no curve: ${standing[0].product.replaceAll("_", " ")}.</p>`
        : html`<p class="quiet">No bid of ${resource.name} stands in this interval.</p>`}
    ${award
      ? html`<p>Awarded <b class="award">${number(award.net_injection_kw)} kW</b> into the grid at ${money(award.lmp_usd_per_mwh)} ${market.currency}/MWh${Math.abs(award.q_kvar) >= 0.001 ? html`, and ${number(award.q_kvar)} kvar at ${money(award.lmp_q_usd_per_mvarh)} ${market.currency}/MVArh` : ""}.</p>`
      : null}
    ${store
      ? html`<p>It ends the interval with ${number(store.energy_kwh)} kWh; one more MWh in it would be worth ${money(store.value_usd_per_mwh)} ${market.currency}.</p>`
      : null}`;
}

/** Names and modes of requests, by who sent them and their bids; kept until their whole table is answered. */
const unanswered = new Map();

/** Bids to the service; what may have come through before goes as it went then, so that nothing is placed twice. */
async function place(bids, mode, sender, sent) {
  const content = JSON.stringify([sender, bids]);
  const isNew = !unanswered.has(content);
  if (isNew) unanswered.set(content, { name: newName(), mode });
  sent.push(content);
  const request = unanswered.get(content);
  try {
    return await post("v1/bids/batch", { mode: request.mode, bids }, { "Idempotency-Key": request.name });
  } catch (refused) {
    if (!isAnswer(refused)) throw new Refused(refused.status, { detail: `${refused.message} ${IN_DOUBT}` });
    if (isNew) unanswered.delete(content); // a refusal of what was sent before leaves that in doubt
    throw refused;
  }
}

const isAnswer = (refused) => refused.status >= 400 && refused.status < 500;

/** Bids of the table that was chosen, with the lines that they come from. */
async function bidsOf(files, market) {
  const profile = files.find((file) => file.name === PROFILE_FILE);
  const tables = files.filter((file) => file !== profile);
  if (tables.length !== 1) throw new Refused(0, { detail: `Choose one table; beside stores.csv there may be ${PROFILE_FILE}.` });
  const body = { text: await tables[0].text(), ...(profile ? { profile: await profile.text() } : {}) };
  return post(`console/markets/${encodeURIComponent(market.id)}/bid-file`, body);
}

function Upload({ market, who, renew }) {
  const nothing = { faults: [], receipts: [], count: 0, error: null };
  const [told, setTold] = useState(nothing);
  const [busy, setBusy] = useState(false);
  const [each, setEach] = useState(false);
  const input = useRef(null);
  const go = async (event) => {
    event.preventDefault();
    setBusy(true);
    setTold(nothing);
    const found = { ...nothing, faults: [], receipts: [] };
    const sent = [];
    try {
      const { bids, lines } = await bidsOf([...input.current.files], market);
      if (!each && bids.length > MOST_BIDS) {
        const most = number(MOST_BIDS);
        throw new Refused(0, { detail: `These are ${number(bids.length)} bids, and at most ${most} are placed all or none: divide the table, or place the good ones though others are refused.` });
      }
      for (let first = 0; first < bids.length; first += MOST_BIDS) {
        const part = lines.slice(first, first + MOST_BIDS);
        try {
          const receipt = await place(bids.slice(first, first + MOST_BIDS), each ? "per_item" : "atomic", who.participant_id, sent);
          found.receipts.push(receipt);
          receipt.items.forEach((item, i) => {
            found.count += item.status === "accepted" ? 1 : 0;
            found.faults.push(...(item.errors || []).map((fault) => toldByLine({ ...fault, pointer: `/bids/${i}${fault.pointer}` }, part)));
          });
        } catch (refused) {
          if (!refused.faults?.length) throw refused;
          found.faults.push(...refused.faults.map((fault) => toldByLine(fault, part)));
        }
      }
      if (input.current) {
        sent.forEach((content) => unanswered.delete(content));
        if (!found.faults.length) input.current.value = "";
      } // else nobody has seen the receipt: the same table gives it again
    } catch (refused) {
      if (refused.code === "invalid" && refused.faults.length) found.faults.push(...refused.faults.map((fault) => fault.detail));
      else found.error = refused;
    }
    setTold(found);
    setBusy(false);
    if (sent.length) renew();
  };
  const open = market.state === "open";
  return html`<form class="upload" onSubmit=${go}>
    <h2>Place bids</h2>
    <p class="quiet">A CSV table as in a case folder: resource, interval, side, segment, quantity_kw, price_usd_per_mwh; or reactive bids, blocks or stores, with their ${PROFILE_FILE}.</p>
    <div class="controls">
      <label>Table of bids <input ref=${input} type="file" accept=".csv,text/csv" multiple required disabled=${!open} /></label>
      <label>Place
        <select value=${each ? "each" : "all"} onChange=${(e) => setEach(e.target.value === "each")} disabled=${!open}>
          <option value="all">all, or none</option>
          <option value="each">the good ones though others are refused</option>
        </select>
      </label>
      <button type="submit" class="primary" disabled=${!open || busy}>${busy ? "Placing …" : "Upload"}</button>
    </div>
    ${open ? null : html`<p class="quiet">The gate is not open.</p>`}
    <${Trouble} error=${told.error} />
    ${told.faults.length
      ? html`<div class="trouble" role="alert"><p>${told.count ? "These bids were not placed:" : "No bid was placed:"}</p><ul>${told.faults.slice(0, MOST_FAULTS).map((fault) => html`<li>${fault}</li>`)}${told.faults.length > MOST_FAULTS ? html`<li>and ${number(told.faults.length - MOST_FAULTS)} more</li>` : null}</ul></div>`
      : null}
    ${told.count
      ? html`<p role="status" class="receipt">${number(told.count)} bids placed: ${told.receipts.map((receipt) => html`receipt <code>${receipt.submission_id}</code>, number ${receipt.sequence}, ${moment(receipt.received_at, market.market_timezone)}. `)}</p>`
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
