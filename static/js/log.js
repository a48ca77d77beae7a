// The log dock: what the trainer prints, read from any byte, followed live, searched. The bytes come from GET /runs/{id}/logs.
//
//   const log = startLog(document.getElementById("log"), { runId: 7, stage: null, live });
//   log.show("vision")      a stage's output; null: the one that the run is at, from now on
//   log.toggleFollow()
//
// `stage` is given only where somebody asked for one. Reads are made one after the other, each from where the last one ended, so no byte
// comes twice and none is left out. What is held is in log-held.js, what is in the document in log-view.js; log-search.js and
// log-header.js have the controls.

import { asked, remember } from "./address.js";
import { reason } from "./app.js";
import { Header } from "./log-header.js";
import { Held, PIECE } from "./log-held.js";
import { Search } from "./log-search.js";
import { levelTeller } from "./log-text.js";
import { View } from "./log-view.js";
import { fill } from "./words.js";

const BURST_MS = 100; // between two reads
const RETRY_MS = 3000;
const FAR = 4 * PIECE; // behind the end by more than this, the end is opened anew

export function startLog(element, { runId, stage = null, live }) {
  const dock = new Dock(element, runId, stage);
  live.on("log", (event) => dock.hear(event));
  live.on("job", (event) => dock.hear(event));
  live.on("reset", () => dock.do(() => dock.lookAround()));
  return { show: (stage) => dock.show(stage), toggleFollow: () => dock.setFollow(!dock.view.follow, true) };
}

class Dock {
  constructor(element, runId, stage) {
    this.element = element;
    this.runId = runId;
    this.texts = JSON.parse(element.dataset.texts);
    this.chosen = { stage, attempt: null }; // null: the newest
    this.at = null; // { stage, job_id, attempt } of what is shown
    this.held = null;
    this.met = new Set(); // "job/attempt" that printed something and are not shown
    this.unmet = []; // job_ids of those that were not looked at yet
    this.isPast = false; // a newer attempt or stage would be shown, were it followed
    this.isDue = true; // what was chosen is to be opened
    this.reads = Promise.resolve();
    this.header = new Header(element, runId, this.texts);
    this.view = new View(this.part("box"), {
      older: () => this.bring("older"),
      newer: () => this.bring("newer"),
      leave: () => this.setFollow(false),
      levelOf: levelTeller(JSON.parse(element.dataset.levels)),
    });
    this.search = new Search(this);
    this.bind();
    this.begin();
  }

  part(name) {
    return this.element.querySelector(`[data-log-${name}]`);
  }

  bind() {
    for (const control of this.element.querySelectorAll("[data-scripted]")) control.hidden = false;
    this.part("box").classList.add("on");
    this.part("box").addEventListener("keydown", (event) => this.press(event));
    this.part("follow").onchange = ({ target }) => this.setFollow(target.checked, true);
    this.part("wrap").onclick = () => this.setWrap(!this.part("box").classList.contains("wrap"));
    this.part("expand").onclick = () => this.setTall(!this.element.classList.contains("tall"));
    this.part("attempt").onchange = ({ target }) => this.showAttempt(Number(target.value), target.length);
    this.part("stages")?.addEventListener("click", (event) => {
      const link = event.target.closest("[data-stage]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      this.show(link.dataset.stage);
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || !this.element.classList.contains("tall")) return;
      event.preventDefault();
      this.setTall(false);
    });
  }

  begin() {
    const line = Number(asked("line"));
    const follow = asked("follow") ?? localStorage.getItem("log-follow") ?? "1";
    this.setWrap(localStorage.getItem("log-wrap") === "1");
    this.view.follow = this.part("follow").checked = follow !== "0" && !line;
    if (line) this.jump(line);
    else if ("begun" in this.element.dataset) this.do(() => this.openEnd()); // else a gate keeps all of it: the first line that is printed opens it
    this.search.begin(asked("q") ?? "", asked("level"));
  }

  // What a person does

  /** Another stage, or with null the one that the run is at. The last that has begun is that one, and those that come after it. */
  show(stage) {
    this.choose(stage === this.header.newestStage ? null : stage, null);
  }

  showAttempt(attempt, newest) {
    if (attempt === newest) this.show(this.at.stage);
    else this.choose(this.at.stage, attempt);
  }

  choose(stage, attempt) {
    this.chosen = { stage, attempt };
    this.isDue = true;
    remember("log_stage", stage);
    remember("line", null);
    this.do(() => this.openEnd());
  }

  /** `keep`: here and on the pages to come. */
  setFollow(on, keep = false) {
    this.view.follow = this.part("follow").checked = on;
    if (keep) localStorage.setItem("log-follow", on ? "1" : "0");
    remember("follow", on ? null : "0");
    if (!on) return;
    remember("line", null);
    this.do(() => (this.held?.ends && !this.isPast && !this.isDue ? this.view.update() : this.openEnd()));
  }

  setWrap(on) {
    this.part("box").classList.toggle("wrap", on);
    this.part("wrap").setAttribute("aria-pressed", on);
    localStorage.setItem("log-wrap", on ? "1" : "0");
    if (this.view.follow) this.view.stick();
  }

  setTall(on) {
    this.element.classList.toggle("tall", on);
    this.part("expand").setAttribute("aria-pressed", on);
    this.part("expand").focus();
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { End: () => this.setFollow(true, true), Home: () => this.jump(1) }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  /** Stop following and show a line; `offset` is its byte, if that is known. */
  jump(line, offset = null) {
    this.setFollow(false);
    remember("line", line);
    this.do(() => this.openAt(line, offset));
  }

  // What the run does

  hear({ run_id, kind, payload }) {
    const { job_id, attempt } = payload;
    if (run_id !== this.runId) return;
    const isShown = this.at?.job_id === job_id && attempt <= this.at.attempt;
    if (!isShown) {
      const name = `${job_id}/${attempt}`;
      if (kind === "job" || this.met.has(name)) return; // one that has printed nothing yet, or that we know
      this.met.add(name);
      this.unmet.push(job_id);
    }
    this.wake();
  }

  wake() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.do(() => this.catchUp());
    }, BURST_MS);
  }

  // Reading

  /** After what is being read already. What fails is told and tried again. */
  do(task) {
    this.reads = this.reads.then(task).then(
      () => this.header.say(""),
      (error) => {
        this.header.say(fill(this.texts.failed, { reason: error.message }));
        setTimeout(() => this.wake(), RETRY_MS);
      },
    );
  }

  async read(more) {
    const wanted = Object.entries(more).filter(([, value]) => value !== null && value !== "");
    const answer = await fetch(`/api/v1/runs/${this.runId}/logs?${new URLSearchParams(wanted)}`).catch(() => {
      throw new Error(this.texts.away);
    });
    if (!answer.ok) throw new Error(reason(await answer.text(), answer.status));
    return answer.json();
  }

  /** Of the attempt that is shown. */
  readHere(more) {
    const { stage, attempt } = this.at ?? this.chosen;
    return this.read({ stage, attempt: attempt || null, ...more });
  }

  async openEnd() {
    this.open(await this.read({ ...this.chosen, tail: PIECE, whole_lines: true }));
  }

  /** Show a piece: its end, or one of its lines. */
  open(part, line) {
    const { stage, job_id, attempt } = part;
    const moved = this.at && (this.at.job_id !== job_id || this.at.attempt !== attempt);
    this.at = { stage, job_id, attempt };
    this.isDue = false;
    this.held = new Held(part);
    this.header.tell(this.at, part);
    this.view.open(this.held, line);
    if (!moved) return;
    this.isPast = false;
    this.search.again();
  }

  async openAt(line, offset) {
    if (this.held?.has(line)) return this.view.open(this.held, line);
    const byte = offset ?? (await this.readHere({ line, limit: 1 })).offset;
    this.open(await this.readHere({ offset: Math.max(0, byte - PIECE / 2), limit: PIECE, whole_lines: true }), line);
  }

  /** Take what was printed since. */
  async catchUp() {
    if (this.isDue) return this.openEnd();
    while (this.unmet.length) await this.meet(this.unmet.shift());
    if (!this.view.follow && this.held.isFull) this.held.leaveEnd();
    if (this.held.ends) await this.takeAll();
    else this.header.tell(this.at, await this.readHere({ offset: this.held.next, limit: 1 }));
    this.search.more();
  }

  async takeAll() {
    for (;;) {
      const part = await this.readHere({ offset: this.held.next });
      if (this.view.follow && part.end - part.next > FAR) return this.openEnd();
      this.header.tell(this.at, part);
      this.take(part);
      if (part.next === part.offset || part.next >= part.end) return;
    }
  }

  take(part) {
    this.held.append(part);
    this.view.update();
  }

  /** A job that nothing is shown of: a newer attempt, the next stage, or no stage at all. */
  async meet(job_id) {
    const stage = job_id === this.at.job_id ? this.at.stage : null;
    const part = await this.read({ stage, tail: PIECE, whole_lines: true });
    if (part.job_id !== job_id) return;
    this.header.offerStage(part.stage);
    if (part.stage === this.at.stage) this.header.offerAttempts(part.stage, part.attempt);
    if (this.chosen.attempt !== null || (this.chosen.stage ?? part.stage) !== part.stage) return;
    if (this.view.follow) this.open(part);
    else this.isPast = true;
  }

  /** Events were missed: perhaps that of a newer attempt or stage. */
  async lookAround() {
    if (this.isDue) return this.openEnd();
    const { job_id, attempt } = await this.read({ ...this.chosen, limit: 1 });
    if (job_id === this.at.job_id && attempt === this.at.attempt) return this.catchUp();
    this.isPast = true;
    if (this.view.follow) await this.openEnd();
  }

  /** The reader has come near an end of what is held. */
  bring(side) {
    if (this.bringing || (side === "older" ? this.held.offset === 0 : this.held.ends)) return;
    this.bringing = true;
    this.do(() => this[side]().finally(() => (this.bringing = false)));
  }

  async older() {
    const { held, view } = this;
    const until = held.offset;
    const start = Math.max(0, until - PIECE);
    const part = await this.readHere({ offset: start, limit: until - start, whole_lines: true });
    while (part.next < until) {
      const rest = await this.readHere({ offset: part.next, limit: until - part.next });
      Object.assign(part, { next: rest.next, text: part.text + rest.text });
    }
    held.prepend(part);
    view.update();
    view.up();
  }

  async newer() {
    this.take(await this.readHere({ offset: this.held.next }));
    if (this.view.last < this.held.last) this.view.down();
  }
}
