// The live page. It connects the event stream, the cards, the table and the dialog, and shows the connection's state.
import { ago, time } from "./format.js";
import { History } from "./history.js";
import { Numbers } from "./numbers.js";
import { Source } from "./source.js";
import { Table } from "./table.js";
import { Totals } from "./totals.js";

const element = (id) => document.getElementById(id);
// The page shows how far event time is behind from this delay on. A delay of a few seconds is normal.
const BEHIND_SECONDS = 30;
// An event clock that is further ahead of the server's is wrong: an event with a wrong time was counted.
const AHEAD_SECONDS = 300;
const WORDS = { loading: "Connecting", live: "Live", stale: "Stale", reconnecting: "Reconnecting", ended: "Logged out" };

const numbers = new Numbers();
const totals = new Totals();
const history = new History();
const table = new Table((stream, opener) => history.open(stream, opener));

let state = "loading";
let fresh = performance.now();
let staleSince = null;
let waiting = false;
// How far event time was behind the server's time in the last event, in seconds, and when that event came.
let behind = { seconds: null, at: 0 };

function become(next, notice) {
  element("notice").hidden = !notice;
  element("notice-text").textContent = notice ?? "";
  element("notice-login").hidden = next !== "ended";
  if (next === state) return;
  state = next;
  document.body.dataset.state = next;
  element("connection").textContent = WORDS[next];
  // Screen readers announce changes of state only. The numbers change several times a second.
  element("announcement").textContent = notice ?? WORDS[next];
}

function note({ read_at: read, event_clock: clock }) {
  behind = { seconds: clock ? (Date.parse(read) - Date.parse(clock)) / 1000 : null, at: performance.now() };
}

function draw() {
  waiting = false;
  if (!numbers.head) return;
  totals.show(numbers);
  table.show(numbers);
  history.follow(numbers);
  const { event_clock: clock, window_start: minute } = numbers.head;
  element("clock").textContent = clock ? `${time(clock, true)} UTC` : "no event yet";
  if (clock) element("clock").dateTime = clock;
  element("window").textContent = minute ? `minute ${time(minute)} UTC is filling` : "";
  document.title = numbers.head.totals.active_viewers
    ? `${numbers.head.totals.active_viewers.toLocaleString("en-US")} viewers · streampulse`
    : "streampulse";
}

function showAge() {
  const seconds = (performance.now() - fresh) / 1000;
  element("age").textContent = state === "loading" ? "" : `${ago(Math.max(0, seconds))} ago`;
  // Elapsed time comes from the browser's monotonic clock. Its wall clock may differ from the server's.
  const since = behind.seconds === null ? 0 : behind.seconds + (performance.now() - behind.at) / 1000;
  const off = since >= BEHIND_SECONDS ? `${ago(since)} behind` : since < -AHEAD_SECONDS ? `${ago(-since)} ahead` : "";
  element("behind").hidden = !off;
  element("behind").textContent = off;
}

new Source("/live", {
  news(name, document) {
    if (name === "status") {
      fresh = performance.now() - document.age_seconds * 1000;
      if (document.stale) {
        staleSince ??= time(new Date(Date.now() - document.age_seconds * 1000), true);
        become("stale", `Numbers are from ${staleSince} UTC: ${document.error ?? "the database is slow"}`);
      } else {
        staleSince = null;
        if (numbers.head) become("live");
      }
    } else if (numbers.take(name, document)) {
      // Only a status event tells whether numbers are stale. The server sends one after the first event of a connection.
      note(numbers.head);
      if (staleSince === null) {
        fresh = performance.now();
        become("live");
      }
      // Events may come faster than the screen draws.
      if (!waiting) {
        waiting = true;
        requestAnimationFrame(draw);
      }
    }
    showAge();
  },
  lost(seconds, tooMany) {
    const what = tooMany ? "Too many requests" : "No numbers from the server";
    become("reconnecting", seconds === null ? "The connection is lost, trying again" : `${what}, trying again in ${Math.round(seconds)} s`);
  },
  // Keep the last numbers and add a notice. A log-in form in their place would confuse readers of a display on a wall.
  ended() {
    become("ended", "Your log-in has ended, so these numbers stand still.");
  },
});

setInterval(showAge, 500);

for (const button of document.querySelectorAll(".ranking button")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll(".ranking button")) other.setAttribute("aria-pressed", String(other === button));
    table.rankBy(button.dataset.by);
    draw();
  });
}

// The button switches the colours: as the system, dark, light.
const THEMES = { auto: "as the system has them", dark: "dark", light: "light" };

function theme() {
  return document.documentElement.dataset.theme ?? "auto";
}

function nameTheme() {
  element("theme").setAttribute("aria-label", `Colours: ${THEMES[theme()]}`);
  element("theme").title = `Colours: ${THEMES[theme()]}`;
}

function redraw() {
  totals.redraw();
  history.redraw();
}

element("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(theme()) + 1) % names.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("streampulse.theme", next);
  } catch {
    // The browser may forbid storage. Then the choice lasts until the page is closed.
  }
  nameTheme();
  redraw();
});
matchMedia("(prefers-color-scheme: light)").addEventListener("change", redraw);
nameTheme();
