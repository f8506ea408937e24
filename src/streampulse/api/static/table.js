// The ranked table. Rows are moved, not replaced, so that the focus stays and readers can follow a row.
import { drawSpark, makeSpark } from "./charts.js";
import { cents, count, money, shown } from "./format.js";

const MOST = 50;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const amount = {
  active_viewers: (row) => row.active_viewers,
  chat_messages: (row) => row.chat_messages,
  donations_usd: (row) => Number(cents(row.donations_usd)),
};

export class Table {
  by = "active_viewers";
  // Number of windows in a row's sums. With very many streams the server keeps fewer windows, or none.
  #minutes = 0;
  #rows = new Map();
  #table = document.getElementById("table");
  #body = document.getElementById("rows");
  #open;

  // open(stream, button): called when the user opens a stream
  constructor(open) {
    this.#open = open;
    this.#body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) open(row.dataset.stream, row.querySelector(".open"));
    });
  }

  rankBy(by) {
    this.by = by;
    this.#table.dataset.by = by;
    for (const head of this.#table.querySelectorAll("th[data-column]")) {
      if (head.dataset.column === by) head.setAttribute("aria-sort", "descending");
      else head.removeAttribute("aria-sort");
    }
  }

  show(numbers) {
    const ranked = numbers.ranked(this.by, MOST);
    this.#minutes = numbers.head.minutes;
    for (const span of this.#table.querySelectorAll(".span")) span.textContent = this.#minutes;
    // The trend has the windows before the newest one. The current number of viewers is one point more.
    if (ranked.length) document.getElementById("trend-minutes").textContent = (ranked[0].trend?.length ?? 0) + 1;
    const before = this.#places();
    const most = ranked.length ? Math.max(1, amount[this.by](ranked[0])) : 1;
    const wanted = ranked.map((row, index) => this.#row(row, index + 1, amount[this.by](row) / most));
    const kept = new Set(wanted);
    for (const [stream, row] of this.#rows) {
      if (!kept.has(row)) {
        row.remove();
        this.#rows.delete(stream);
      }
    }
    wanted.forEach((row, index) => {
      if (this.#body.children[index] !== row) move(this.#body, row, this.#body.children[index] ?? null);
    });
    this.#glide(before);
    this.#table.hidden = !ranked.length;
    document.getElementById("empty").hidden = Boolean(ranked.length);
    const { streams } = numbers.head.totals;
    const cut = ranked.length < numbers.streams.size || streams > ranked.length;
    const foot = cut
      ? `The first ${count(ranked.length)}; ${count(streams)} streams have viewers`
      : `${count(ranked.length)} ${ranked.length === 1 ? "stream" : "streams"}`;
    document.getElementById("foot").textContent = this.#minutes ? foot : `${foot}. Of so many, chat and donations are added up for all streams together only.`;
  }

  #row(numbers, rank, share) {
    let row = this.#rows.get(numbers.stream_id);
    if (!row) {
      row = makeRow(numbers.stream_id);
      this.#rows.set(numbers.stream_id, row);
    }
    const { cells } = row;
    write(cells[0], rank);
    cells[1].style.setProperty("--share", `${(share * 100).toFixed(1)}%`);
    write(cells[3], count(numbers.active_viewers), numbers.active_viewers);
    // A sum over no window is unknown, not zero.
    const sum = (cell, text, value) => (this.#minutes ? write(cell, text, value) : write(cell, "–", ""));
    sum(cells[4], count(numbers.chat_messages), numbers.chat_messages);
    sum(cells[5], money(numbers.donations_usd), numbers.donations_usd);
    const values = [...(numbers.trend ?? []), numbers.active_viewers];
    const drawn = values.join();
    if (row.drawn !== drawn) {
      row.drawn = drawn;
      drawSpark(cells[2].firstChild, values);
      cells[2].lastChild.textContent = values.length > 1 ? `from ${values[0]} to ${values.at(-1)}` : "no earlier minute to compare with";
    }
    return row;
  }

  #places() {
    if (still.matches || document.hidden) return null;
    return new Map([...this.#rows.values()].map((row) => [row, row.offsetTop]));
  }

  #glide(before) {
    if (!before) return;
    for (const [row, top] of before) {
      const distance = row.isConnected ? top - row.offsetTop : 0;
      if (distance && Math.abs(distance) < 600) {
        row.animate([{ transform: `translateY(${distance}px)` }, { transform: "none" }], { duration: 350, easing: "ease-out" });
      }
    }
  }
}

// Without moveBefore, moving an element removes its focus.
function move(body, row, next) {
  if (row.parentNode === body && body.moveBefore) return body.moveBefore(row, next);
  const focused = row.contains(document.activeElement) ? document.activeElement : null;
  body.insertBefore(row, next);
  focused?.focus({ preventScroll: true });
}

function write(cell, text, value = text) {
  if (cell.dataset.value === String(value)) return;
  cell.dataset.value = String(value);
  cell.textContent = text;
}

function makeRow(stream) {
  const row = document.createElement("tr");
  row.dataset.stream = stream;
  const cell = (className, column) => {
    const made = document.createElement(className === "name" ? "th" : "td");
    if (className === "name") made.scope = "row";
    made.className = className;
    if (column) made.dataset.column = column;
    row.append(made);
    return made;
  };
  cell("rank");
  const name = cell("name");
  const share = document.createElement("span");
  share.className = "share";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "open";
  button.setAttribute("aria-haspopup", "dialog");
  const isolated = document.createElement("bdi");
  isolated.textContent = shown(stream);
  button.append(isolated);
  button.title = stream;
  name.append(share, button);
  const trend = cell("trend");
  const words = document.createElement("span");
  words.className = "unseen";
  trend.append(makeSpark(), words);
  cell("number", "active_viewers");
  cell("number", "chat_messages");
  cell("number", "donations_usd");
  return row;
}
