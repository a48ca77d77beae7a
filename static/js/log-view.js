// The lines in the document: a slice of those held, around what the reader looks at. It grows towards the end that is scrolled to
// and is cut at the other one. While it follows, the end stays in sight; else what is in sight stays where it is.

import { mark, paint } from "./log-text.js";

const STEP = 100; // lines
const MOST = 500;
const EDGE = 600; // pixels from an end at which more is brought

export class View {
  /** `older` and `newer` bring more to hold; `leave` is told that the reader scrolled away from the end; `levelOf` knows a line's level. */
  constructor(box, { older, newer, leave, levelOf }) {
    Object.assign(this, { box, older, newer, leave, levelOf });
    this.list = box.firstElementChild;
    this.follow = true;
    this.wanted = ""; // text to mark
    this.held = null;
    this.rows = new Map(); // number -> { node, text }
    this.first = 1;
    this.last = 0;
    this.top = 0; // where we know it is scrolled to
    box.addEventListener("scroll", () => this.scrolled());
    new ResizeObserver(() => this.follow && this.stick()).observe(box);
  }

  /** Show other lines: those around one that is pointed out, or the last. */
  open(held, wanted = null) {
    const line = Math.min(wanted ?? held.last, held.last);
    this.held = held;
    this.first = line - STEP;
    this.last = line + STEP;
    this.rows.clear();
    this.list.replaceChildren();
    this.draw();
    if (wanted === null) this.stick();
    else this.go(line);
  }

  /** What is held has changed. */
  update() {
    if (this.follow) {
      this.last = this.held.last;
      if (this.last - this.first > MOST) this.first = this.last - STEP;
    } else if (this.reachesEnd) {
      this.last += STEP;
      if (this.last - this.first > MOST && this.below < EDGE) this.first = this.last - MOST;
      else this.last = Math.min(this.last, this.first + MOST);
    }
    this.draw();
  }

  /** Mark other text. */
  search(wanted) {
    this.wanted = wanted;
    this.rows.forEach((row) => (row.text = null));
    if (this.held) this.draw();
  }

  draw() {
    const { held, box } = this;
    this.first = Math.max(this.first, held.first);
    this.last = Math.min(this.last, held.last);
    this.reachesEnd = this.last === held.last;
    const anchor = this.follow ? null : this.anchor();
    for (const [number, { node }] of this.rows) {
      if (number >= this.first && number <= this.last) continue;
      node.remove();
      this.rows.delete(number);
    }
    this.fill();
    if (this.follow) this.stick();
    else if (anchor?.node.isConnected) this.scroll(box.scrollTop + anchor.node.getBoundingClientRect().top - anchor.top);
  }

  fill() {
    const { lines, first } = this.held;
    let place = this.list.firstElementChild;
    for (let number = this.first; number <= this.last; number++) {
      const row = this.rows.get(number) ?? this.insert(number, place);
      if (row.text !== lines[number - first]) this.write(row, lines[number - first]);
      place = row.node.nextElementSibling;
    }
  }

  insert(number, place) {
    const node = document.createElement("div");
    node.dataset.line = number;
    this.list.insertBefore(node, place);
    const row = { node, text: null };
    this.rows.set(number, row);
    return row;
  }

  write(row, text) {
    const { html, level } = paint(text, this.levelOf);
    row.text = text;
    row.node.className = level ?? "";
    row.node.innerHTML = html || "\n";
    mark(row.node, this.wanted);
  }

  /** The uppermost line in sight, and where it is. */
  anchor() {
    const edge = this.box.getBoundingClientRect().top;
    for (const node of this.list.children) {
      const { top, bottom } = node.getBoundingClientRect();
      if (bottom > edge) return { node, top };
    }
    return null;
  }

  /** Bring a line of the slice into sight, and point it out. */
  go(line) {
    const node = this.rows.get(line)?.node;
    if (!node) return;
    this.box.querySelector(".here")?.classList.remove("here");
    node.classList.add("here");
    const { top } = this.box.getBoundingClientRect();
    this.scroll(this.box.scrollTop + node.getBoundingClientRect().top - top - this.box.clientHeight / 3);
  }

  stick() {
    this.scroll(this.box.scrollHeight);
  }

  scroll(top) {
    this.box.scrollTop = top;
    this.top = this.box.scrollTop;
  }

  /** Pixels from what is in sight to the end. */
  get below() {
    return this.box.scrollHeight - this.box.clientHeight - this.box.scrollTop;
  }

  scrolled() {
    if (!this.held) return;
    const wentUp = this.box.scrollTop < this.top - 1;
    this.top = this.box.scrollTop;
    if (this.follow && wentUp && this.below > 2) this.leave();
    if (this.follow) return;
    if (this.top < EDGE) this.up();
    else if (this.below < EDGE) this.down();
  }

  up() {
    if (this.first === this.held.first) return this.older();
    this.first -= STEP;
    this.last = Math.min(this.last, this.first + MOST); // draw() knows the limits of what is held
    this.draw();
  }

  down() {
    if (this.last === this.held.last) return this.newer();
    this.last += STEP;
    this.first = Math.max(this.first, this.last - MOST);
    this.draw();
  }
}
