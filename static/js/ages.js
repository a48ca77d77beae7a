// Times that the reader's clock carries on: <time data-age> counts up, <time data-clock> is shown in the reader's zone,
// data-clock="short" without seconds.
//
// An element with data-lost-after (seconds) around a data-age gets the class is-lost once the age is greater: a page
// must not call a silent job running, also when the server that would say so is gone.

import { put } from "./words.js";

const skew = new Date(document.body.dataset.now) - Date.now(); // the server's clock counts

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function age(iso) {
  return Math.max(0, (Date.now() + skew - new Date(iso)) / 1000);
}

function tick() {
  for (const element of document.querySelectorAll("time[data-age]")) {
    const seconds = age(element.dateTime);
    put(element, `${duration(seconds)} ago`);
    const owner = element.closest("[data-lost-after]");
    if (owner) owner.classList.toggle("is-lost", seconds > Number(owner.dataset.lostAfter));
  }
}

export function localise() {
  for (const element of document.querySelectorAll("time[data-clock][datetime]")) {
    const at = new Date(element.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    element.textContent = today
      ? at.toLocaleTimeString([], { timeStyle: element.dataset.clock || "medium" })
      : at.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  }
}

function refresh() {
  tick();
  localise();
}

refresh();
setInterval(refresh, 1000);
document.body.addEventListener("htmx:after:swap", refresh);
