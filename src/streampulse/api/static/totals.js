// The three cards at the top.
import { MinuteChart } from "./charts.js";
import { count, money, time, write } from "./format.js";

const element = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const TWEEN_MS = 450;

// A figure that counts up or down to its new value. data-value holds the new value at once.
class Figure {
  #element;
  #text;
  #shown = null;
  #frame = 0;

  // text(number, exact): the text to show; exact is null while the figure counts
  constructor(id, text) {
    this.#element = element(id);
    this.#text = text;
  }

  set(number, exact) {
    if (this.#element.dataset.value === String(exact)) return;
    this.#element.dataset.value = String(exact);
    cancelAnimationFrame(this.#frame);
    const from = this.#shown;
    if (from === null || still.matches || document.hidden) return this.#show(number, exact);
    const began = performance.now();
    const step = (now) => {
      const part = Math.min(1, (now - began) / TWEEN_MS);
      if (part === 1) return this.#show(number, exact);
      this.#shown = from + (number - from) * (1 - (1 - part) ** 3);
      write(this.#element, this.#text(this.#shown, null));
      this.#frame = requestAnimationFrame(step);
    };
    this.#frame = requestAnimationFrame(step);
  }

  #show(number, exact) {
    this.#shown = number;
    write(this.#element, this.#text(number, exact));
  }
}

export class Totals {
  #viewers = new Figure("viewers", (number) => count(Math.round(number)));
  #chat = new Figure("chat", (number) => count(Math.round(number)));
  #donations = new Figure("donations", (number, exact) => money(exact ?? number.toFixed(2)));
  #charts = {
    viewers: new MinuteChart(element("viewers-chart"), { name: "--viewers" }),
    chat: new MinuteChart(element("chat-chart"), { name: "--chat", bars: true }),
    donations: new MinuteChart(element("donations-chart"), { name: "--donations", bars: true }),
  };

  show({ head, trend }) {
    const { totals } = head;
    this.#viewers.set(totals.active_viewers, totals.active_viewers);
    element("viewers-detail").textContent = `in ${count(totals.streams)} ${totals.streams === 1 ? "stream" : "streams"}`;
    this.#chat.set(totals.last_minute.chat_messages, totals.last_minute.chat_messages);
    const { current_minute: now } = totals;
    element("chat-detail").textContent = now.window_start
      ? `${count(now.chat_messages)} so far in ${time(now.window_start)}`
      : "none yet";
    this.#donations.set(Number(totals.last_minutes.donations_usd), totals.last_minutes.donations_usd);
    const { donations } = totals.last_minutes;
    element("donations-detail").textContent = `${count(donations)} ${donations === 1 ? "donation" : "donations"}`;
    this.#draw(head, trend);
  }

  redraw() {
    for (const chart of Object.values(this.#charts)) chart.redraw();
  }

  #draw(head, trend) {
    const { totals } = head;
    if (!head.window_start) {
      // Clear charts that were drawn before: tables that were emptied have no last hour.
      for (const chart of Object.values(this.#charts)) chart.clear();
      return;
    }
    const last = Date.parse(head.window_start) / 1000;
    const first = trend.first_window ? Date.parse(trend.first_window) / 1000 : last;
    const minutes = [];
    for (let minute = first; minute <= last; minute += 60) minutes.push(minute);
    // The newest minute is incomplete. Its viewers are those present now; its other numbers are the sums so far.
    const columns = {
      viewers: [...trend.active_viewers, totals.active_viewers],
      chat: [...trend.chat_messages, totals.current_minute.chat_messages],
      donations: [...trend.donations_usd, totals.current_minute.donations_usd].map(Number),
    };
    const labels = { viewers: "Viewers", chat: "Chat messages a minute", donations: "Donations a minute in US dollars" };
    for (const [name, values] of Object.entries(columns)) {
      const most = Math.max(...values);
      const least = Math.min(...values);
      const label = `${labels[name]} from ${time(head.window_start)} back over ${minutes.length} minutes: between ${least} and ${most}, now ${values.at(-1)}`;
      this.#charts[name].show(minutes.slice(-values.length), values, label);
    }
  }
}
