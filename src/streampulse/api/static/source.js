// The event stream: opens it, opens it again, and says in which state it is. EventSource comes back by itself after a
// lost connection, and not after a refusal (503 while there are no numbers), nor when a connection dies in silence.
const SILENCE_MS = 15_000;
// A refusal's status is not told to pages, so it is asked for: with the head of the smallest answer, which costs little.
const ASKED = "/metrics/latest?limit=1";
const ANSWER_MS = 5000;
// A log-in that has ended may begin again in another window, so it is asked again, seldom.
const ENDED_MS = 60_000;
const WAITS_MS = [1000, 2000, 4000, 8000, 15_000];

export class Source {
  #url;
  #handlers;
  #events = null;
  #heardAt = 0;
  #refused = 0;
  #timer = 0;

  // handlers: news(event name, document), lost(seconds until the next try, or null where the browser decides; whether
  // there were too many requests), ended() when the log-in has
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
      // Nobody answers: as when the API is away.
    }
    // It may have been opened again meanwhile.
    if (events !== this.#events) return;
    clearTimeout(this.#timer);
    if (answer?.status === 401) {
      this.#timer = setTimeout(() => this.#ask(), ENDED_MS);
      this.#handlers.ended();
      return;
    }
    // To try before the server's time has come only makes more requests that are too many.
    const asked = answer?.status === 429 ? 1000 * Number(answer.headers.get("Retry-After")) : 0;
    const wait = asked || WAITS_MS[Math.min(this.#refused, WAITS_MS.length - 1)];
    this.#refused += 1;
    this.#timer = setTimeout(() => this.#open(), wait);
    this.#handlers.lost(wait / 1000, answer?.status === 429);
  }

  #watch() {
    // One that was refused has its own time to be opened again.
    if (this.#events.readyState === EventSource.CLOSED) return;
    if (performance.now() - this.#heardAt > SILENCE_MS) {
      this.#handlers.lost(null);
      this.#open();
    }
  }
}
