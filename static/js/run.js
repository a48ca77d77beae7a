// The page of one run: brings charts and log to life, keeps live pieces and links at what the page's address says by now, and its keys.

import { asked, remember } from "./address.js";
import { keys, toast } from "./app.js";
import { startCharts } from "./charts.js";
import { live } from "./live.js";
import { startLog } from "./log.js";

const page = document.getElementById("run");
const runId = Number(page.dataset.run);
const query = () => new URLSearchParams(location.search);
const ring = (kind) => document.body.dispatchEvent(new CustomEvent(`live-${kind}-${runId}`));

const charts = document.getElementById("charts");
if (charts) startCharts(charts, { live, runId });
const log = startLog(document.getElementById("log"), { runId, stage: asked("log_stage"), live });

// Live pieces: htmx asks for them, here is what it cannot know.

/** A piece whose links carry the page's state is asked for with the state as it is now, which scripts may have changed. */
document.body.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
  const { part } = ctx.sourceElement.dataset;
  if (!part || !page.contains(ctx.sourceElement)) return;
  const wanted = query();
  wanted.set("part", part);
  ctx.request.action = `${location.pathname}?${wanted}`;
});

/** The newest values are those of the stage that the charts show. */
page.addEventListener("click", ({ target }) => target.closest("#charts button[data-stage]") && ring("metric"));

/** A form that says so is answered in words: what it leads to is seen only later. */
document.body.addEventListener("htmx:after:request", ({ detail: { ctx } }) => {
  const { done } = ctx.sourceElement.dataset;
  if (done && ctx.response?.raw.ok) toast(done);
});

// Links

/** To another section with the state of this one, as it is now. */
page.addEventListener("click", ({ target }) => {
  const link = target.closest(".tabs a");
  if (!link) return;
  const tab = new URL(link.href).searchParams.get("tab");
  const wanted = query();
  wanted.delete("tab");
  if (tab) wanted.set("tab", tab);
  link.search = wanted;
});

// Config

const search = document.getElementById("find");

function filter() {
  const wanted = search.value.trim().toLowerCase();
  for (const row of document.querySelectorAll("#config tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  remember("find", wanted);
}

search?.addEventListener("input", filter);

const copy = document.getElementById("copy-config");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.onclick = async () => {
    await navigator.clipboard.writeText(document.getElementById("config-json").textContent);
    toast(copy.dataset.done);
  };
}

// Keyboard

/** The charts' stage before or behind the one that is shown. */
function step(way) {
  const choices = [...document.querySelectorAll("#charts button[data-stage]")];
  const here = choices.findIndex((each) => each.ariaPressed === "true");
  choices[(here + way + choices.length) % choices.length]?.click();
}

keys({
  "[": [() => step(-1), "Charts of the stage before"],
  "]": [() => step(1), "Charts of the next stage"],
  f: [() => log.toggleFollow(), "Follow the log"],
});
