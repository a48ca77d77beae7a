// The check of a table while it runs: how far it is, how long it may take, then the report in its place.
//
// The server stops a check when nobody watches it, and one that is begun again begins at the first panorama.

import { duration } from "./ages.js";
import { reason } from "./app.js";

const section = document.getElementById("checking");
const part = (name) => document.getElementById(`checking-${name}`);

let stream = null;
let begun = null; // the first progress: [when, images done]

function watch() {
  part("link").hidden = true;
  say("Reading the table.");
  begun = null;
  stream = new EventSource(section.dataset.stream);
  stream.addEventListener("waiting", (event) => say(JSON.parse(event.data).detail));
  stream.addEventListener("progress", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("report", finish);
  stream.addEventListener("problem", (event) => fail(JSON.parse(event.data).detail));
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) fail("The server refuses to check this table now.");
    else say("The line broke. The check begins again when the server answers.");
    begun = null;
  };
}

function leave() {
  stream?.close();
  stream = null;
}

function say(text) {
  part("state").textContent = text;
}

function show({ done, total }) {
  if (!total) return;
  begun ??= [performance.now(), done];
  if (part("bar").hidden) say("Reading the panoramas. Leaving this page stops it.");
  part("bar").hidden = false;
  part("share").max = total;
  part("share").value = done;
  part("count").textContent = `${done.toLocaleString()} of ${total.toLocaleString()}${left(done, total)}`;
}

/** Not said before there is something to judge by. */
function left(done, total) {
  const seconds = (performance.now() - begun[0]) / 1000;
  const since = done - begun[1];
  if (seconds < 3 || !since) return "";
  return `, about ${duration((seconds / since) * (total - done))} left`;
}

async function finish() {
  leave();
  history.replaceState(null, "", section.dataset.page); // reloading shows this report, not a new check
  say("Drawing the report.");
  const answer = await fetch(section.dataset.report).catch(() => null);
  if (!answer) return fail("The server does not answer.");
  const text = await answer.text();
  if (!answer.ok) return fail(reason(text, answer.status));
  section.outerHTML = text;
  const report = document.getElementById("report");
  report.tabIndex = -1;
  report.focus({ preventScroll: true });
}

function fail(text) {
  leave();
  say(text);
  part("state").classList.add("bad-text");
  part("bar").hidden = true;
  part("link").hidden = false;
  part("link").textContent = "Try again";
  part("link").href = location.href;
}

if (section) {
  watch();
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => {
    if (event.persisted && section.isConnected) watch(); // back from the browser's cache of pages
  });
}
