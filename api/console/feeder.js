// The feeder over the day: coloured by a quantity, a node's price in its parts, and why it is what it is.

import { all, floats, get } from "./api.js";
import { html, useEffect, useLoaded, useMemo, useRef, useState, Cut, Trouble, Waiting, clock, elementName, money, nodeName, number } from "./ui.js";
import { PARTS, cssGradient, scaleOf } from "./colours.js";
import { Diagram } from "./diagram.js";
import { Stack } from "./stack.js";

const PLAY_MS = 400;
const MOST_SUGGESTED = 2000;
const STEP_PX = 60;
const SIGNED = new Set(["loss", "congestion", "voltage", "unbalance", "scarcity"]);

function ofMarket(market) {
  const path = `console/markets/${encodeURIComponent(market.id)}/picture`;
  const version = `price_version=${market.price_version}`;
  return { picture: `${path}?${version}`, quantity: (name) => `${path}/${encodeURIComponent(name)}?${version}` };
}

export function Feeder({ market, who }) {
  const [seen, setSeen] = useState({ interval: 0, quantity: "price", phase: "any", place: null }); // outlives a version
  const see = (news) => setSeen((old) => ({ ...old, ...(typeof news === "function" ? news(old) : news) }));
  if (!market.price_version) return html`<p class="waiting">Nothing is published yet: the feeder has no prices.</p>`;
  return html`<${Published} key=${market.price_version} ...${{ market, who, seen, see }} />`;
}

function Published({ market, who, seen, see }) {
  const { value, error } = useLoaded(
    async (signal) => {
      const from = ofMarket(market);
      const id = encodeURIComponent(market.id);
      const [picture, price, limits, broken] = await Promise.all([
        get(from.picture, signal),
        floats(from.quantity("price"), signal),
        all(`v1/markets/${id}/limits?price_version=${market.price_version}`, signal),
        all(`v1/markets/${id}/broken-limits?price_version=${market.price_version}`, signal),
      ]);
      return { picture, price, limits: [...limits, ...broken], lists: [limits, broken] };
    },
    [who.key_id],
  );
  if (error) return html`<${Trouble} error=${error} />`;
  if (!value) return html`<${Waiting} text="Drawing the feeder …" />`;
  return html`<${Cut} lists=${value.lists} /><${Drawn} ...${{ market, seen, see }} ...${value} />`;
}

/** Values of quantities, each asked for once; `want` asks, and asks again after an error. */
function useQuantities(market, price) {
  const [known, setKnown] = useState({ price });
  const [errors, setErrors] = useState({});
  const asked = useRef(new Set(["price"]));
  const want = (name) => {
    if (asked.current.has(name)) return;
    asked.current.add(name);
    floats(ofMarket(market).quantity(name)).then(
      (values) => {
        setErrors((old) => ({ ...old, [name]: null }));
        setKnown((old) => ({ ...old, [name]: values }));
      },
      (refused) => {
        asked.current.delete(name);
        setErrors((old) => ({ ...old, [name]: refused }));
      },
    );
  };
  return { known, want, errors };
}

function Drawn({ market, picture, price, limits, seen, see }) {
  const [hovered, setHovered] = useState(null);
  const [plays, setPlays] = useState(false);
  const [byInterval, setByInterval] = useState(true);
  const [named, setNamed] = useState("");
  const { known, want, errors } = useQuantities(market, price);
  const nodes = picture.node;
  const last = picture.starts.length - 1;
  const { phase } = seen;
  const quantity = picture.quantities.some((one) => one.name === seen.quantity) ? seen.quantity : "price"; // after signing out
  const interval = Math.min(seen.interval, last);
  const names = useMemo(() => nodes.bus.map((bus, node) => nodeName(bus, nodes.phase[node])), [nodes]);
  const phases = useMemo(() => [...new Set(nodes.phase)].sort(), [nodes]);
  const shown = useMemo(
    () => Array.from(nodes.bus.keys()).filter((node) => phase === "any" || nodes.phase[node] === phase),
    [nodes, phase],
  );
  const suggestions = useMemo(
    () => html`<datalist id="nodes">${shown.slice(0, MOST_SUGGESTED).map((node) => html`<option value=${names[node]} />`)}</datalist>`,
    [shown, names],
  );
  const place = names.indexOf(seen.place);
  const selected = place < 0 ? null : place;
  const offered = picture.quantities;
  const hasLoading = offered.some((one) => one.name === "loading");
  const isAsked = hovered !== null || selected !== null;
  const wanted = [quantity, ...(hasLoading ? ["loading"] : []), ...(isAsked ? Object.keys(PARTS) : [])];
  useEffect(() => wanted.forEach(want), [wanted.join(), seen.place]);
  useEffect(() => {
    if (!plays) return undefined;
    const timer = setInterval(() => see((old) => ({ interval: old.interval >= last ? 0 : old.interval + 1 })), PLAY_MS);
    return () => clearInterval(timer);
  }, [plays, last]);
  const find = (text) => {
    const found = shown.find((node) => names[node] === text) ?? shown.find((node) => nodes.bus[node] === text);
    setNamed(found === undefined ? text : "");
    if (found !== undefined) see({ place: names[found] });
  };
  const at = (name, node) => known[name]?.[interval * nodes.bus.length + node];
  return html`<section aria-label="Feeder" class="feeder">
    <div class="controls">
      <label>Colour by
        <select value=${quantity} onChange=${(e) => see({ quantity: e.target.value })}>
          ${offered.map((one) => html`<option value=${one.name}>${one.name}</option>`)}
        </select>
      </label>
      <label>Scale
        <select value=${byInterval ? "interval" : "day"} onChange=${(e) => setByInterval(e.target.value === "interval")}>
          <option value="interval">of the interval</option>
          <option value="day">of the day</option>
        </select>
      </label>
      ${phases.length > 1
        ? html`<label>Phase
            <select value=${phase} onChange=${(e) => see({ phase: e.target.value })}>
              <option value="any">all</option>
              ${phases.map((one) => html`<option value=${one}>${one}</option>`)}
            </select>
          </label>`
        : null}
      <label>Node
        <input list="nodes" placeholder="bus" onChange=${(e) => find(e.target.value.trim())}
          onKeyDown=${(e) => e.key === "Enter" && find(e.target.value.trim())} />
        ${suggestions}
      </label>
      <div class="time">
        <button type="button" aria-pressed=${plays} onClick=${() => setPlays(!plays)}>${plays ? "Pause" : "Play"}</button>
        <input type="range" aria-label="Interval" min="0" max=${last} value=${interval}
          aria-valuetext=${clock(picture.starts[interval], picture.timezone)}
          onInput=${(e) => see({ interval: Number(e.target.value) })} />
        <output>${clock(picture.starts[interval], picture.timezone)}</output>
      </div>
    </div>
    ${named ? html`<p role="status">No node that is shown is called ${named}.</p>` : null}
    <${Trouble} error=${wanted.map((name) => errors[name]).find(Boolean)} />
    <${Canvas} ...${{ picture, known, quantity, interval, byInterval, shown, limits, selected, setHovered }} select=${(node) => see({ place: names[node] })} />
    <${Hover} name=${hovered === null ? null : names[hovered]} at=${(part) => at(part, hovered)} currency=${picture.currency} />
    ${selected === null
      ? html`<p class="quiet">Click a node, or name one, to see its price over the day and why it is what it is.</p>`
      : html`<${Node} ...${{ market, picture, known, node: selected, interval, name: names[selected] }} choose=${(found) => see({ interval: found })} />`}
  </section>`;
}

function Canvas({ picture, known, quantity, interval, byInterval, shown, limits, selected, select, setHovered }) {
  const canvas = useRef(null);
  const drawing = useRef(null);
  const drag = useRef(null);
  const [turn, setTurn] = useState(0);
  const repaint = () => setTurn((old) => old + 1);
  const shownOf = picture.quantities.find((one) => one.name === quantity);
  const ofBranches = shownOf?.of === "branch";
  const nodeCount = picture.node.bus.length;
  const branchCount = picture.branch.branch.length;
  const count = ofBranches ? branchCount : nodeCount;
  const values = known[quantity];
  const scaled = byInterval ? interval : null;
  const scale = useMemo(() => {
    if (!values) return null;
    return scaleOf(scaled === null ? values : values.subarray(scaled * count, (scaled + 1) * count), SIGNED.has(quantity));
  }, [values, quantity, scaled]);
  const binding = useMemo(() => limits.filter((limit) => limit.interval === interval), [limits, interval]);
  useEffect(() => {
    drawing.current = new Diagram(canvas.current, picture);
    drawing.current.spread(shown.length === nodeCount);
    const again = () => {
      drawing.current.resize();
      repaint();
    };
    const watched = new ResizeObserver(again);
    watched.observe(canvas.current);
    addEventListener("themechange", repaint);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", repaint);
    repaint();
    return () => {
      watched.disconnect();
      removeEventListener("themechange", repaint);
      dark.removeEventListener("change", repaint);
    };
  }, [picture]);
  useEffect(() => {
    drawing.current.spread(shown.length === nodeCount);
    repaint();
  }, [shown]);
  useEffect(() => {
    if (!drawing.current) return;
    const style = getComputedStyle(canvas.current);
    const loading = known.loading?.subarray(interval * branchCount, (interval + 1) * branchCount);
    drawing.current.paint({
      shown,
      shadeOf: (i) => scale.shade(values[interval * count + i]),
      ofBranches,
      scale,
      loading,
      bindingBranches: new Set(binding.map((limit) => limit.element)),
      bindingBuses: new Set(binding.filter((limit) => limit.element.startsWith("bus ")).map((limit) => limit.element.slice(4))),
      selected,
      ink: style.color,
      mark: style.getPropertyValue("--mark"),
      ground: style.backgroundColor,
    });
  }, [turn, values, scale, interval, shown, selected, known.loading, binding]);
  useEffect(() => {
    if (selected === null) return;
    drawing.current.reveal(selected);
    repaint();
  }, [selected]);
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const zoom = (factor, x, y) => {
    drawing.current.move(drawing.current.view.zoom * factor, x, y);
    repaint();
  };
  useEffect(() => {
    const wheel = (event) => {
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.25 : 0.8, ...place(event));
    };
    canvas.current.addEventListener("wheel", wheel, { passive: false });
    return () => canvas.current?.removeEventListener("wheel", wheel);
  }, []);
  const keys = {
    ArrowLeft: () => drawing.current.shift(STEP_PX, 0),
    ArrowRight: () => drawing.current.shift(-STEP_PX, 0),
    ArrowUp: () => drawing.current.shift(0, STEP_PX),
    ArrowDown: () => drawing.current.shift(0, -STEP_PX),
    "+": () => zoom(1.5, ...middle()),
    "-": () => zoom(1 / 1.5, ...middle()),
  };
  const middle = () => [canvas.current.clientWidth / 2, canvas.current.clientHeight / 2];
  return html`<div class="canvas">
      <canvas ref=${canvas} aria-label=${`One-line diagram of ${nodeCount} nodes, coloured by ${quantity}; arrows move it, plus and minus zoom`} role="img" tabindex="0"
        onKeyDown=${(e) => {
          if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
          e.preventDefault();
          keys[e.key]();
          repaint();
        }}
        onPointerDown=${(e) => {
          canvas.current.setPointerCapture(e.pointerId);
          drag.current = { at: place(e), moved: false };
        }}
        onPointerMove=${(e) => {
          const [x, y] = place(e);
          if (drag.current && e.buttons) {
            const [from, to] = drag.current.at;
            if (drag.current.moved || Math.hypot(x - from, y - to) > 4) {
              drawing.current.shift(x - from, y - to);
              drag.current = { at: [x, y], moved: true };
              repaint();
            }
            return;
          }
          setHovered(drawing.current.nearest(x, y, shown));
        }}
        onPointerLeave=${() => setHovered(null)}
        onPointerUp=${(e) => {
          if (drag.current && !drag.current.moved) {
            const found = drawing.current.nearest(...place(e), shown);
            if (found !== null) select(found);
          }
          drag.current = null;
        }}></canvas>
      <div class="zoom" role="group" aria-label="Zoom">
        <button type="button" aria-label="Nearer" onClick=${() => zoom(1.5, ...middle())}>+</button>
        <button type="button" aria-label="Farther" onClick=${() => zoom(1 / 1.5, ...middle())}>−</button>
      </div>
    </div>
    ${scale
      ? html`<div class="legend">
          <span>${short(scale.low)}</span><${Gradient} scale=${scale} /><span>${short(scale.high)} ${shownOf?.unit}</span>
          <span class="key"><i class="line" /> limit that binds or is broken</span>
          <span class="key"><i class="square" /> source</span>
        </div>`
      : html`<${Waiting} text=${`Loading ${quantity} …`} />`}
    ${binding.length
      ? html`<ul class="binding" aria-label="Limits that bind">
          ${binding.slice(0, 8).map((limit) => html`<li>${said(limit)}</li>`)}
          ${binding.length > 8 ? html`<li>and ${binding.length - 8} more</li>` : null}
        </ul>`
      : html`<p class="quiet">No limit binds in this interval.</p>`}`;
}

function Gradient({ scale }) {
  const bar = useRef(null);
  useEffect(() => {
    bar.current.style.background = cssGradient(scale);
  }, [scale]);
  return html`<span class="gradient" ref=${bar}></span>`;
}

/** A limit in words. */
function said(limit) {
  const size = `${number(limit.limit)} ${limit.unit}`;
  if (limit.cause === "service") return `${limit.element} has ${number(limit.value)} of the ${size} that it needs`;
  const when = limit.called && limit.called !== "-" ? ` when ${limit.called} is called` : "";
  return limit.excess === undefined
    ? `${elementName(limit)} is at its limit of ${size}${when}`
    : `${elementName(limit)} is at ${number(limit.value)} ${limit.unit}, beyond its limit of ${size}${when}`;
}

function Hover({ name, at, currency }) {
  if (name === null) return html`<p class="hover" aria-hidden="true">Point at a node to see its price.</p>`;
  const parts = Object.keys(PARTS).filter((part) => Math.abs(at(part) ?? 0) >= 0.005);
  return html`<p class="hover">
    <strong>${name}</strong> ${money(at("price"))} ${currency}/MWh${parts.length ? " = " : ""}
    ${parts.map((part, i) => {
      const value = at(part);
      const sign = value < 0 ? " − " : i ? " + " : "";
      return html`${sign}<span>${money(Math.abs(value))} ${part}</span>`;
    })}
  </p>`;
}

function Node({ market, picture, known, node, interval, choose, name }) {
  const bus = picture.node.bus[node];
  const phase = picture.node.phase[node];
  const path = `v1/markets/${encodeURIComponent(market.id)}/price-shares?bus=${encodeURIComponent(bus)}&price_version=${market.price_version}`;
  const { value, error } = useLoaded((signal) => all(path, signal), [path]);
  const count = picture.node.bus.length;
  const price = known.price[interval * count + node];
  const unit = `${picture.currency}/MWh`;
  const shares = (value || [])
    .filter((row) => row.interval === interval && row.phase === phase)
    .sort((a, b) => Math.abs(b.share_usd_per_mwh) - Math.abs(a.share_usd_per_mwh));
  const series = Object.keys(PARTS)
    .filter((part) => known[part])
    .map((part) => ({ name: part, colour: PARTS[part], values: picture.starts.map((_, t) => known[part][t * count + node]) }))
    .filter((part) => part.values.some((one) => Math.abs(one) >= 0.005));
  const total = shares.reduce((sum, row) => sum + row.share_usd_per_mwh, 0);
  return html`<section class="node" aria-label=${`Node ${name}`}>
    <h2>Node ${name} at ${clock(picture.starts[interval], picture.timezone)}: <span class="price">${money(price)}</span> ${unit}</h2>
    <${Trouble} error=${error} />
    ${value
      ? html`<ul class="why">
          ${shares.filter((row) => Math.abs(row.share_usd_per_mwh) >= 0.005).map((row) => html`<li><b class="share">${money(row.share_usd_per_mwh)}</b> of ${money(row.price_usd_per_mwh)} ${unit}: ${because(row)}</li>`)}
        </ul>
        <p class="quiet">The parts add up to <span class="sum">${money(total)}</span> ${unit}.</p>`
      : html`<${Waiting} />`}
    <${Stack} series=${series} line=${picture.starts.map((_, t) => known.price[t * count + node])} starts=${picture.starts}
      zone=${picture.timezone} unit=${unit} interval=${interval} choose=${choose} label=${`Price of node ${name} over the day, by part`} />
  </section>`;
}

/** What makes a share of a price, in words. */
function because(row) {
  const element = elementName({ element: row.element, phase: row.element_phase, end: row.element_end });
  const called = row.called && row.called !== "-" ? ` when ${row.called} is called` : "";
  if (row.component === "energy" && row.limit === null) return `energy at the substation`;
  if (row.component === "loss") return `losses that one more MWh here ${row.share_usd_per_mwh < 0 ? "saves" : "causes"} on its way`;
  if (row.component === "rest") return `many small shares together`;
  if (row.limit !== null) return `${element} at its ${number(row.limit)} ${row.unit} limit (${row.component})${called}`;
  return `${element} (${row.component})${called}`;
}

/** A number to as many digits as a scale needs. */
const short = (value) => number(Number(value.toPrecision(4)));
