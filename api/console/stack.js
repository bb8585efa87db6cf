// A price over the day as stacked parts, those below zero downwards, with the price as a line.

import uPlot from "./vendor/uPlot.esm.js";
import { html, useEffect, useRef, useState, clock, money } from "./ui.js";

const HEIGHT = 240;

/** Redrawn when the page's colours change. */
export function useColours() {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const changed = () => setTurn((old) => old + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", changed);
    dark.addEventListener("change", changed);
    return () => {
      removeEventListener("themechange", changed);
      dark.removeEventListener("change", changed);
    };
  }, []);
  return turn;
}

/** Options that all charts share: axes in the page's colours, times in the market's zone. */
export function chartOptions(box, { zone, unit, height = HEIGHT, time = true }) {
  const style = getComputedStyle(box);
  const axis = { stroke: style.color, grid: { stroke: style.getPropertyValue("--line"), width: 1 }, ticks: { show: false } };
  return {
    width: Math.max(260, box.clientWidth),
    height,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    tzDate: time ? (seconds) => uPlot.tzDate(new Date(seconds * 1000), zone) : undefined,
    scales: { x: { time } },
    axes: [
      time ? { ...axis, values: (_, ticks) => ticks.map((at) => clock(at * 1000, zone)) } : axis,
      { ...axis, label: unit, labelSize: 18, size: 56 },
    ],
  };
}

/** What is above zero is piled up from there, what is below is piled down. */
export function piled(series) {
  const count = series[0]?.values.length ?? 0;
  const above = new Float64Array(count);
  const below = new Float64Array(count);
  return series.map((one) => ({
    ...one,
    tops: one.values.map((value, t) => {
      const side = value >= 0 ? above : below;
      side[t] += value;
      return side[t];
    }),
  }));
}

export function Stack({ series, line, starts, zone, unit, interval, choose, label }) {
  const box = useRef(null);
  const turn = useColours();
  const [wide, setWide] = useState(0);
  useEffect(() => {
    const watched = new ResizeObserver(() => setWide(box.current?.clientWidth || 0));
    watched.observe(box.current);
    return () => watched.disconnect();
  }, []);
  useEffect(() => {
    const options = chartOptions(box.current, { zone, unit });
    const times = starts.map((start) => new Date(start) / 1000);
    const step = times.length > 1 ? times[1] - times[0] : 3600;
    const parts = piled(series).reverse(); // the outermost first: each is drawn from zero, over those before it
    const x = [...times, times.at(-1) + step];
    const chart = new uPlot(
      {
        ...options,
        scales: { x: { time: true, range: [x[0], x.at(-1)] }, y: { range: (_, low, high) => uPlot.rangeNum(Math.min(low, 0), Math.max(high, 0), 0.08, true) } },
        series: [
          {},
          ...parts.map((part) => ({
            label: part.name,
            fill: part.colour,
            width: 0,
            points: { show: false },
            paths: uPlot.paths.bars({ align: 1, size: [0.94, Infinity] }),
          })),
          { label: "price", stroke: getComputedStyle(box.current).color, width: 2, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) },
        ],
        hooks: {
          draw: [
            (u) => {
              const from = u.valToPos(times[interval], "x", true);
              const to = u.valToPos(times[interval] + step, "x", true);
              u.ctx.save();
              u.ctx.strokeStyle = options.axes[0].stroke;
              u.ctx.setLineDash([4, 4]);
              u.ctx.strokeRect(from, u.bbox.top, to - from, u.bbox.height);
              u.ctx.restore();
            },
          ],
        },
      },
      [x, ...parts.map((part) => [...part.tops, null]), [...line, line.at(-1)]],
      box.current,
    );
    const clicked = (event) => {
      const at = chart.posToVal(event.offsetX, "x");
      choose(Math.max(0, Math.min(starts.length - 1, Math.floor((at - x[0]) / step))));
    };
    chart.over.addEventListener("click", clicked);
    return () => chart.destroy();
  }, [series.map((one) => one.name).join(), line.join(), interval, turn, wide]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label}></div>
    <ul class="parts">
      ${series.map((part) => html`<li><${Swatch} colour=${part.colour} />${part.name} <b>${money(part.values[interval])}</b></li>`)}
      <li><i class="line price" /> price <b>${money(line[interval])}</b></li>
    </ul>`;
}

export function Swatch({ colour }) {
  const mark = useRef(null);
  useEffect(() => {
    mark.current.style.background = colour;
  }, [colour]);
  return html`<i class="swatch" ref=${mark} />`;
}
