// The event stream: opens it, reopens it and reports its state. EventSource reconnects after a lost connection. It does
// not reconnect after a refusal (503 while there are no numbers), and it does not notice a silent connection.
const SILENCE_MS = 15_000;
// EventSource does not tell the status of a refusal. A HEAD request for the smallest response finds it out.
const ASKED = "/metrics/latest?limit=1";
const ANSWER_MS = 5000;
// Interval of checks after the log-in has ended: a user may log in again in another window.
const ENDED_MS = 60_000;
const WAITS_MS = [1000, 2000, 4000, 8000, 15_000];

export class Source {
  #url;
  #handlers;
  #events = null;
  #heardAt = 0;
  #refused = 0;
  #timer = 0;

  // handlers:
  //   news(name of the event, document)
  //   lost(seconds until the next try, or null if the browser decides; whether there were too many requests)
  //   ended(), when the log-in has ended
  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    setInterval(() => this.#watch(), 1000);
    addEventListener("online", () => this.#open());
    this.#open();
  }

  #open() {
    clearTimeout(this.#timer);
    this.#events?.close();
    this.#heardAt = performance.now();
    const events = new EventSource(this.#url);
    this.#events = events;
    for (const name of ["snapshot", "update", "status"]) {
      events.addEventListener(name, (message) => {
        this.#heardAt = performance.now();
        this.#refused = 0;
        this.#handlers.news(name, JSON.parse(message.data));
      });
    }
    events.addEventListener("reconnect", (message) => this.#handlers.lost(JSON.parse(message.data).retry_ms / 1000));
    events.addEventListener("error", () => {
      if (events !== this.#events) return;
      this.#heardAt = performance.now();
      if (events.readyState === EventSource.CLOSED) this.#ask();
      else this.#handlers.lost(null);
    });
  }

  async #ask() {
    const events = this.#events;
    let answer = null;
    try {
      answer = await fetch(ASKED, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    } catch {
      // No response. This means the same as an API that is away.
    }
    // The stream may have been reopened during the request.
    if (events !== this.#events) return;
    clearTimeout(this.#timer);
    if (answer?.status === 401) {
      this.#timer = setTimeout(() => this.#ask(), ENDED_MS);
      this.#handlers.ended();
      return;
    }
    // Wait for the time that the server named. An earlier try would be refused as well.
    const asked = answer?.status === 429 ? 1000 * Number(answer.headers.get("Retry-After")) : 0;
    const wait = asked || WAITS_MS[Math.min(this.#refused, WAITS_MS.length - 1)];
    this.#refused += 1;
    this.#timer = setTimeout(() => this.#open(), wait);
    this.#handlers.lost(wait / 1000, answer?.status === 429);
  }

  #watch() {
    // After a refusal, a timer reopens the stream.
    if (this.#events.readyState === EventSource.CLOSED) return;
    if (performance.now() - this.#heardAt > SILENCE_MS) {
      this.#handlers.lost(null);
      this.#open();
    }
  }
}
