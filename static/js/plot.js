// One uPlot as our charts look: the band of smallest to greatest, the raw line, the smoothed one on top, stages as a coloured strip
// above, what is still to come in grey. Draws a scene that is ready; what is in it and when it is drawn is chart.js's business.
//
// A scene: { parts: [{ line, x, hasCurve, isSparse, isFolded, best }], data, layout, domain, axis, log }. In `data` every part has the columns
// MAX, MIN, RAW and, with hasCurve, CURVE, in the order of the parts.
//
// uPlot comes as a script of its own (the global of that name), because its authors ship no module that needs no build.

import { logTicks, short } from "./series.js";

const [MAX, MIN, RAW, CURVE] = [0, 1, 2, 3];
const DRAG_PIXELS = 5;
const NEAR_PIXELS = 40;
const DAY = 86400;
const NOTHING = { left: 0, top: 0, width: 0, height: 0 };

// Colours

let tokens = {};
const font = '11px "Plex Sans", system-ui, sans-serif';

/** Read the colours of the theme; a canvas knows no custom properties. */
export function readTokens() {
  const probe = document.createElement("span");
  document.body.append(probe);
  const names = ["c1", "grid", "text", "text-3", "line-2", "surface", "st-vision", "st-resampler", "st-finetune"];
  tokens = Object.fromEntries(
    names.map((name) => {
      probe.style.color = `var(--${name})`;
      return [name, getComputedStyle(probe).color];
    }),
  );
  probe.remove();
}

const faint = (colour, share) => colour.replace(/^rgb\((.*)\)$/, (_, parts) => `rgba(${parts}, ${share})`);

// Axes

const WHOLE = Array.from({ length: 12 }, (_, power) => (power ? [1, 2, 2.5, 5] : [1, 2, 5]).map((of) => of * 10 ** power)).flat(); // there is no half step
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const seconds = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });

/** A moment in the reader's zone, as exactly as it must be told from one `between` seconds away. */
export function moment(t, between = 1) {
  const at = new Date(t * 1000);
  const isDay = between >= DAY || (between >= 3600 && at.getHours() === 0 && at.getMinutes() === 0);
  return (isDay ? day : between < 60 ? seconds : clock).format(at);
}

const xValues = (scene, ticks) => ticks.map((tick) => (scene.axis === "time" ? moment(tick, ticks[1] - ticks[0]) : short(tick)));

function yRange(scene, low, high) {
  if (low == null || !Number.isFinite(low)) return scene.log ? [0.1, 1] : [0, 1];
  if (scene.log) return [low / (high / low) ** 0.06 / 1.01, high * (high / low) ** 0.06 * 1.01];
  const room = (high - low || Math.abs(high) * 0.2 || 1) * 0.08;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

// Lines

const HIDDEN = { stroke: "transparent", width: 0, points: { show: false } };

function seriesOf({ isSparse, hasCurve, isFolded }) {
  const colour = tokens.c1;
  const thin = { stroke: faint(colour, 0.22), width: 1, points: { show: false } };
  const edge = isFolded ? thin : HIDDEN; // a single high point is a pixel wide, too little for a fill to be seen
  const points = { show: true, size: 5, width: 1.5, fill: tokens.surface };
  const main = { stroke: colour, width: 1.75, spanGaps: false };
  if (isSparse) return [HIDDEN, HIDDEN, { ...main, points }];
  const alone = { ...main, points: { ...points, filter: lonely } };
  return hasCurve ? [edge, edge, thin, alone] : [edge, edge, alone];
}

/** Points with no neighbour to draw a line to. */
function lonely(u, index) {
  const values = u.data[index];
  const found = [];
  for (let i = 0; i < values.length; i += 1) if (values[i] != null && values[i - 1] == null && values[i + 1] == null) found.push(i);
  return found;
}

const widthOf = (part) => (part.hasCurve ? 4 : 3);

export { RAW };

/** Index in `data` of a part's column. */
export function columnOf(parts, part, column) {
  let first = 1;
  for (const each of parts) {
    if (each === part) return first + column;
    first += widthOf(each);
  }
  throw new RangeError("The part is not in the scene.");
}

/** The column a part is read from: its smoothed curve where it has one. */
export const mainOf = (part) => (part.hasCurve ? CURVE : RAW);

// Drawing

function drawStages(u, { layout, axis, domain }) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  const pixel = (x) => Math.min(Math.max(u.valToPos(x, "x", true), bbox.left), bbox.left + bbox.width);
  ctx.save();
  layout.segments.forEach(({ stage, from, to }, i) => {
    const [left, right] = [pixel(from), pixel(to)];
    if (right <= left) return;
    ctx.fillStyle = tokens[`st-${stage}`];
    ctx.fillRect(left + (i ? ratio : 0), bbox.top - 8 * ratio, right - left - ratio, 2 * ratio);
    if (i && from > domain[0]) drawBoundary(u, Math.round(left), ratio);
  });
  if (axis !== "time" && layout.segments.length) {
    const done = pixel(layout.done);
    ctx.fillStyle = faint(tokens["text-3"], 0.055);
    ctx.fillRect(done, bbox.top, bbox.left + bbox.width - done, bbox.height);
  }
  ctx.restore();
}

function drawBoundary({ ctx, bbox }, x, ratio) {
  ctx.strokeStyle = faint(tokens["line-2"], 0.55);
  ctx.lineWidth = ratio;
  ctx.setLineDash([2 * ratio, 3 * ratio]);
  ctx.beginPath();
  ctx.moveTo(x + 0.5, bbox.top - 6 * ratio);
  ctx.lineTo(x + 0.5, bbox.top + bbox.height);
  ctx.stroke();
  ctx.setLineDash([]);
}

/** A diamond where the best checkpoint was saved. */
function drawBest(u, { parts, data }) {
  const half = 4.5 * devicePixelRatio;
  for (const part of parts) {
    const row = part.best == null ? -1 : data[0].indexOf(part.best);
    const value = data[columnOf(parts, part, mainOf(part))][row];
    if (value == null || part.best < u.scales.x.min || part.best > u.scales.x.max) continue;
    const { ctx } = u;
    ctx.save();
    ctx.translate(u.valToPos(part.best, "x", true), u.valToPos(value, "y", true));
    ctx.rotate(Math.PI / 4);
    ctx.fillStyle = tokens.c1;
    ctx.fillRect(-half, -half, 2 * half, 2 * half);
    ctx.restore();
  }
}

/** A finger that moves sideways draws as a mouse does; up and down it scrolls the page. */
function listenToFingers(u) {
  const mouse = (kind, target) => (event) => {
    if (event.pointerType !== "touch") return;
    const { clientX, clientY } = event;
    target.dispatchEvent(new MouseEvent(kind, { clientX, clientY, movementX: 1, bubbles: true, view: window }));
  };
  const up = mouse("mouseup", document);
  u.over.addEventListener("pointerdown", mouse("mousedown", u.over));
  u.over.addEventListener("pointermove", mouse("mousemove", u.over));
  u.over.addEventListener("pointerup", up);
  u.over.addEventListener("pointercancel", (event) => {
    u.setSelect(NOTHING, false); // the page scrolls
    up(event);
  });
}

export class Plot {
  /** `on`: { zoom(from, to), reset(), cursor() }. `sync` names the charts that share a cursor. */
  constructor(host, sync, on) {
    Object.assign(this, { host, sync, on, u: null, scene: null, look: "" });
  }

  /** Show a scene. uPlot is made anew only when its lines are other ones. */
  draw(scene) {
    this.scene = scene;
    const look = JSON.stringify([scene.log, scene.axis, scene.parts.map((part) => [part.line.key, part.isSparse, part.hasCurve, part.isFolded])]);
    if (this.u && look === this.look) return this.u.setData(scene.data);
    this.look = look;
    this.destroy();
    this.u = new window.uPlot(this.options(), scene.data, this.host);
    listenToFingers(this.u);
  }

  destroy() {
    this.u?.destroy();
    this.u = null;
  }

  get size() {
    const style = getComputedStyle(this.host);
    const across = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    const down = parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
    return { width: Math.max(120, this.host.clientWidth - across), height: this.host.clientHeight - down };
  }

  resize() {
    if (this.host.clientWidth) this.u?.setSize(this.size); // it has none while the table is shown
  }

  /** Put the cursor on a row of the data; the other charts follow. */
  point(row) {
    const { u } = this;
    u.setCursor({ left: u.valToPos(u.data[0][row], "x"), top: u.bbox.height / devicePixelRatio / 2 }, true, true);
  }

  options() {
    const { scene } = this;
    const axis = { stroke: tokens["text-3"], font, ticks: { show: false }, grid: { stroke: tokens.grid, width: 1 } };
    const log = { splits: (u, index, low, high) => logTicks(low, high), filter: (u, ticks) => ticks };
    return {
      ...this.size,
      legend: { show: false },
      padding: [14, 10, 0, 0],
      cursor: this.cursor(scene.parts),
      scales: {
        x: { time: scene.axis === "time", range: () => this.scene.domain },
        y: { distr: scene.log ? 3 : 1, range: (u, low, high) => yRange(this.scene, low, high) },
      },
      axes: [
        { ...axis, space: 64, size: 26, values: (u, ticks) => xValues(this.scene, ticks), ...(scene.axis === "step" ? { incrs: WHOLE } : {}) },
        { ...axis, space: 34, size: 46, values: (u, ticks) => ticks.map((tick) => (tick == null ? "" : short(tick))), ...(scene.log ? log : {}) },
      ],
      series: [{}, ...scene.parts.flatMap(seriesOf)],
      bands: scene.parts
        .filter((part) => !part.isSparse)
        .map((part) => ({ series: [MAX, MIN].map((column) => columnOf(scene.parts, part, column)), fill: faint(tokens.c1, 0.13) })),
      hooks: {
        drawClear: [(u) => drawStages(u, this.scene)],
        draw: [(u) => drawBest(u, this.scene)],
        setCursor: [() => this.on.cursor()],
        setSelect: [(u) => this.select(u)],
      },
    };
  }

  cursor(parts) {
    const mains = parts.map((part) => columnOf(parts, part, mainOf(part)));
    const shared = (kind) => kind === "mousemove" || kind === "mouseleave";
    const dot = (u, index) => mains.includes(index) && document.createElement("div");
    return {
      y: false,
      sync: { key: this.sync, setSeries: false, scales: ["x", null], filters: { pub: shared, sub: shared } },
      drag: { x: true, y: false, setScale: false, dist: DRAG_PIXELS },
      hover: { prox: NEAR_PIXELS },
      points: { show: dot, size: 7, width: 1.5, fill: tokens.surface, stroke: tokens.c1 },
      bind: { dblclick: () => () => this.on.reset() },
    };
  }

  select(u) {
    const { left, width } = u.select;
    u.setSelect(NOTHING, false);
    if (width >= DRAG_PIXELS) this.on.zoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
  }
}
