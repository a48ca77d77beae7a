// The one event stream of a browser, shared by its tabs: opened once, resumed where it broke, told to every listener in order.
//
// A listener says up to which event it knows everything. It is told what is newer, each event once. When events are missing,
// because the server has forgotten them, it is told "reset" and reads anew. It is told of "outages", parts of the house that do not answer. Runs in the shared worker, or in the page where there is none.

const KINDS = ["job", "metric", "progress", "checkpoint", "log", "note", "sample", "evaluation", "queue"];
const KEPT = 2000; // events for tabs that open later
const RETRY_MS = 2000;
const SILENT_MS = 40000; // the server says something every 15 s; after so long a silence the line is dead, whatever the browser thinks of it

export class LiveSource {
  constructor() {
    this.listeners = new Set();
    this.recent = [];
    this.floor = null; // every event above it is in `recent`
    this.last = null;
    this.heard = null; // when the server was last heard
    this.state = "connecting";
    this.outages = {}; // since when which part does not answer
    this.stream = null;
    setInterval(() => this.watch(), SILENT_MS / 8);
  }

  /** Tell `send` everything after event `after`, from now on. Returns what ends it. */
  listen(after, send) {
    const listener = { after, send };
    this.listeners.add(listener);
    if (this.stream === null || this.state === "signed-out") this.open(after);
    else if (after < this.floor) send({ type: "reset", last: this.last });
    else this.recent.forEach((event) => this.tell(listener, event));
    send({ type: "status", state: this.state, heard: this.heard });
    if (this.stream.readyState === EventSource.OPEN) send({ type: "outages", outages: this.outages });
    return () => {
      this.listeners.delete(listener);
      if (!this.listeners.size) this.close();
    };
  }

  open(after) {
    this.floor ??= after;
    this.last ??= after;
    this.stream?.close();
    this.stream = new EventSource(`/api/v1/events?last_event_id=${this.last}`);
    this.stream.addEventListener("hello", (event) => this.greet(event));
    this.stream.addEventListener("ping", () => this.change("live"));
    this.stream.addEventListener("outages", (event) => this.know(JSON.parse(event.data)));
    for (const kind of KINDS) this.stream.addEventListener(kind, (event) => this.take(event));
    this.stream.onerror = () => this.fail();
  }

  close() {
    this.stream?.close();
    this.stream = null;
    this.recent = [];
    this.floor = this.last = this.heard = null;
    this.outages = {};
    this.state = "connecting";
  }

  greet(event) {
    this.change("live");
    this.know({}); // what is away follows
    if (JSON.parse(event.data).complete) return;
    this.recent = [];
    this.floor = this.last = Number(event.lastEventId);
    for (const listener of this.listeners) listener.after = this.last;
    this.send({ type: "reset", last: this.last });
  }

  take(message) {
    const event = JSON.parse(message.data);
    if (event.id <= this.last) return;
    this.last = event.id;
    this.heard = Date.now();
    this.recent.push(event);
    if (this.recent.length > KEPT) this.floor = this.recent.shift().id;
    for (const listener of this.listeners) this.tell(listener, event);
  }

  tell(listener, event) {
    if (event.id <= listener.after) return;
    listener.after = event.id;
    listener.send({ type: "event", event });
  }

  /** A browser comes back by itself after a broken line, but not after an answer that refuses; then we ask why and try again. */
  fail() {
    this.change("reconnecting");
    if (this.stream.readyState !== EventSource.CLOSED) return;
    const broken = this.stream;
    setTimeout(async () => {
      if (this.stream !== broken) return;
      const answer = await fetch("/api/v1/queue").catch(() => null);
      if (this.stream !== broken) return;
      if (answer?.status === 401) return this.change("signed-out");
      const problem = answer?.status === 503 ? await answer.json().catch(() => ({})) : {};
      if (problem.code === "database_away") this.know({ ...this.outages, database: problem.since });
      if (this.stream === broken) this.open(this.last);
    }, RETRY_MS);
  }

  /** A machine that slept holds lines that are long dead. */
  watch() {
    if (this.state !== "live" || Date.now() - this.heard < SILENT_MS) return;
    this.change("reconnecting");
    this.stream.close();
    this.open(this.last);
  }

  change(state) {
    if (state === "live") this.heard = Date.now();
    this.state = state;
    this.send({ type: "status", state, heard: this.heard });
  }

  know(outages) {
    this.outages = outages;
    this.send({ type: "outages", outages });
  }

  send(message) {
    for (const listener of this.listeners) listener.send(message);
  }
}
