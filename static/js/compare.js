// Evaluations side by side: the map follows the 360° view, the address follows both, j and k open the question after and before.

import { keys } from "./app.js";
import "./pano.js";
import { mapPath, turned } from "./sphere.js";

const REMEMBER_MS = 300; // browsers refuse more than a hundred changes of the address in half a minute
const START = { yaw: 0, pitch: 0, fov: 90 }; // left out of the address

const viewer = () => document.getElementById("pano");
const views = () => JSON.parse(viewer().dataset.views);

// Where one looks

function showLook({ yaw, pitch, fov, aspect }) {
  document.querySelector("#flat .cam")?.setAttribute("d", mapPath({ yaw, pitch, fov, aspect }));
  const readout = document.getElementById("look");
  if (readout) readout.textContent = `yaw ${yaw.toFixed(0)}° · pitch ${pitch.toFixed(0)}° · fov ${fov.toFixed(0)}°`;
}

/** Parameters of the address for where one looks now, with that view chosen; what the address says without them is left out. */
function lookParams(view) {
  const { yaw, pitch, fov } = viewer().dataset;
  const start = { ...START, ...views()[view - 1], fov: START.fov };
  const isThere = Math.abs(turned(yaw - start.yaw)) < 0.05;
  return { view, yaw: isThere ? "" : yaw, pitch: Number(pitch) === start.pitch ? "" : pitch, fov: Number(fov) === start.fov ? "" : fov };
}

function withLook(address, view) {
  const url = new URL(address, location.href);
  for (const [name, value] of Object.entries(lookParams(view))) {
    if (value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  return url.pathname + url.search.replaceAll("%2C", ",");
}

/** Keep the look in the address, and in the links that stay at this question. */
function remember() {
  if (!viewer()) return;
  const { view } = viewer().dataset;
  history.replaceState(history.state, "", withLook(location.href, view));
  for (const link of document.querySelectorAll("a[data-look]")) {
    for (const name of ["href", "hx-get", "hx-push-url"]) {
      if (link.hasAttribute(name)) link.setAttribute(name, withLook(link.getAttribute(name), link.dataset.look === "unchosen" ? "" : view));
    }
  }
}

let remembering = null;
function rememberSoon() {
  remembering ??= setTimeout(() => {
    remembering = null;
    remember();
  }, REMEMBER_MS);
}

document.addEventListener("look", ({ detail }) => {
  showLook(detail);
  if (detail.byHand) rememberSoon();
});

// The views of the model

function choose(number) {
  const { yaw, pitch } = views()[number - 1];
  viewer().dataset.view = number;
  for (const link of document.querySelectorAll("#views a")) link.toggleAttribute("aria-current", false);
  document.querySelector(`#views a[data-to="${number}"]`).setAttribute("aria-current", "true");
  for (const mark of ["#flat .fp", "#flat .fl"]) document.querySelectorAll(mark).forEach((each, index) => each.classList.toggle("on", index + 1 === number));
  viewer().look(yaw, pitch, undefined, true);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("#views a");
  if (!link || !viewer() || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  choose(Number(link.dataset.to));
});

// Another question

/** The list shows the open question; the page itself stays where it is. */
function showCurrent() {
  const list = document.getElementById("list");
  const current = list?.querySelector("[aria-current]");
  if (!current) return;
  const [outer, inner] = [list.getBoundingClientRect(), current.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop += inner.top - outer.top;
  if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom;
  if (inner.left < outer.left) list.scrollLeft += inner.left - outer.left;
  if (inner.right > outer.right) list.scrollLeft += inner.right - outer.right;
}

document.addEventListener("htmx:after:swap", () => {
  clearTimeout(remembering); // what was looked at before is another question's
  remembering = null;
  viewer()?.tell?.();
  showCurrent();
});

keys({
  j: [() => document.querySelector("#samples [rel=next]")?.click(), "The next question"],
  k: [() => document.querySelector("#samples [rel=prev]")?.click(), "The question before"],
});

if (viewer()?.tell) viewer().tell(); // it may have looked before this script listened
showCurrent();
