// The row of tools above the charts: axis, stage, smoothing, logarithm, which metrics, and the way back out of a zoom.
// It tells what was chosen and shows what it is given; the view itself is charts.js's.

import { fill } from "./words.js";

export class ChartTools {
  /** `change({ x: "epoch" })` is told what was chosen; `pick(names)` which metrics, null for the default ones; `reset()` ends a zoom. */
  constructor(root, texts, { change, pick, reset }) {
    this.root = root;
    this.texts = texts;
    this.smooth = root.querySelector("[data-tool=smooth]");
    this.log = root.querySelector("[data-tool=logy]");
    this.zoomed = root.querySelector("[data-tool=zoom]");
    this.picker = root.querySelector("[data-tool=metrics]");
    this.list = this.picker.querySelector("ul");
    this.search = this.picker.querySelector("[data-tool=find]");
    root.addEventListener("click", ({ target }) => {
      const button = target.closest("button[data-x], button[data-stage]");
      if (button) change({ ...button.dataset });
    });
    this.smooth.addEventListener("input", () => change({ smooth: Number(this.smooth.value) / 100 }));
    this.log.addEventListener("change", () => change({ logy: this.log.checked }));
    this.zoomed.addEventListener("click", reset);
    this.listenToPicker(pick);
  }

  listenToPicker(pick) {
    const { picker, list, search } = this;
    list.addEventListener("change", () => pick([...list.querySelectorAll(":checked")].map((box) => box.value)));
    picker.querySelector("[data-tool=default]").addEventListener("click", () => pick(null));
    search.addEventListener("input", () => this.filter());
    picker.addEventListener("toggle", () => picker.open && search.focus());
    picker.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !picker.open) return;
      event.preventDefault();
      picker.open = false;
      picker.querySelector("summary").focus();
    });
    document.addEventListener("click", ({ target }) => {
      if (!picker.contains(target)) picker.open = false;
    });
  }

  filter() {
    const wanted = this.search.value.trim().toLowerCase();
    for (const item of this.list.children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
  }

  /** Show the view, with its stage. */
  show(view, stage) {
    for (const button of this.root.querySelectorAll("button[data-x]")) press(button, button.dataset.x === view.x);
    for (const button of this.root.querySelectorAll("button[data-stage]")) press(button, button.dataset.stage === stage);
    this.smooth.value = Math.round(view.smooth * 100);
    this.smooth.style.setProperty("--v", `${(view.smooth / 0.99) * 100}%`);
    this.smooth.nextElementSibling.textContent = view.smooth.toFixed(2);
    this.log.checked = view.logy;
  }

  /** Say that a part is shown, and what came meanwhile beyond it. */
  showZoom(isZoomed, beyond) {
    this.root.classList.toggle("is-zoomed", isZoomed);
    this.zoomed.hidden = !isZoomed;
    const [short, full] = this.zoomed.querySelectorAll("[data-part]");
    short.textContent = beyond ? fill(this.texts.pausedShort, { n: beyond.toLocaleString("en") }) : this.texts.zoomed;
    full.textContent = beyond ? fill(this.texts.paused, { n: beyond.toLocaleString("en") }) : this.texts.zoomed;
    this.zoomed.title = `${full.textContent}. ${this.texts.showAll}`;
  }

  /** Offer these metrics, those that are shown ticked. */
  offer(names, shown) {
    const known = [...this.list.querySelectorAll("input")];
    if (known.map((box) => box.value).join() !== names.join()) {
      this.list.replaceChildren(...names.map((name) => this.choice(name)));
      this.filter();
    }
    for (const box of this.list.querySelectorAll("input")) box.checked = shown.includes(box.value);
  }

  choice(name) {
    const item = document.getElementById("metric-choice").content.firstElementChild.cloneNode(true);
    item.querySelector("input").value = name;
    item.querySelector("span").textContent = name;
    return item;
  }
}

function press(button, isPressed) {
  button.setAttribute("aria-pressed", String(isPressed));
}
