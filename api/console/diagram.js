// The one-line diagram on a canvas: places once, colours at every repaint.

const MARGIN = 28;
const LEAST_RADIUS = 1.6;
const MOST_RADIUS = 8;
const NEAR_PX = 14;
const REPAINT = "feeder repaint";
const MOST_MEASURED = 1000;
const WIDTHS = [1, 2, 3, 4.5, 6];

export class Diagram {
  constructor(canvas, picture) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.nodes = picture.node;
    this.branches = picture.branch;
    this.isMap = picture.is_map;
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
    let across = (this.width - 2 * MARGIN) / wide;
    let down = (this.height - 2 * MARGIN) / high;
    if (this.isMap) across = down = Math.min(across, down); // one scale both ways, in the middle
    const beside = (this.width - 2 * MARGIN - across * wide) / 2;
    const over = (this.height - 2 * MARGIN - down * high) / 2;
    this.toX = (x) => MARGIN + left + (beside + (x - this.xs[0]) * across) * zoom;
    this.toY = (y) => MARGIN + top + (over + (this.ys[1] - y) * down) * zoom;
    this.nodeX = Float32Array.from(this.nodes.x, this.toX);
    const room = (Math.min(across, down) * zoom * 0.36) / (this.apart ? this.most : 1);
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

  /** Bring a node that is out of sight to the middle, as far as the edges let it. */
  reveal(node) {
    const [x, y] = [this.nodeX[node], this.nodeY[node]];
    if (x >= 0 && y >= 0 && x <= this.width && y <= this.height) return;
    this.shift(this.width / 2 - x, this.height / 2 - y);
  }

  keepInside() {
    const most = (size) => (size - 2 * MARGIN) * (this.view.zoom - 1);
    this.view.x = Math.min(0, Math.max(-most(this.width), this.view.x));
    this.view.y = Math.min(0, Math.max(-most(this.height), this.view.y));
    this.place();
  }

  /** Branches as paths of one colour and width; those whose limit binds stand apart. */
  grouped(loading, binding, colourOf) {
    const groups = new Map();
    const marked = new Path2D();
    const { branch, points } = this.branches;
    for (let i = 0; i < branch.length; i += 1) {
      const share = loading ? Math.min(Math.max(loading[i], 0), 100) / 100 : 0.2;
      const width = WIDTHS[Math.min(WIDTHS.length - 1, Math.floor(share * WIDTHS.length))];
      const colour = colourOf(i);
      const key = `${colour} ${width}`;
      if (!groups.has(key)) groups.set(key, { colour, width, path: new Path2D() });
      const line = points[i];
      for (const path of binding.has(branch[i]) ? [groups.get(key).path, marked] : [groups.get(key).path]) {
        path.moveTo(this.toX(line[0]), this.toY(line[1]));
        for (let at = 2; at < line.length; at += 2) path.lineTo(this.toX(line[at]), this.toY(line[at + 1]));
      }
    }
    return { groups: groups.values(), marked };
  }

  /** Draw all; `shadeOf` is of nodes, or of branches where `ofBranches`; without a `scale` nothing has a colour. */
  paint({ shown, shadeOf, ofBranches, scale, loading, bindingBranches, bindingBuses, selected, ink, mark, ground }) {
    const started = performance.now();
    const { context: c } = this;
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.fillStyle = ground;
    c.fillRect(0, 0, this.width, this.height);
    const { groups, marked } = this.grouped(loading, bindingBranches, ofBranches && scale ? (i) => scale.colours[shadeOf(i)] : () => ink);
    c.lineJoin = "round";
    c.globalAlpha = ofBranches ? 1 : 0.5;
    for (const { colour, width, path } of groups) {
      if (ofBranches) {
        c.strokeStyle = ink; // an edge, for shades that are close to the ground's
        c.lineWidth = width + 3.5;
        c.stroke(path);
      }
      c.strokeStyle = colour;
      c.lineWidth = ofBranches ? width + 2 : width;
      c.stroke(path);
    }
    c.globalAlpha = 1;
    c.strokeStyle = mark;
    c.lineWidth = ofBranches ? 1.5 : 4;
    c.stroke(marked);
    const byColour = new Map();
    for (const node of shown) {
      const x = this.nodeX[node];
      const y = this.nodeY[node];
      if (x < -20 || y < -20 || x > this.width + 20 || y > this.height + 20) continue;
      const colour = ofBranches || !scale ? ground : scale.colours[shadeOf(node)];
      if (!byColour.has(colour)) byColour.set(colour, new Path2D());
      const path = byColour.get(colour);
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
    for (const [colour, path] of byColour) {
      c.fillStyle = colour;
      c.fill(path);
      c.stroke(path);
    }
    c.strokeStyle = mark;
    c.lineWidth = 2;
    for (const node of shown) if (bindingBuses.has(this.nodes.bus[node])) this.ring(node, this.radius + 3);
    if (selected !== null) {
      c.strokeStyle = ink;
      c.lineWidth = 2.5;
      this.ring(selected, this.radius + 5);
    }
    if (performance.getEntriesByName(REPAINT).length >= MOST_MEASURED) performance.clearMeasures(REPAINT);
    performance.measure(REPAINT, { start: started, end: performance.now() });
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
