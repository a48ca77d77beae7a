// One chart's figure: the lines it holds, what its head reads out, its keys and its table, and what it says when it has nothing to draw.
// What all charts share (the view, the axis, the zoom) and when data are asked for is charts.js's business; the canvas is plot.js's.

import { Plot, RAW, columnOf, mainOf, moment } from "./plot.js";
import { align, drawable, extend, format, isSparse, join, place, places, tableRows, toLine } from "./series.js";
import { fill, put } from "./words.js";

const TABLE_ROWS = 200;
const SAY_MS = 400;
const LEAPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

export class Chart {
  /** `owner` has what all charts share: { runId, texts, exact, scene, loader, zoom(from, to), zoomBy(factor, x), reset(), retry(), drawSoon() }. */
  constructor(figure, owner) {
    this.figure = figure;
    this.owner = owner;
    this.name = figure.dataset.metric;
    this.whole = null; // every step: { key, lines }
    this.detail = null; // what is zoomed into: { key, zoom, lines }
    this.waiting = []; // came live while an answer was on its way
    this.parts = []; // what is drawn
    this.isVisible = this.isLoading = this.isStale = false;
    this.error = this.answered = null;
    this.plot = new Plot(this.part("plot"), `charts-${owner.runId}`, {
      zoom: (from, to) => owner.zoom(from, to),
      reset: () => owner.reset(),
      cursor: () => this.read(),
    });
    this.listen();
  }

  part(name) {
    return this.figure.querySelector(`[data-part=${name}]`);
  }

  listen() {
    const acts = {
      zoom: () => this.owner.zoomBy(0.5, this.cursorX),
      table: () => this.showTable(this.part("table").hidden),
      retry: () => this.owner.retry(),
    };
    this.figure.addEventListener("click", ({ target }) => acts[target.closest("[data-act]")?.dataset.act]?.());
    this.figure.addEventListener("keydown", (event) => this.press(event));
    this.sized = new ResizeObserver(() => this.plot.resize());
    this.sized.observe(this.part("plot"));
  }

  remove() {
    this.sized.disconnect();
    this.plot.destroy();
    this.figure.remove();
  }

  // Data

  /** Lines of the whole run, by stage and attempt. */
  get lines() {
    return [...(this.whole?.lines.values() ?? [])];
  }

  /** Lines of what is in view, as fine as they are known. */
  get near() {
    const { zoom } = this.owner.scene;
    const isCovered = zoom && this.detail && this.detail.zoom[0] <= zoom[0] && this.detail.zoom[1] >= zoom[1];
    return isCovered ? [...this.detail.lines.values()] : this.lines;
  }

  /** Whether it must ask: `held` is "whole" or "detail". */
  needs(held, { key, points }) {
    return this.isStale || this[held]?.key !== key || [...this[held].lines.values()].some((line) => isCrowded(line, points));
  }

  begin() {
    this.isLoading = true;
    this.isStale = false;
    this.show();
  }

  /** Hold the lines that answer a question. */
  receive(held, { key, zoom, smooth }, told) {
    const lines = told.map((each) => toLine(each, smooth));
    this[held] = { key, zoom, lines: new Map(lines.map((line) => [`${line.stage} ${line.key}`, line])) };
  }

  /** No answer is on its way any more: what came live meanwhile goes on top. */
  finish(error = null) {
    this.isLoading = false;
    this.error = error;
    if (!error) this.answered = new Date();
    for (const news of this.waiting.splice(0)) this.take(news);
  }

  /** Forget that it failed, so that the next question is for it too. */
  forgive() {
    if (!this.error) return;
    this.error = null;
    this.isStale = true;
  }

  /** Add points of one line that came live: { stage, key, points }. Returns how many lie beyond what is zoomed into. */
  take(news) {
    if (this.isLoading) this.waiting.push(news);
    const of = `${news.stage} ${news.key}`;
    const line = this.whole?.lines.get(of);
    if (!line) {
      this.isStale ||= !this.isLoading;
      return 0;
    }
    const added = extend(line, news.points);
    const { zoom, axis, layout } = this.owner.scene;
    const segment = layout.segments.find(({ stage }) => stage === news.stage);
    if (!zoom || !segment) return 0;
    const inside = news.points.filter(([step, t]) => place(line, axis, segment.offset, step, t) <= zoom[1]);
    if (this.detail?.lines.has(of)) extend(this.detail.lines.get(of), inside);
    return Math.min(added, news.points.length - inside.length);
  }

  // Drawing

  draw() {
    const { scene } = this.owner;
    this.parts = scene.layout.segments.flatMap((segment) => this.partsOf(segment, scene));
    this.show();
    if (!this.parts.length) return this.plot.destroy();
    if (this.part("table").hidden) this.plot.draw({ ...scene, parts: this.parts, data: align(this.parts) });
    else if (!this.part("table").matches(":hover, :focus")) this.fillTable();
    this.read();
  }

  /** A stage's lines as they are drawn: its attempts as one line, but with the pauses between them where the axis is time. */
  partsOf({ stage, offset }, { axis, log, best }) {
    const own = this.near.filter((line) => line.stage === stage && line.step.length && (axis !== "epoch" || line.pace));
    if (!own.length) return [];
    const sparse = isSparse(this.lines.filter((line) => line.stage === stage));
    return (axis === "time" ? own : [join(own)]).map((line) => {
      const hasCurve = line.ema !== null && !sparse && !this.owner.exact.includes(this.name);
      const columns = [line.max, line.min, line.last, ...(hasCurve ? [line.ema] : [])].map((column) => drawable(column, log));
      const x = places(line, axis, offset);
      const bestRow = this.name === best.metric ? line.step.indexOf(best.steps[stage]) : -1;
      return { line, x, columns, hasCurve, isSparse: sparse, isFolded: line.count.some((count) => count > 1), best: x[bestRow] ?? null };
    });
  }

  // What it says

  /** Its state, and which of its values cannot be drawn. */
  show() {
    const { texts, scene } = this.owner;
    const isEmpty = !this.parts.length;
    const isWaiting = isEmpty && !this.error && (this.isLoading || !this.whole);
    this.figure.dataset.state = isWaiting ? "loading" : this.error ? "failed" : isEmpty ? "empty" : "shown";
    const isNowhere = scene.axis === "epoch" && this.lines.some(({ step }) => step.length); // there are points, but where on this axis is not known
    const why = this.error ? fill(texts.failed, { reason: this.error }) : isNowhere ? texts.noEpoch : texts.empty;
    put(this.part("state"), isEmpty && !isWaiting ? why : "");
    const hasGaps = this.parts.some(({ columns }) => columns[RAW].includes(null));
    const asOf = this.error && !isEmpty && fill(texts.asOf, { time: this.answered.toLocaleTimeString([], { timeStyle: "short" }) });
    put(this.part("note"), asOf || (!hasGaps ? "" : scene.log ? texts.notPositive : texts.notFinite));
    this.part("note").title = this.error ?? "";
    this.figure.querySelector("[data-act=retry]").hidden = !this.error;
  }

  /** The value under the cursor, else the last in view. */
  read() {
    const pointed = this.pointed();
    const found = pointed ?? this.last();
    put(this.part("where"), pointed ? this.where(pointed) : "");
    put(this.part("value"), found ? format(valueOf(found)) : "");
    put(this.part("kind"), found?.part.hasCurve ? "ema" : "");
    this.part("key").hidden = !found;
  }

  last() {
    const end = this.owner.scene.domain[1];
    const part = this.parts.findLast(({ x }) => x[0] <= end);
    return part && { part, row: part.x.findLastIndex((x) => x <= end) };
  }

  /** The part and the row that the cursor is at. */
  pointed() {
    const { u, scene } = this.plot;
    if (!u || u.cursor.idx == null || u.cursor.left < 0) return null;
    const x = u.posToVal(u.cursor.left, "x");
    const at = (index) => u.data[0][index];
    const near = scene.parts.map((part) => ({ part, index: u.cursor.idxs[columnOf(scene.parts, part, mainOf(part))] }));
    const found = near.filter(({ index }) => index != null).sort((one, other) => Math.abs(at(one.index) - x) - Math.abs(at(other.index) - x))[0];
    const row = found ? found.part.x.indexOf(at(found.index)) : -1;
    return row < 0 ? null : { part: found.part, row };
  }

  get cursorX() {
    const { u } = this.plot;
    return u?.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : this.owner.scene.domain[1];
  }

  /** Step, epoch or moment of a reading, with the stage where there are several. */
  where({ part: { line, x }, row }) {
    const { texts, scene } = this.owner;
    const stage = scene.layout.segments.length > 1 ? `${texts.stages[line.stage]}, ` : "";
    if (scene.axis === "time") return stage + moment(x[row]);
    if (scene.axis === "epoch") return stage + fill(texts.epoch, { n: (line.step[row] / line.pace).toFixed(2) });
    return stage + fill(texts.step, { n: line.step[row].toLocaleString("en") });
  }

  /** All that is known of the point under the cursor, for those who hear it; when the cursor has come to rest. */
  say() {
    clearTimeout(this.saying);
    this.saying = setTimeout(() => {
      const found = this.pointed();
      if (!found) return;
      const { part, row } = found;
      const [value, min, max, smooth] = ["last", "min", "max", "ema"].map((column) => format(part.line[column]?.[row]));
      const { texts } = this.owner;
      const sentences = [fill(texts.read, { where: this.where(found), value })];
      if (part.hasCurve) sentences.push(fill(texts.smooth, { smooth }));
      if (part.line.count[row] > 1) sentences.push(fill(texts.reach, { n: part.line.count[row], min, max }));
      put(this.part("say"), sentences.join(" "));
    }, SAY_MS);
  }

  // Keys

  press(event) {
    if (event.target !== this.figure || event.ctrlKey || event.metaKey || event.altKey || !this.plot.u) return;
    if (event.key in LEAPS) this.move(LEAPS[event.key] * (event.shiftKey ? 10 : 1));
    else if (event.key === "+" || event.key === "=") this.owner.zoomBy(0.5, this.cursorX);
    else if (event.key === "-") this.owner.zoomBy(2, this.cursorX);
    else return;
    event.preventDefault();
  }

  /** Move the cursor by so many points of those in view. */
  move(by) {
    const { domain } = this.owner.scene;
    const [all] = this.plot.u.data;
    const rows = all.flatMap((x, index) => (x >= domain[0] && x <= domain[1] ? [index] : []));
    if (!rows.length) return;
    const found = this.pointed();
    const now = found ? rows.indexOf(all.indexOf(found.part.x[found.row])) : by > 0 ? -1 : rows.length;
    this.plot.point(rows[Math.min(Math.max(now + by, 0), rows.length - 1)]);
    this.say();
  }

  // Table

  showTable(isOn) {
    this.part("table").hidden = !isOn;
    this.part("plot").hidden = isOn;
    this.figure.querySelector("[data-act=table]").setAttribute("aria-pressed", String(isOn));
    if (isOn) this.fillTable();
    else this.owner.drawSoon();
  }

  fillTable() {
    const most = Math.max(1, Math.floor(TABLE_ROWS / this.parts.length));
    const rows = this.parts.flatMap(({ line }) => tableRows(line, most).map((row) => [...row, this.owner.texts.stages[line.stage]]));
    this.part("table")
      .querySelector("tbody")
      .replaceChildren(...rows.map(tableRow));
  }
}

/** Whether live points have made it much longer than there are pixels. */
const isCrowded = (line, pixels) => line.step.length > 2 * pixels && line.fresh > pixels / 2;

const valueOf = ({ part, row }) => (part.hasCurve && Number.isFinite(part.line.last[row]) ? part.line.ema[row] : part.line.last[row]);

function tableRow([step, t, last, ema, min, max, count, stage]) {
  const row = document.createElement("tr");
  const numbers = [step.toLocaleString("en"), ...[last, ema, min, max].map((value) => (value === null ? "" : format(value))), count.toLocaleString("en")];
  const at = new Date(t * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
  for (const text of numbers) Object.assign(row.insertCell(), { textContent: text, className: "num" });
  for (const text of [stage, at]) row.insertCell().textContent = text;
  return row;
}
