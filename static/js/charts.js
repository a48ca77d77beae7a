// The charts of a run: which are shown, what of them is in view, the points that come live. Where they start:
//
//   import { startCharts } from "./charts.js";
//   startCharts(document.getElementById("charts"));
//
// The HTML is templates/runs/_charts.html. The arithmetic is in series.js, questions to the API in chart-loader.js, the tools above the
// charts in chart-tools.js, one figure in chart.js, its canvas in plot.js.

import { Chart } from "./chart.js";
import { Loader } from "./chart-loader.js";
import { ChartTools } from "./chart-tools.js";
import { live as stream } from "./live.js";
import { readTokens } from "./plot.js";
import { ALL, Known, keyOf, layOut, pick, readView, windows, writeView } from "./series.js";

const MOST = 6; // charts, unless somebody asks for more
const AHEAD = "200px"; // charts so far outside the window are made ready
const REFRESH_MS = 500;

/** Bring the charts in `element` to life. `runId` and `stage`, the run's current one, are read from it if not given. */
export function startCharts(element, { runId = Number(element.dataset.run), stage = element.dataset.stage, live = stream } = {}) {
  return new Charts(element, live, runId, stage);
}

class Charts {
  constructor(element, live, runId, stage) {
    const { stages, series, order, expected, exact, texts } = JSON.parse(element.dataset.charts);
    Object.assign(this, { runId, order, expected, exact, texts, current: stage });
    this.grid = element.querySelector(".charts");
    this.stages = stages.map((each) => each.stage);
    this.totals = Object.fromEntries(stages.map((each) => [each.stage, each.total]));
    this.best = { metric: "val_loss", steps: Object.fromEntries(stages.map((each) => [each.stage, each.best])) };
    this.known = new Known(series);
    this.view = readView(location.search, this.stages);
    if (this.view.zoom) this.view.stage ??= stage;
    this.beyond = 0; // points that came while zoomed and are not in view
    this.charts = new Map();
    this.loader = new Loader(this);
    this.observer = new IntersectionObserver((entries) => this.see(entries), { rootMargin: AHEAD });
    this.tools = new ChartTools(element.querySelector(".tools"), this.texts, {
      change: (chosen) => this.change(chosen),
      pick: (names) => this.pick(names),
      reset: () => this.reset(),
    });
    readTokens();
    this.scene = this.compose();
    this.arrange(this.metrics());
    this.showTools();
    this.listen(live);
  }

  listen(live) {
    const mine = (take) => (event) => event.run_id === this.runId && take.call(this, event.payload);
    live.on("metric", mine(this.hear));
    live.on("progress", mine(this.expect));
    live.on("checkpoint", mine(this.mark));
    live.on("reset", () => this.refreshSoon());
    live.on("status", ({ state }) => state === "live" && this.retry());
    live.on("back", () => this.retry());
    addEventListener("themechange", () => this.repaint());
    document.fonts.ready.then(() => this.repaint());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && this.view.zoom && !document.querySelector("dialog[open]")) this.reset();
    });
  }

  // The view

  /** The stage that is shown, or ALL. */
  get stage() {
    return this.view.stage ?? this.current;
  }

  get shownStages() {
    return this.stage === ALL ? this.stages : [this.stage];
  }

  metrics() {
    return this.view.metrics ?? pick(this.known.names(this.stage), this.order, this.expected, MOST);
  }

  change(chosen) {
    const before = this.stage;
    Object.assign(this.view, chosen);
    if (this.view.stage === this.current && !this.view.zoom) this.view.stage = null;
    if ("x" in chosen || this.stage !== before) this.view.zoom = null;
    if (this.stage !== before) this.arrange(this.metrics());
    this.apply();
  }

  /** Show these metrics, in the order in which they are and then that of the list; null for those that are shown by default. */
  pick(names) {
    this.view.metrics = null;
    const usual = this.metrics();
    const present = [...this.charts.keys()].filter((name) => names?.includes(name));
    const asked = names && [...present, ...names.filter((name) => !present.includes(name))];
    if (asked?.length && [...asked].sort().join() !== [...usual].sort().join()) this.view.metrics = asked;
    this.arrange(this.metrics());
    this.apply();
  }

  zoom(from, to) {
    const [low, high] = this.scene.layout.domain;
    this.view.zoom = [Math.max(from, low), Math.min(to, high)];
    this.view.stage = this.stage; // a part of this stage, also when the next one begins
    this.beyond = 0;
    this.apply();
  }

  /** Show half as much or twice as much, `x` staying where it is. */
  zoomBy(factor, x) {
    const [from, to] = this.scene.domain;
    const [low, high] = this.scene.layout.domain;
    const width = (to - from) * factor;
    if (width >= high - low) return this.reset();
    const start = Math.min(Math.max(x - (x - from) * factor, low), high - width);
    this.zoom(start, start + width);
  }

  reset() {
    this.beyond = 0;
    this.change({ zoom: null });
  }

  /** Bring address, tools, data and drawings in line with the view. */
  apply() {
    history.replaceState(history.state, "", location.pathname + writeView(location.search, this.view) + location.hash);
    for (const chart of this.charts.values()) chart.forgive();
    this.showTools();
    this.scene = this.compose();
    this.loader.load();
    this.drawSoon();
  }

  showTools() {
    const shown = [...this.charts.keys()];
    this.tools.show(this.view, this.stage);
    this.tools.showZoom(this.view.zoom !== null, this.beyond);
    this.tools.offer([...new Set([...this.known.names(ALL), ...shown])].sort(), shown);
  }

  // Figures

  /** Have a figure for each name, in this order; what is there already is kept. */
  arrange(names) {
    for (const figure of this.grid.querySelectorAll("figure")) {
      const name = figure.dataset.metric;
      if (!this.charts.has(name)) this.charts.set(name, new Chart(figure, this));
      if (!names.includes(name)) this.charts.get(name).remove();
    }
    this.charts = new Map(names.map((name) => [name, this.charts.get(name) ?? new Chart(this.figure(name), this)]));
    [...this.charts.values()].forEach(({ figure }, place) => {
      if (this.grid.children[place] !== figure) this.grid.insertBefore(figure, this.grid.children[place] ?? null);
      this.observer.observe(figure);
    });
  }

  figure(name) {
    const figure = document.getElementById("chart-figure").content.firstElementChild.cloneNode(true);
    figure.dataset.metric = name;
    figure.setAttribute("aria-label", name);
    figure.querySelector("h2").textContent = name;
    return figure;
  }

  see(entries) {
    for (const { target, isIntersecting } of entries) {
      const chart = this.charts.get(target.dataset.metric);
      if (chart) chart.isVisible = isIntersecting;
    }
    this.loader.load();
    this.drawSoon();
  }

  get visible() {
    return [...this.charts.values()].filter((chart) => chart.isVisible);
  }

  // Drawing

  /** What the next drawing shows of all that is known. */
  compose() {
    const lines = [...this.charts.values()].flatMap((chart) => chart.lines);
    const layout = layOut(this.shownStages, this.view.x, this.known, this.totals, lines);
    const { zoom, x: axis, logy: log } = this.view;
    return { layout, zoom, domain: zoom ?? layout.domain, axis, log, best: this.best };
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.scene = this.compose();
      for (const chart of this.visible) chart.draw();
    });
  }

  /** Draw anew, in the colours of the theme. */
  repaint() {
    readTokens();
    for (const chart of this.charts.values()) chart.plot.destroy();
    this.drawSoon();
  }

  // Data

  /** What the view asks of the API: everything, and finer what is zoomed into. */
  questions() {
    const { smooth, zoom, x } = this.view;
    const width = Math.max(100, ...this.visible.map((chart) => chart.plot.size.width));
    const points = Math.ceil(width / 100) * 100; // a window that grows a little needs no answer anew
    const common = { points, smooth, ...(this.stage === ALL ? {} : { stage: this.stage }) };
    const ask = (parts) => ({ key: JSON.stringify(parts), parts, points, smooth, zoom });
    if (!zoom) return { whole: ask([common]) };
    const parts = windows(this.scene.layout, x, zoom).map((window) => ({ ...common, x, ...window }));
    return { whole: ask([common]), detail: ask(parts) };
  }

  answered() {
    this.drawSoon();
  }

  renew(known) {
    this.known = known;
    this.meet();
  }

  // Live

  hear({ stage, job_id, attempt, points, reload }) {
    if (reload) return this.refreshSoon();
    const key = keyOf(job_id, attempt);
    const isShown = this.shownStages.includes(stage);
    let [isNew, beyond] = [false, 0];
    for (const [name, each] of Object.entries(points)) {
      const fresh = this.known.add(stage, job_id, attempt, name, each.at(-1)[0]);
      isNew ||= fresh !== null;
      if (fresh === "attempt") this.distrust(); // it cuts the lines of the one before
      if (isShown) beyond = Math.max(beyond, this.charts.get(name)?.take({ stage, key, points: each }) ?? 0);
    }
    if (isNew) this.meet(stage);
    if (beyond) this.tools.showZoom(true, (this.beyond += beyond));
    this.loader.load();
    if (isShown) this.drawSoon();
  }

  /** There are names, attempts or stages that were not there before. What is shown by default follows the run. */
  meet(stage = this.current) {
    const before = this.stage;
    if (this.stages.indexOf(stage) > this.stages.indexOf(this.current)) this.current = stage;
    const isSame = this.stage === before;
    if (!isSame || !this.view.metrics) this.arrange(isSame ? [...new Set([...this.charts.keys(), ...this.metrics()])].slice(0, MOST) : this.metrics());
    this.showTools();
  }

  expect({ stage, unit, total }) {
    if (unit !== "steps" || this.totals[stage] === total) return;
    this.totals[stage] = total;
    this.drawSoon();
  }

  mark({ stage, kind, step }) {
    if (kind === "best") this.best.steps[stage] = step;
    this.drawSoon();
  }

  /** Nothing that is held is sure to be whole any more. */
  distrust() {
    for (const chart of this.charts.values()) chart.isStale = true;
  }

  refreshSoon() {
    this.refreshing ??= setTimeout(() => {
      this.refreshing = null;
      this.loader.isBehind = true;
      this.distrust();
      this.loader.load();
    }, REFRESH_MS);
  }

  retry() {
    for (const chart of this.charts.values()) chart.forgive();
    this.loader.load();
  }
}
