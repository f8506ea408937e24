// The dialog with the last hour of one stream. It reads the API when it opens and when a new minute begins.
import { MinuteChart } from "./charts.js";
import { cents, count, money, shown, time, write } from "./format.js";

const MINUTES = 60;
const element = (id) => document.getElementById(id);

export class History {
  #dialog = element("dialog");
  #stream = null;
  #opener = null;
  #minute = null;
  #request = null;
  #charts = {
    viewers: new MinuteChart(element("dialog-viewers-chart"), { name: "--viewers", axes: true }),
    chat: new MinuteChart(element("dialog-chat-chart"), { name: "--chat", bars: true, axes: true }),
    donations: new MinuteChart(element("dialog-donations-chart"), { name: "--donations", bars: true, axes: true }),
  };

  constructor() {
    element("dialog-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog && event.clientX < this.#dialog.getBoundingClientRect().left) this.#dialog.close();
    });
    this.#dialog.addEventListener("close", () => {
      this.#request?.abort();
      this.#stream = null;
      this.#opener?.focus();
    });
  }

  open(stream, opener) {
    this.#stream = stream;
    this.#opener = opener;
    element("dialog-name").textContent = shown(stream);
    // Clear the previous stream's numbers. The request for the new ones may fail.
    for (const id of ["viewers", "most", "chat", "donations"]) {
      write(element(`dialog-${id}`), "–");
      delete element(`dialog-${id}`).dataset.value;
    }
    this.#clear();
    element("dialog-state").textContent = "Loading the last hour";
    element("dialog-rows").replaceChildren();
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#load();
  }

  // Call this with every event, also while the dialog is closed. Otherwise the first event after opening would count as a
  // new minute, and tables that were emptied while the dialog was closed would not count as a change.
  follow(numbers) {
    const begun = numbers.head.window_start !== this.#minute;
    this.#minute = numbers.head.window_start;
    if (this.#stream === null) return;
    const row = numbers.streams.get(this.#stream);
    if (row) write(element("dialog-viewers"), count(row.active_viewers));
    if (begun) this.#load();
  }

  redraw() {
    for (const chart of Object.values(this.#charts)) chart.redraw();
  }

  #clear() {
    for (const chart of Object.values(this.#charts)) chart.clear();
  }

  async #load() {
    const stream = this.#stream;
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    const parameters = new URLSearchParams({ minutes: MINUTES, stream_id: stream });
    try {
      const [history, state] = await Promise.all(
        [`/metrics/history?${parameters}`, `/state?${new URLSearchParams({ stream_id: stream })}`].map(async (address) => {
          const answer = await fetch(address, { signal: request.signal });
          // The API's own message names request headers, which helps programs only.
          if (answer.status === 401) throw new Error("your log-in has ended");
          if (!answer.ok) throw new Error((await answer.json()).error ?? `status ${answer.status}`);
          return answer.json();
        }),
      );
      if (this.#stream === stream) this.#show(history.rows, state.rows);
    } catch (error) {
      if (error.name !== "AbortError") element("dialog-state").textContent = `The history cannot be read now: ${error.message}`;
    }
  }

  #show(rows, states) {
    const sum = rows.reduce((total, row) => total + cents(row.donations_usd), 0n);
    const dollars = `${sum / 100n}.${String(sum % 100n).padStart(2, "0")}`;
    const fact = (id, text, value) => {
      write(element(id), text);
      element(id).dataset.value = String(value);
    };
    const viewers = states[0]?.active_viewers ?? 0;
    const most = rows.reduce((found, row) => Math.max(found, row.active_viewers), 0);
    const chat = rows.reduce((total, row) => total + row.chat_messages, 0);
    fact("dialog-viewers", count(viewers), viewers);
    fact("dialog-most", count(most), most);
    fact("dialog-chat", count(chat), chat);
    fact("dialog-donations", money(dollars), dollars);
    element("dialog-state").textContent = rows.length
      ? `${time(rows[0].window_start)} to ${time(rows.at(-1).window_start)} UTC`
      : "Nothing happened in the last hour";
    this.#draw(rows);
    element("dialog-rows").replaceChildren(...rows.toReversed().map(line));
  }

  #draw(rows) {
    if (!rows.length) return this.#clear();
    const found = new Map(rows.map((row) => [Date.parse(row.window_start) / 1000, row]));
    const minutes = [];
    // A minute without a row has zeros.
    for (let minute = Math.min(...found.keys()); minute <= Math.max(...found.keys()); minute += 60) minutes.push(minute);
    const draw = (name, label, value) => {
      const values = minutes.map((minute) => (found.has(minute) ? value(found.get(minute)) : 0));
      this.#charts[name].show(minutes, values, `${label} over ${minutes.length} minutes, at most ${Math.max(...values)}; each minute is in the table below`);
    };
    draw("viewers", "Viewers", (row) => row.active_viewers);
    draw("chat", "Chat messages", (row) => row.chat_messages);
    draw("donations", "Donations in US dollars", (row) => Number(row.donations_usd));
  }
}

function line(row) {
  const made = document.createElement("tr");
  for (const text of [time(row.window_start), count(row.active_viewers), count(row.chat_messages), money(row.donations_usd)]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    made.append(cell);
  }
  return made;
}
