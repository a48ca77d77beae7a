// On every page: the theme, the live badge, messages, questions before what cannot be undone, keyboard shortcuts.

import { duration } from "./ages.js";
import { live } from "./live.js";
import { put } from "./words.js";

// Messages

/** Show a sentence for a while; one that says what failed stays until it is clicked away. */
export function toast(text, kind = "info") {
  const toasts = document.getElementById("toasts");
  if ([...toasts.children].some((each) => each.textContent === text)) return;
  const message = document.createElement("button");
  message.className = `toast ${kind}`;
  message.textContent = text;
  message.onclick = () => message.remove();
  toasts.append(message);
  if (kind === "info") setTimeout(() => message.remove(), 6000);
}

/** What a problem document says, or which status came without one. */
export function reason(text, status) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return `The server answered ${status}.`;
  }
}

// Forms that act are sent by htmx and change nothing by themselves: what they led to comes live.
// A piece that is asked for again and again has the notices above the page for a server or a database that is away.
const isAct = (ctx) => ctx?.request?.method !== "GET";

document.body.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
  if (isAct(ctx) || ctx.response.status !== 503) toast(reason(ctx.text, ctx.response.status), "bad");
});

document.body.addEventListener("htmx:error", ({ detail: { ctx } }) => isAct(ctx) && toast("The server does not answer.", "bad"));

document.addEventListener(
  "submit",
  (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) {
      event.preventDefault();
      event.stopPropagation();
    }
  },
  true,
);

// Theme

const theme = document.getElementById("theme");
const isDark = () =>
  getComputedStyle(document.documentElement).colorScheme.trim() === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);

function switchTheme() {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  document.cookie = `theme=${chosen}; path=/; max-age=31536000; samesite=lax`;
  dispatchEvent(new Event("themechange"));
}

theme.hidden = false;
theme.onclick = switchTheme;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));

// The live badge

const badge = document.getElementById("live");
const bar = document.getElementById("lost-stream");
let status = { state: "connecting", heard: null };
let outages = {};

const SAYS = {
  reconnecting: "Reconnecting: the server does not answer. Pages go on by themselves when `panollava up` runs again",
  "signed-out": "This browser is signed out. Reload to sign in.",
};

function showStatus() {
  const { state, heard } = status;
  const isLive = state === "live" && !outages.database; // an open stream of a database that is away tells nothing
  document.body.dataset.live = state;
  badge.dataset.state = isLive ? "live" : "waiting";
  put(badge, isLive ? "Live" : "Not live");
  bar.hidden = state !== "signed-out" && (state !== "reconnecting" || Boolean(outages.database)); // a server that says what is away does answer
  put(bar.firstElementChild, SAYS[state] ?? "");
  put(bar.lastElementChild, state === "reconnecting" && heard ? `, last update ${duration((Date.now() - heard) / 1000)} ago` : "");
}

live.on("status", (message) => {
  status = message;
  showStatus();
});
live.on("outages", (told) => {
  outages = told;
  showStatus();
});
setInterval(showStatus, 1000);

// Keyboard

const GO = { o: "/", r: "/runs", l: "/runs/new", c: "/checkpoints", e: "/evals", d: "/datasets" };
const HELP = [
  ["g then o r l c e d", "Overview, runs, launch, checkpoints, evals, datasets"],
  ["n", "Launch a run"],
  ["/", "Search or filter"],
  ["t", "Light or dark"],
  ["?", "This list"],
  ["Esc", "Close"],
];
const OFF = "shortcuts-off"; // in localStorage: single keys get in the way of some who speak to their machine
const LEADER_MS = 1500;
const dialog = document.getElementById("shortcuts");
const typing = (element) => element.matches("input:not([type=checkbox], [type=radio], [type=range]), textarea, select, [contenteditable]");
let led = 0; // when g was pressed

/** Pages add keys of their own: keys({ f: [follow, "Follow the log"] }). */
export function keys(more) {
  for (const [key, [action, help]] of Object.entries(more)) {
    actions[key] = action;
    HELP.splice(-2, 0, [key, help]);
  }
}

const actions = {
  n: () => (location.href = "/runs/new"),
  t: switchTheme,
  "/": () => document.querySelector("main [type=search]")?.focus(),
  "?": showKeys,
};

function showKeys() {
  const rows = HELP.map(([key, what]) => `<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`).join("");
  dialog.innerHTML = `<h2 id="shortcuts-title">Keyboard</h2><dl>${rows}</dl>
    <form method="dialog"><label class="field"><input type="checkbox" class="sw"> Single keys work, besides ?</label><button class="btn">Close</button></form>`;
  const works = dialog.querySelector("input");
  works.checked = !localStorage.getItem(OFF);
  works.onchange = () => (works.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "1"));
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  const isTaken = event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented;
  if (isTaken || typing(event.target) || dialog.open || (localStorage.getItem(OFF) && event.key !== "?")) return (led = 0);
  const wasLed = Date.now() - led < LEADER_MS;
  led = event.key === "g" && !wasLed ? Date.now() : 0;
  if (wasLed && GO[event.key]) location.href = GO[event.key];
  if (wasLed || led || !actions[event.key]) return;
  event.preventDefault();
  actions[event.key](event);
});
