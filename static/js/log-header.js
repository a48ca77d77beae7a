// What the log dock's header says: how long the output is, whose it is, whose could be shown instead, and what went wrong.

import { size } from "./log-text.js";
import { fill } from "./words.js";

export class Header {
  constructor(element, runId, texts) {
    Object.assign(this, { element, runId, texts });
  }

  part(name) {
    return this.element.querySelector(`[data-log-${name}]`);
  }

  /** The output of { stage, attempt } has so many line ends and reaches up to byte `end`. */
  tell({ stage, attempt }, { lines, end }) {
    const text = lines === 1 ? this.texts.line : this.texts.lines;
    this.part("size").textContent = fill(text, { n: lines.toLocaleString("en"), size: size(end) });
    this.part("download").href = `/api/v1/runs/${this.runId}/logs/download?${new URLSearchParams({ stage, ...(attempt && { attempt }) })}`;
    this.offerStage(stage);
    this.offerAttempts(stage, attempt);
    this.part("attempt").value = attempt;
    for (const link of this.element.querySelectorAll("[data-stage]")) {
      if (link.dataset.stage === stage) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  /** A stage has begun and can be chosen. */
  offerStage(stage) {
    const link = this.element.querySelector(`[data-stage="${stage}"]`);
    if (link) link.hidden = false;
  }

  /** The attempts of the stage that is shown can be chosen, at least up to that one. */
  offerAttempts(stage, attempt) {
    const choice = this.part("attempt");
    if (choice.dataset.of !== stage) choice.replaceChildren();
    choice.dataset.of = stage;
    const known = Number(this.element.querySelector(`[data-stage="${stage}"]`)?.dataset.attempts ?? 0);
    for (let n = choice.length + 1; n <= Math.max(attempt, known); n++) choice.add(new Option(fill(this.texts.attempt, { n }), n));
    choice.hidden = choice.length < 2;
  }

  get newestStage() {
    return [...this.element.querySelectorAll("[data-stage]:not([hidden])")].at(-1)?.dataset.stage;
  }

  say(text) {
    const note = this.part("note");
    note.hidden = !text;
    note.textContent = text;
  }
}
