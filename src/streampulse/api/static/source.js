// The event stream: opens it, opens it again, and says in which state it is. EventSource comes back by itself after a
// lost connection, and not after a refusal (503 while there are no numbers), nor when a connection dies in silence.
const SILENCE_MS = 15_000;
const WAITS_MS = [1000, 2000, 4000, 8000, 15_000];

export class Source {
  #url;
  #handlers;
  #events = null;
  #heardAt = 0;
  #refused = 0;
  #timer = 0;

  // handlers: news(event name, document), lost(seconds until the next try, or null where the browser decides)
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
      if (events.readyState === EventSource.CLOSED) this.#later();
      else this.#handlers.lost(null);
    });
  }

  #later() {
    const wait = WAITS_MS[Math.min(this.#refused, WAITS_MS.length - 1)];
    this.#refused += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), wait);
    this.#handlers.lost(wait / 1000);
  }

  #watch() {
    if (performance.now() - this.#heardAt > SILENCE_MS) {
      this.#handlers.lost(null);
      this.#open();
    }
  }
}
