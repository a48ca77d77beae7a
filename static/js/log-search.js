// Lines of a log that hold a text, or that are warnings or errors: asked of the server, listed above the log, each leads to its place.

import { remember } from "./address.js";
import { mark } from "./log-text.js";
import { fill } from "./words.js";

const TYPING_MS = 250;
const LIVE_MS = 1000;
const PAGE = 200; // lines
const MOST = 2000;

export class Search {
  constructor(dock) {
    this.dock = dock;
    this.input = dock.part("q");
    this.levels = dock.part("levels");
    this.panel = dock.part("found");
    this.list = this.panel.querySelector("ol");
    this.count = dock.part("count");
    this.q = "";
    this.level = null;
    this.asking = 0; // only the newest question is answered
    this.clear();
    this.bind();
  }

  get isOn() {
    return Boolean(this.q || this.level);
  }

  bind() {
    this.input.oninput = () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.change(this.input.value, this.level), TYPING_MS);
    };
    this.input.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.step(event.shiftKey ? -1 : 1);
    };
    this.levels.onclick = ({ target }) => {
      const button = target.closest("button");
      if (button) this.change(this.q, button.dataset.level || null);
    };
    this.list.onclick = ({ target }) => {
      const item = target.closest("li");
      if (item) this.go([...this.list.children].indexOf(item));
    };
    this.list.onkeydown = (event) => {
      const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!way) return;
      event.preventDefault();
      this.step(way);
      this.list.children[this.current].firstElementChild.focus();
    };
    this.panel.onscroll = () => {
      if (this.panel.scrollHeight - this.panel.clientHeight - this.panel.scrollTop < 200) this.page();
    };
    this.dock.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.isOn) return;
      event.preventDefault();
      this.change("", null);
      this.input.focus();
    });
  }

  begin(q, level) {
    if (q || level) this.change(q, this.levels.querySelector(`[data-level="${CSS.escape(level ?? "")}"]`) ? level : null);
  }

  /** Search for something else. */
  async change(q, level) {
    clearTimeout(this.typing);
    if (this.input.value !== q) this.input.value = q;
    if (q === this.q && level === this.level) return;
    Object.assign(this, { q, level });
    remember("q", q);
    remember("level", level);
    for (const button of this.levels.children) button.setAttribute("aria-pressed", (button.dataset.level || null) === level);
    this.dock.view.search(q);
    await this.again();
  }

  /** The same in another log, or from its beginning. */
  again() {
    this.clear();
    this.panel.hidden = !this.isOn;
    this.count.textContent = this.dock.texts.searching;
    return this.isOn ? this.ask() : null;
  }

  clear() {
    this.asking += 1;
    this.found = [];
    this.next = 0;
    this.isWhole = false; // all lines up to the end are listed
    this.current = -1;
    this.list.replaceChildren();
    this.count.textContent = "";
  }

  /** More was printed. */
  more() {
    if (!this.isOn || !this.isWhole) return;
    this.soon ??= setTimeout(() => {
      this.soon = null;
      if (this.isOn && this.isWhole) this.ask();
    }, LIVE_MS);
  }

  /** More can be listed. */
  page() {
    if (this.isOn && !this.isWhole && !this.isAsking && this.found.length < MOST) this.ask();
  }

  async ask() {
    const asking = ++this.asking;
    this.isAsking = true;
    try {
      await this.dock.reads; // what is shown decides where to search
      const answer = await this.dock.readHere({ q: this.q, level: this.level, offset: this.next, limit: PAGE });
      if (asking === this.asking) this.take(answer);
    } catch (error) {
      if (asking === this.asking) this.count.textContent = fill(this.dock.texts.failed, { reason: error.message });
    } finally {
      if (asking === this.asking) this.isAsking = false;
    }
  }

  /** A line that had not ended when it was found is found again, perhaps longer. */
  take({ lines, next }) {
    while (this.found.length && this.found.at(-1).offset >= this.next) {
      this.found.pop();
      this.list.lastElementChild.remove();
    }
    this.found.push(...lines);
    this.list.append(...lines.map((line) => this.item(line)));
    this.next = next;
    this.isWhole = lines.length < PAGE;
    this.point();
    const { none, found, more, one } = this.dock.texts;
    const n = this.found.length;
    const text = n === 0 ? none : !this.isWhole ? more : n === 1 ? one : found;
    this.count.textContent = fill(text, { n: n.toLocaleString("en") });
  }

  item({ line, text }) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = -1;
    button.dataset.line = line;
    button.textContent = text;
    mark(button, this.q);
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  async step(way) {
    if (this.input.value !== this.q) await this.change(this.input.value, this.level);
    const n = this.found.length;
    if (n) this.go((Math.max(this.current, way < 0 ? 0 : -1) + way + n) % n);
  }

  go(index) {
    this.current = index;
    this.point();
    const { top, bottom } = this.panel.getBoundingClientRect();
    const row = this.list.children[index].getBoundingClientRect();
    if (row.top < top) this.panel.scrollTop -= top - row.top;
    if (row.bottom > bottom) this.panel.scrollTop += row.bottom - bottom;
    const { line, offset } = this.found[index];
    this.dock.jump(line, offset);
  }

  /** One line of the list is reached by the tab key, the arrows lead to the others. */
  point() {
    this.current = Math.min(this.current, this.found.length - 1);
    [...this.list.children].forEach((item, index) => {
      item.firstElementChild.tabIndex = index === Math.max(this.current, 0) ? 0 : -1;
      if (index === this.current) item.firstElementChild.setAttribute("aria-current", "true");
      else item.firstElementChild.removeAttribute("aria-current");
    });
  }
}
