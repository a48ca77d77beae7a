// Asks the API for what charts need: one question for all of them, and the next one when that is answered.

import { reason } from "./app.js";
import { Known } from "./series.js";

/** The server did not answer, or refused; the message says so. */
class Failed extends Error {}

export class Loader {
  /** `owner`: { runId, texts, visible, questions(), renew(known), answered() }. */
  constructor(owner) {
    this.owner = owner;
    this.isBusy = false;
    this.isBehind = false; // events were missed: what there is must be asked again
  }

  /** Bring every visible chart up to date. A chart that failed waits until it is told to try again. */
  async load() {
    if (this.isBusy) return;
    const wants = this.wants();
    const charts = [...new Set(wants.flatMap((want) => want.charts))];
    if (!charts.length) return;
    this.isBusy = true;
    charts.forEach((chart) => chart.begin());
    let error = null;
    try {
      if (this.isBehind) await this.renew();
      await Promise.all(wants.map((want) => this.answer(want)));
    } catch (failure) {
      if (!(failure instanceof Failed)) throw failure;
      error = failure.message;
    } finally {
      this.isBusy = false;
      charts.forEach((chart) => chart.finish(error));
    }
    this.owner.answered();
    this.load();
  }

  /** Which charts need which answer. */
  wants() {
    const { visible } = this.owner;
    return Object.entries(this.owner.questions())
      .map(([held, question]) => ({ held, question, charts: visible.filter((chart) => !chart.error && chart.needs(held, question)) }))
      .filter(({ charts }) => charts.length);
  }

  async renew() {
    const series = await this.fetch("metrics/names");
    this.isBehind = false;
    this.owner.renew(new Known(series));
  }

  async answer({ held, question, charts }) {
    const names = charts.map(({ name }) => name).join(",");
    const lines = (await Promise.all(question.parts.map((part) => this.fetch("metrics", { names, ...part })))).flat();
    for (const chart of charts) {
      chart.receive(
        held,
        question,
        lines.filter(({ name }) => name === chart.name),
      );
    }
  }

  async fetch(path, query = {}) {
    const address = `/api/v1/runs/${this.owner.runId}/${path}?${new URLSearchParams(query)}`;
    const answer = await fetch(address).catch(() => {
      throw new Failed(this.owner.texts.unreachable);
    });
    if (!answer.ok) throw new Failed(reason(await answer.text(), answer.status));
    return answer.json();
  }
}
