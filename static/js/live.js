// What a page knows of the live stream: handlers by kind of event, and DOM events on <body> that htmx fragments listen to.
//
//   live.on("metric", ({ id, run_id, kind, payload, at }) => ...)
//   live.on("reset", () => ...)        events are missing: read anew
//   live.on("status", ({ state, heard }) => ...)
//   live.on("outages", ({ database, writes, broker }) => ...)   since when a part does not answer
//   live.on("back", () => ...)         the database answers again: try again what has failed
//   hx-trigger="live-job from:body"    any job; "live-job-7 from:body" only those of run 7
//
// A burst of events rings a fragment once at its start and once at its end.

import { LiveSource } from "./live-source.js";

const RING_MS = 300;
const handlers = new Map();
const ringing = new Map();

export const live = {
  on(kind, handler) {
    handlers.set(kind, [...(handlers.get(kind) ?? []), handler]);
  },
};

function tell(kind, value) {
  for (const handler of handlers.get(kind) ?? []) handler(value);
}

function ring(name) {
  if (ringing.has(name)) return ringing.set(name, true);
  document.body.dispatchEvent(new CustomEvent(name));
  ringing.set(name, false);
  setTimeout(() => {
    const again = ringing.get(name);
    ringing.delete(name);
    if (again) ring(name);
  }, RING_MS);
}

/** Every event that some piece of this page is asked for again at. */
function fragmentsListenTo() {
  const triggers = [...document.querySelectorAll("[hx-trigger]")].flatMap((element) => element.getAttribute("hx-trigger").match(/live-[\w-]+/g) ?? []);
  return [...new Set(triggers)];
}

/** Pieces were not to be had while the database was away, and what they show may have changed without an event: they are all asked for again. */
function learn(outages) {
  const isBack = isDatabaseAway && !outages.database;
  isDatabaseAway = Boolean(outages.database);
  tell("outages", outages);
  if (!isBack) return;
  tell("back");
  fragmentsListenTo().forEach(ring);
}

function hear(message) {
  if (message.type === "status") return tell("status", message);
  if (message.type === "outages") return learn(message.outages);
  if (message.type === "reset") {
    known = message.last;
    tell("reset");
    return fragmentsListenTo().forEach(ring);
  }
  const { event } = message;
  known = event.id;
  tell(event.kind, event);
  ring(`live-${event.kind}`);
  if (event.run_id !== null) ring(`live-${event.kind}-${event.run_id}`);
}

const { lastEvent } = document.body.dataset; // the page of a problem has none, and nothing in it that could change
let isDatabaseAway = false;
let known = Number(lastEvent); // everything up to this event is in the page

function connect() {
  if (lastEvent === undefined) return () => {};
  if (!window.SharedWorker) return new LiveSource().listen(known, hear);
  const worker = new SharedWorker(document.body.dataset.liveWorker, { type: "module", name: "panollava-live" });
  worker.port.onmessage = ({ data }) => hear(data);
  worker.port.postMessage({ after: known });
  return () => worker.port.postMessage({});
}

let disconnect = connect();
addEventListener("pagehide", () => disconnect());
addEventListener("pageshow", (event) => {
  if (event.persisted) disconnect = connect(); // back from the browser's cache of pages
});
