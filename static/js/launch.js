// The launch form, with scripts: checked while one types, changes marked and undone one by one, settings searched, the preview in tabs.
// What is right, what is wrong and what is changed is the server's to say: POST /runs/new/plan. Without this file the form works as it is.

import { reason } from "./app.js";
import { fill, put } from "./words.js";

const PAUSE_MS = 250; // after the last key
const form = document.getElementById("launch");
const byId = (id) => document.getElementById(id);
const controls = [...form.querySelectorAll("[data-field]")];
const texts = byId("state").dataset;

const find = byId("find");

// Ask while one types

let waiting = null;
let asking = null;

function askSoon({ target }) {
  if (target === find) return;
  clearTimeout(waiting);
  waiting = setTimeout(ask, PAUSE_MS);
}

/** One question at a time; a newer one takes the place of one that is not answered yet. */
async function ask() {
  asking?.abort();
  asking = new AbortController();
  try {
    const body = new URLSearchParams(new FormData(form));
    const answer = await fetch(form.dataset.plan, { method: "POST", body, signal: asking.signal, headers: { Accept: "application/json" } });
    if (answer.ok) show(await answer.json());
    else say(reason(await answer.text(), answer.status), true);
  } catch (error) {
    if (error.name !== "AbortError") say(texts.away, true);
  }
}

function show(plan) {
  drawChain();
  showErrors(plan.errors);
  showChanges(new Set(plan.changed));
  showOffers(plan.offers);
  for (const model of models) form.elements[`local.${model}`].placeholder = form.elements[model].value;
  for (const words of document.querySelectorAll("[data-words]")) put(words, plan[words.dataset.words]);
  put(byId("differs"), plan.differs);
  put(byId("views"), plan.views);
  for (const link of chain.querySelectorAll(".link")) put(link.querySelector(".learning"), plan.learning[link.querySelector("[type=checkbox]").value]);
  remember(plan.changed);
}

/** In the bar at the foot; with the id of an element, as a link to it. */
function say(text, isBad, anchor = "") {
  const state = byId("state");
  state.classList.toggle("bad", isBad);
  const link = document.createElement("a");
  Object.assign(link, { href: `#${anchor}`, textContent: text });
  state.replaceChildren(anchor ? link : text);
}

function showErrors(errors) {
  byId("summary")?.remove();
  const wrong = new Map();
  for (const { field, message } of errors) wrong.set(field, [...(wrong.get(field) ?? []), message]);
  for (const control of controls) {
    const messages = wrong.get(control.dataset.field);
    control.classList.toggle("wrong", Boolean(messages));
    for (const input of control.querySelectorAll("[aria-describedby]")) setInvalid(input, Boolean(messages));
    const place = control.querySelector(".err");
    put(place, messages?.join("\n") ?? "");
    place.hidden = !messages;
    if (messages) control.closest("details")?.setAttribute("open", "");
  }
  if (errors.length === 0) return say(texts.fine, false);
  say(errors.length === 1 ? texts.one : fill(texts.many, { n: errors.length }), true, errors[0].anchor);
  for (const control of controls) wrong.delete(control.dataset.field);
  for (const message of [...wrong.values()].flat()) byId("state").append(` ${message}`);
}

function setInvalid(input, isWrong) {
  if (isWrong) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
}

function showChanges(changed) {
  for (const control of controls) {
    const isChanged = changed.has(control.dataset.field);
    control.classList.toggle("changed", isChanged);
    for (const mark of control.querySelectorAll(".was, .reset")) mark.hidden = !isChanged;
  }
  for (const group of form.querySelectorAll("details")) {
    const count = group.querySelector(".count");
    const changes = group.querySelectorAll(".control.changed").length;
    put(count, fill(count.dataset.one, { n: changes }));
    count.hidden = changes === 0;
  }
}

/** Checkpoints that stopped fitting are disabled with the reason; the chosen one stays, and its error says why. */
function showOffers(offers) {
  for (const option of byId("f-init_from").querySelectorAll("option[data-label]")) {
    const whyNot = offers[option.value];
    option.disabled = Boolean(whyNot) && !option.selected;
    put(option, whyNot ? `${option.dataset.label} – ${whyNot}` : option.dataset.label);
  }
}

/** What differs from the start is in the address: to reload, to go back to, to send to somebody. */
function remember(changed) {
  const query = new URLSearchParams();
  for (const { name, value } of form.querySelectorAll("[data-origin]")) query.set(name, value);
  for (const field of changed) query.set(field, valueOf(field));
  if (weights() !== start.dataset.weights || models.some((model) => changed.includes(model))) query.set("weights", weights());
  history.replaceState(history.state, "", `/runs/new?${query}`);
}

function valueOf(field) {
  if (field === "init_from") return checkpoint();
  if (models.includes(field)) return modelOf(field);
  return new FormData(form).getAll(field).filter(Boolean).join(",");
}

// The chain: what each stage starts from

const chain = byId("f-stage");

function drawChain() {
  let previous = "";
  for (const link of chain.querySelectorAll(".link")) {
    const { checked, value } = link.querySelector("[type=checkbox]");
    const from = previous ? fill(chain.dataset.best, { stage: previous }) : startName();
    put(link.querySelector(".from"), checked ? from : chain.dataset.off);
    if (checked) previous = value;
  }
}

function startName() {
  const path = checkpoint();
  return path ? fill(chain.dataset.from, { checkpoint: path.split("/").pop() }) : chain.dataset[weights()];
}

// What it starts from: weights of the hub, of a local directory, or of a checkpoint

const start = form.querySelector("[data-weights]");
const models = ["vision_model", "language_model"];
const weights = () => form.elements.weights.value;
const checkpoint = () => (weights() === "checkpoint" ? form.elements.init_from.value || form.elements.start_from.value : "");
const isPath = (text) => /^[/.~]/.test(text);
let before = weights();

/** A model has an input for its name and one for its directory, which holds where something stands in it. */
function modelOf(model) {
  return (weights() === "local" && form.elements[`local.${model}`].value) || form.elements[model].value;
}

/** Another choice takes the models along: what counted before stands in its inputs. The hub has no paths; it gets back the ids it can have. */
function takeAlong(model) {
  const [name, directory] = [form.elements[model], form.elements[`local.${model}`]];
  if (before === "local") name.value = directory.value || name.value;
  if (weights() === "local" && isPath(name.value)) directory.value = name.value;
  if (weights() === "hub" && isPath(name.value)) name.value = name.closest("[data-hub]").dataset.hub;
}

function chooseWeights() {
  models.forEach(takeAlong);
  before = weights();
}

// Undo a change

function reset(control) {
  const { field, first } = control.dataset;
  if (field === "init_from") startFrom(first);
  else for (const each of controls) if (each.dataset.field === field) each.querySelector(".box input, .box select").value = each.dataset.first;
  control.querySelector("[type=radio]:checked, .box input, .box select").focus();
  ask();
}

function startFrom(path) {
  const list = form.elements.start_from;
  const isListed = [...list.options].some((option) => option.value === path);
  list.value = isListed ? path : "";
  form.elements.init_from.value = isListed ? "" : path;
  form.elements.weights.value = start.dataset.weights;
  chooseWeights();
}

// A checkpoint is picked from the list or typed: the later choice holds.
form.elements.start_from.addEventListener("change", ({ target }) => target.value && (form.elements.init_from.value = ""));
form.elements.init_from.addEventListener("input", ({ target }) => target.value && (form.elements.start_from.value = ""));

// Find a setting

const wasOpen = new Map();

function search() {
  const wanted = find.value.trim().toLowerCase();
  let found = 0;
  for (const group of form.querySelectorAll("details")) found += searchGroup(group, wanted);
  byId("none").hidden = !wanted || found > 0;
  put(byId("found"), wanted ? String(found) : "");
}

function searchGroup(group, wanted) {
  const settings = [...group.querySelectorAll("[data-find]")];
  for (const setting of settings) setting.hidden = !`${setting.dataset.find} ${setting.querySelector(".about").textContent}`.toLowerCase().includes(wanted);
  const found = settings.filter((setting) => !setting.hidden).length;
  const heads = group.querySelector(".heads");
  if (heads) heads.hidden = !group.querySelector(".staged[data-find]:not([hidden])");
  group.hidden = found === 0;
  openFound(group, wanted);
  return found;
}

/** A search opens what it finds in; cleared, it leaves the groups as it met them. */
function openFound(group, wanted) {
  if (wanted && !wasOpen.has(group)) wasOpen.set(group, group.open);
  if (wanted) group.open = true;
  else if (wasOpen.has(group)) group.open = wasOpen.get(group);
  if (!wanted) wasOpen.delete(group);
}

// The preview in tabs

function makeTabs() {
  const pieces = [...document.querySelectorAll(".words")];
  const list = document.createElement("div");
  list.className = "seg";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-labelledby", "preview-title");
  const tabs = pieces.map((piece) => makeTab(piece, (tab) => choose(tabs, pieces, tab)));
  list.append(...tabs);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(tabs, pieces, tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length]).focus();
  });
  byId("preview").classList.add("tabbed");
  pieces[0].before(list);
  choose(tabs, pieces, tabs[0]);
}

function makeTab(piece, onChoose) {
  const tab = document.createElement("button");
  Object.assign(tab, { type: "button", id: `tab-${piece.id}`, textContent: piece.querySelector("h3").textContent });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", piece.id);
  piece.setAttribute("role", "tabpanel");
  piece.setAttribute("aria-labelledby", tab.id);
  tab.onclick = () => onChoose(tab);
  return tab;
}

function choose(tabs, pieces, chosen) {
  tabs.forEach((tab, place) => {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    pieces[place].hidden = tab !== chosen;
  });
  return chosen;
}

async function copy(button) {
  const words = button.closest(".words").querySelector("code");
  if (navigator.clipboard) await navigator.clipboard.writeText(words.textContent);
  else copySelected(words); // a page that came by plain http from another machine
  const label = button.querySelector("span");
  const before = label.textContent;
  label.textContent = button.dataset.copied;
  setTimeout(() => (label.textContent = before), 1500);
}

function copySelected(element) {
  getSelection().selectAllChildren(element);
  document.execCommand("copy");
}

// Another starting point keeps what was changed, but for the stages and where they start from, which are what it is about

function keepChanges(link) {
  const url = new URL(link.href);
  for (const control of form.querySelectorAll(".control.changed")) {
    const { field } = control.dataset;
    if (!["stage", "init_from"].includes(field)) url.searchParams.set(field, valueOf(field));
  }
  link.href = url;
}

// On the way back from the run that was launched, the form is the same request as before: launched again, it is the same run

const key = form.elements.request_key;
const [{ type: arrival }] = performance.getEntriesByType("navigation");
const sent = JSON.parse(sessionStorage.getItem("launch") ?? "{}");
if (arrival === "back_forward" && sent.from === location.href) key.value = sent.key;
form.addEventListener("submit", () => sessionStorage.setItem("launch", JSON.stringify({ from: location.href, key: key.value })));

// Begin

for (const radio of form.elements.weights) radio.addEventListener("change", chooseWeights); // before anybody asks
form.addEventListener("input", askSoon);
form.addEventListener("change", askSoon);
form.addEventListener("change", drawChain);
find.addEventListener("input", search);
document.querySelector(".finder").hidden = false;
form.querySelector(".check").hidden = true;
makeTabs();
for (const button of form.querySelectorAll(".copy")) {
  button.hidden = false;
  button.onclick = () => copy(button);
}
for (const button of form.querySelectorAll(".reset")) {
  const control = button.closest(".control");
  button.hidden = !control.classList.contains("changed");
  button.onclick = () => reset(control);
}
for (const link of document.querySelectorAll(".presets a")) link.addEventListener("click", () => keepChanges(link));
if ("check" in form.dataset) ask();
byId("summary")?.focus();
