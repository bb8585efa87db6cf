// The one-line diagram on a canvas: places once, colours at every repaint.

import { BINDING } from "./colours.js";

const MARGIN = 28;
const LEAST_RADIUS = 1.6;
const MOST_RADIUS = 8;
const NEAR_PX = 14;
const WIDTHS = [1, 2, 3, 4.5, 6];

export class Diagram {
  constructor(canvas, picture) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.nodes = picture.node;
    this.branches = picture.branch;
    this.view = { zoom: 1, x: 0, y: 0 };
    this.apart = false;
    this.measure();
    this.resize();
  }

  measure() {
    const extent = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
    this.xs = extent(this.nodes.x);
    this.ys = extent(this.nodes.y);
    const phases = new Map();
    this.nodes.bus.forEach((bus, node) => phases.set(bus, [...(phases.get(bus) || []), node]));
    this.phasePlace = new Float32Array(this.nodes.bus.length);
    this.most = 1;
    for (const own of phases.values()) {
      this.most = Math.max(this.most, own.length);
      own.forEach((node, i) => {
        this.phasePlace[node] = i - (own.length - 1) / 2;
      });
    }
  }

  /** Show the phases of a bus one below the other, or at one place. */
  spread(apart) {
    this.apart = apart;
    this.place();
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    Object.assign(this, { width, height, ratio });
    this.place();
  }

  /** Pixels of every node, and lines of all branches as they are seen now. */
  place() {
    const { zoom, x: left, y: top } = this.view;
    const wide = this.xs[1] - this.xs[0] || 1;
    const high = this.ys[1] - this.ys[0] || 1;
    const across = ((this.width - 2 * MARGIN) / wide) * zoom;
    const down = ((this.height - 2 * MARGIN) / high) * zoom;
    this.toX = (x) => MARGIN + left + (x - this.xs[0]) * across;
    this.toY = (y) => MARGIN + top + (this.ys[1] - y) * down;
    this.nodeX = Float32Array.from(this.nodes.x, this.toX);
    const room = (Math.min(across, down) * 0.36) / (this.apart ? this.most : 1);
    this.radius = Math.max(LEAST_RADIUS, Math.min(MOST_RADIUS, room));
    const step = this.apart ? 2.1 * this.radius : 0;
    this.nodeY = Float32Array.from(this.nodes.y, (y, node) => this.toY(y) + step * this.phasePlace[node]);
  }

  move(zoom, x, y) {
    const before = this.view.zoom;
    const to = Math.max(1, Math.min(60, zoom));
    const scale = to / before;
    const [fromX, fromY] = [x - MARGIN, y - MARGIN];
    this.view = { zoom: to, x: fromX + (this.view.x - fromX) * scale, y: fromY + (this.view.y - fromY) * scale };
    this.keepInside();
  }

  shift(dx, dy) {
    this.view = { ...this.view, x: this.view.x + dx, y: this.view.y + dy };
    this.keepInside();
  }

  keepInside() {
    const most = (size) => (size - 2 * MARGIN) * (this.view.zoom - 1);
    this.view.x = Math.min(0, Math.max(-most(this.width), this.view.x));
    this.view.y = Math.min(0, Math.max(-most(this.height), this.view.y));
    this.place();
  }

  /** Branches in groups of one width; the group that binds stands apart. */
  grouped(loading, binding) {
    const groups = WIDTHS.map(() => new Path2D());
    const marked = new Path2D();
    const { branch, points } = this.branches;
    for (let i = 0; i < branch.length; i += 1) {
      const share = loading ? Math.min(Math.max(loading[i], 0), 100) / 100 : 0.2;
      const level = Math.min(WIDTHS.length - 1, Math.floor(share * WIDTHS.length));
      const path = binding.has(branch[i]) ? marked : groups[level];
      const line = points[i];
      path.moveTo(this.toX(line[0]), this.toY(line[1]));
      for (let at = 2; at < line.length; at += 2) path.lineTo(this.toX(line[at]), this.toY(line[at + 1]));
    }
    return { groups, marked };
  }

  paint({ shown, shadeOf, scale, loading, bindingBranches, bindingBuses, selected, ink, ground }) {
    const started = performance.now();
    const { context: c } = this;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.fillStyle = ground;
    c.fillRect(0, 0, this.width, this.height);
    const { groups, marked } = this.grouped(loading, bindingBranches);
    c.lineJoin = "round";
    c.strokeStyle = ink;
    c.globalAlpha = 0.5;
    groups.forEach((path, level) => {
      c.lineWidth = WIDTHS[level];
      c.stroke(path);
    });
    c.globalAlpha = 1;
    c.strokeStyle = BINDING;
    c.lineWidth = 4;
    c.stroke(marked);
    const byShade = new Map();
    for (const node of shown) {
      const x = this.nodeX[node];
      const y = this.nodeY[node];
      if (x < -20 || y < -20 || x > this.width + 20 || y > this.height + 20) continue;
      const shade = shadeOf(node);
      if (!byShade.has(shade)) byShade.set(shade, new Path2D());
      const path = byShade.get(shade);
      if (this.nodes.is_source[node]) {
        const half = this.radius * 1.5;
        path.rect(x - half, y - half, 2 * half, 2 * half);
      } else {
        path.moveTo(x + this.radius, y);
        path.arc(x, y, this.radius, 0, 2 * Math.PI);
      }
    }
    c.strokeStyle = ink;
    c.lineWidth = 0.6;
    for (const [shade, path] of byShade) {
      c.fillStyle = scale.colours[shade];
      c.fill(path);
      c.stroke(path);
    }
    c.strokeStyle = BINDING;
    c.lineWidth = 2;
    for (const node of shown) if (bindingBuses.has(this.nodes.bus[node])) this.ring(node, this.radius + 3);
    if (selected !== null) {
      c.strokeStyle = ink;
      c.lineWidth = 2.5;
      this.ring(selected, this.radius + 5);
    }
    performance.measure("feeder repaint", { start: started, end: performance.now() });
  }

  ring(node, radius) {
    this.context.beginPath();
    this.context.arc(this.nodeX[node], this.nodeY[node], radius, 0, 2 * Math.PI);
    this.context.stroke();
  }

  /** The shown node that is nearest to a place, if any is near. */
  nearest(x, y, shown) {
    let best = null;
    let least = Math.max(NEAR_PX, this.radius * 1.5) ** 2;
    for (const node of shown) {
      const distance = (this.nodeX[node] - x) ** 2 + (this.nodeY[node] - y) ** 2;
      if (distance < least) [best, least] = [node, distance];
    }
    return best;
  }
}
