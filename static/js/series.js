// What charts draw, worked out without a page: lines as the API tells them, points that come live, places on the three axes, the
// columns that uPlot wants, and the view as the query string holds it. Pure functions and plain data: no DOM, no fetch.
//
// A line is one name of one attempt of one stage. Its columns go together: row i stands for `count[i]` points up to step `step[i]`.

const AXES = ["step", "epoch", "time"];
export const ALL = "all";
const SMOOTH = 0.9;

// The view

/** What the query string asks for. `stage` is null for the run's current one, `metrics` for the default ones, `zoom` for everything. */
export function readView(search, stages) {
  const query = new URLSearchParams(search);
  const smooth = query.has("smooth") ? Number(query.get("smooth")) : SMOOTH;
  const [from, to] = (query.get("zoom") ?? "").split("..").map((end) => (end === "" ? NaN : Number(end)));
  const names = (query.get("metrics") ?? "").split(",").filter(Boolean);
  return {
    x: AXES.includes(query.get("x")) ? query.get("x") : AXES[0],
    stage: [ALL, ...stages].includes(query.get("stage")) ? query.get("stage") : null,
    smooth: smooth >= 0 && smooth < 1 ? smooth : SMOOTH,
    logy: query.get("logy") === "1",
    zoom: Number.isFinite(from) && from < to && to < Infinity ? [from, to] : null,
    metrics: names.length ? [...new Set(names)] : null,
  };
}

/** The query string with the view in it; what it says of other things stays, and what is the default is left out. */
export function writeView(search, view) {
  const query = new URLSearchParams(search);
  const told = {
    x: view.x !== AXES[0] && view.x,
    stage: view.stage,
    smooth: view.smooth !== SMOOTH && String(view.smooth),
    logy: view.logy && "1",
    zoom: view.zoom?.map((end) => Number(end.toFixed(3))).join(".."),
    metrics: view.metrics?.join(","),
  };
  for (const [name, value] of Object.entries(told)) value ? query.set(name, value) : query.delete(name);
  const text = query.toString().replaceAll("%2C", ",");
  return text && `?${text}`;
}

// What there is

/** The names, newest steps and attempts of each stage: told once by the server, kept by what comes live. */
export class Known {
  constructor(series) {
    this.stages = new Map();
    for (const each of series) this.add(each.stage, each.job_id, each.attempt, each.name, each.last_step);
  }

  /** Returns what of it was new: "attempt", "name" or nothing. A step of an attempt that was taken over does not count. */
  add(stage, job, attempt, name, step) {
    const of = this.stages.get(stage) ?? { names: new Set(), newest: [0, 0], last: 0 };
    this.stages.set(stage, of);
    const age = job - of.newest[0] || attempt - of.newest[1];
    const fresh = age > 0 ? "attempt" : !of.names.has(name) && "name";
    if (age > 0) Object.assign(of, { newest: [job, attempt], last: step });
    else if (age === 0) of.last = Math.max(of.last, step);
    of.names.add(name);
    return fresh || null;
  }

  names(stage) {
    const found = stage === ALL ? [...this.stages.values()] : [this.stages.get(stage)];
    return [...new Set(found.flatMap((of) => [...(of?.names ?? [])]))].sort();
  }

  last(stage) {
    return this.stages.get(stage)?.last ?? 0;
  }
}

/** The metrics shown unless somebody asks for others: of `order` those that there are, or that are `expected`, then the rest. */
export function pick(names, order, expected, most) {
  const liked = order.filter((name) => expected.includes(name) || names.includes(name));
  return [...liked, ...names.filter((name) => !order.includes(name))].slice(0, most);
}

// Lines

/** A number as the API writes it: NaN and the infinities are strings. */
export const number = (told) => (typeof told === "number" ? told : Number(told));

export const keyOf = (job, attempt) => `${job}.${attempt}`;

/** A line of the API's answer. `weight` is the smoothing that was asked for. */
export function toLine(told, weight) {
  const columns = told.buckets;
  return {
    name: told.name,
    stage: told.stage,
    key: keyOf(told.job_id, told.attempt),
    points: told.points,
    pace: told.steps_per_epoch,
    weight,
    step: columns.last_step,
    t: columns.last_t,
    count: columns.count,
    min: columns.min.map(number),
    max: columns.max.map(number),
    last: columns.last.map(number),
    ema: columns.ema ? columns.ema.map(number) : null,
    smoothed: told.ema_count ?? 0, // finite points in the last of `ema`
    fresh: 0, // rows that came live
  };
}

/** Add points [step, seconds, value] that are newer than the line's last; returns how many were. Its smoothed curve goes on. */
export function extend(line, points) {
  const before = line.fresh;
  for (const [step, t, told] of points) {
    if (line.step.length && step <= line.step.at(-1)) continue;
    const value = number(told);
    if (line.ema) line.ema.push(goOn(line, value));
    line.step.push(step);
    line.t.push(t);
    line.count.push(1);
    for (const column of [line.min, line.max, line.last]) column.push(value);
    line.fresh += 1;
  }
  line.points += line.fresh - before;
  return line.fresh - before;
}

/** s = w s + (1 - w) y over every finite point, over 1 - w^n so that it starts unbiased: the server's arithmetic, one point further. */
function goOn(line, value) {
  const mean = line.ema.at(-1) ?? NaN;
  if (!Number.isFinite(value)) return mean;
  const sum = line.smoothed ? mean * (1 - line.weight ** line.smoothed) : 0;
  line.smoothed += 1;
  return (line.weight * sum + (1 - line.weight) * value) / (1 - line.weight ** line.smoothed);
}

/** Lines of one stage, one behind the other, as one to look at: an attempt goes on where the one before was cut. */
export function join(lines) {
  if (lines.length === 1) return lines[0];
  const columns = ["step", "t", "count", "min", "max", "last", "ema"].map((name) => [
    name,
    lines.every((line) => line[name]) ? lines.flatMap((line) => line[name]) : null,
  ]);
  return { ...lines.at(-1), ...Object.fromEntries(columns), points: lines.reduce((sum, line) => sum + line.points, 0) };
}

/** Whether a stage's points are few and far apart, such as those of validations: dots, and nothing to smooth. */
export function isSparse(lines) {
  const points = lines.reduce((sum, line) => sum + line.points, 0);
  return points <= 200 && points * 4 <= Math.max(...lines.map((line) => line.step.at(-1) ?? 0));
}

// Axes

/** Where a point lies on an axis. `offset` is where its stage begins, when several stand one behind the other. */
export const place = (line, axis, offset, step, t) => (axis === "time" ? t : offset + (axis === "epoch" ? step / line.pace : step));

export const places = (line, axis, offset) => line.step.map((step, i) => place(line, axis, offset, step, line.t[i]));

/**
 * The axis of the stages that are shown: where each begins and ends, what all of it spans, and how far the newest has come.
 * Steps and epochs of stages stand one behind the other; times are what they are. `totals` says how many steps a stage will have.
 */
export function layOut(stages, axis, known, totals, lines) {
  const segments = [];
  let start = 0;
  for (const stage of stages) {
    const own = lines.filter((line) => line.stage === stage && line.step.length);
    const segment = axis === "time" ? timeSegment(stage, own) : stepSegment(stage, axis, start, known, own);
    if (!segment) continue;
    segments.push(segment);
    start = segment.to;
  }
  const newest = segments.at(-1);
  const ahead = newest && axis !== "time" ? newest.offset + (totals[newest.stage] ?? 0) / newest.pace : 0;
  const done = newest?.to ?? 0;
  if (newest) newest.to = Math.max(done, ahead);
  const from = axis === "time" ? Math.min(...segments.map((segment) => segment.from)) : 0;
  const to = newest?.to || 1;
  return { segments, done, domain: Number.isFinite(from) ? [from, to > from ? to : from + 1] : [0, 1] };
}

function timeSegment(stage, lines) {
  if (!lines.length) return null;
  const [from, to] = [Math.min(...lines.map((line) => line.t[0])), Math.max(...lines.map((line) => line.t.at(-1)))];
  return { stage, offset: 0, pace: 1, from, to };
}

function stepSegment(stage, axis, from, known, lines) {
  const pace = axis === "epoch" ? lines.findLast((line) => line.pace)?.pace : 1;
  const last = known.last(stage);
  return pace && last ? { stage, offset: from, pace, from, to: from + last / pace } : null;
}

/** Which part of each stage lies in the view: what to ask the API for, on the stage's own axis. */
export function windows(layout, axis, zoom) {
  if (axis === "time") return [{ from: zoom[0], to: zoom[1] }];
  const seen = layout.segments.filter((segment) => segment.from < zoom[1] && segment.to > zoom[0]);
  return seen.map((segment) => ({ stage: segment.stage, from: zoom[0] - segment.offset, to: zoom[1] - segment.offset }));
}

// Columns

/**
 * One table for lines that each have their own x: every column of a part stands in the rows of its part, and is undefined elsewhere,
 * which uPlot takes as "not mine" where null is a gap. parts: [{ x, columns }]; returns [x, ...columns of all parts].
 */
export function align(parts) {
  const rows = parts.flatMap(({ x }, part) => x.map((at, row) => ({ at, part, row })));
  rows.sort((one, other) => one.at - other.at);
  const data = [rows.map(({ at }) => at)];
  parts.forEach(({ columns }, part) => {
    for (const column of columns) data.push(rows.map((each) => (each.part === part ? column[each.row] : undefined)));
  });
  return data;
}

/** What can be drawn of values: null, a gap, for what is not finite, and on a logarithmic axis for what is not positive. */
export const drawable = (values, isLog) => values.map((value) => (Number.isFinite(value) && (value > 0 || !isLog) ? value : null));

/** At most `most` rows [step, t, last, ema, min, max, count] of a line, neighbours put together. */
export function tableRows(line, most) {
  const by = Math.ceil(line.step.length / most) || 1;
  const rows = [];
  for (let first = 0; first < line.step.length; first += by) {
    const end = Math.min(first + by, line.step.length);
    const of = (column) => column.slice(first, end).filter((value) => !Number.isNaN(value));
    const at = end - 1;
    const sum = line.count.slice(first, end).reduce((total, count) => total + count, 0);
    const reach = [of(line.min), of(line.max)];
    const [min, max] = [reach[0].length ? Math.min(...reach[0]) : NaN, reach[1].length ? Math.max(...reach[1]) : NaN];
    rows.push([line.step[at], line.t[at], line.last[at], line.ema ? line.ema[at] : null, min, max, sum]);
  }
  return rows;
}

// Numbers

/** A value with four figures that count. */
export function format(value) {
  if (value == null || Number.isNaN(value)) return "NaN";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("e+", "e");
  if (size >= 1e4 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toPrecision(4);
}

/** A value as an axis has room for it. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e3) return `${Number((value / 1e3).toPrecision(3))}k`;
  const rounded = Number(value.toPrecision(3));
  return size !== 0 && size < 1e-3 ? rounded.toExponential() : String(rounded);
}

/** Where a logarithmic axis has its lines: at 1, 2 and 5 of each decade, at the decades where those are too many, evenly where too few. */
export function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) ticks.push(...[1, 2, 5].map((of) => Number(`${of}e${power}`)));
  const within = ticks.filter((tick) => tick >= low && tick <= high);
  const decades = within.filter((tick) => Number.isInteger(Math.log10(tick)));
  if (within.length < 3) return evenTicks(low, high);
  return within.length > 7 && decades.length > 1 ? decades : within;
}

function evenTicks(low, high) {
  const least = (high - low) / 6;
  const size = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((of) => of * size).find((each) => each >= least);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}
