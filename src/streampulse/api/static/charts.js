// Charts of minutes, drawn by uPlot on a canvas, and the small lines of the table, drawn as SVG.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const NARROW = 240;
const LEAST_MINUTES = 14;

// A chart: for a card without axes, for the dialog with axes.
export class MinuteChart {
  #element;
  #bars;
  #axes;
  #name;
  #nothing;
  #plot = null;
  #data = [[], []];

  constructor(element, { name, bars = false, axes = false }) {
    this.#element = element;
    this.#name = name;
    this.#bars = bars;
    this.#axes = axes;
    // The label that the page has before the first numbers also serves when the numbers are cleared.
    this.#nothing = element.getAttribute("aria-label");
    new ResizeObserver(() => this.#fit()).observe(element);
  }

  // minutes: starts of the minutes, in seconds since the epoch
  show(minutes, values, label) {
    this.#data = [minutes, values];
    this.#element.setAttribute("aria-label", label);
    if (this.#plot) this.#plot.setData(this.#data);
    else this.#draw();
  }

  // Remove the chart. An old chart would stand under another stream's name, or show an hour that has passed.
  clear() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#data = [[], []];
    this.#element.setAttribute("aria-label", this.#nothing);
  }

  // The canvas contains the colours, so a change of theme draws the chart again.
  redraw() {
    if (this.#plot) {
      this.#plot.destroy();
      this.#plot = null;
      this.#draw();
    }
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.#element;
    if (!width || !height) return;
    const line = colour(this.#name);
    const fill = (plot) => {
      const down = plot.ctx.createLinearGradient(0, plot.bbox.top, 0, plot.bbox.top + plot.bbox.height);
      down.addColorStop(0, `${line}55`);
      down.addColorStop(1, `${line}05`);
      return down;
    };
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px Inter, sans-serif" };
    const series = this.#bars
      ? { stroke: line, width: 0, fill: `${line}99`, paths: uPlot.paths.bars({ size: [0.66, 28], radius: 0.25, align: 1 }), points: { show: false } }
      : { stroke: line, width: 2.5, fill, paths: uPlot.paths.spline(), points: { show: false } };
    this.#plot = new uPlot(
      {
        width,
        height,
        // Room for the last label of the axis, half of which lies to the right of the last bar.
        padding: this.#axes ? [8, 20, 0, 0] : [6, this.#bars ? 4 : 0, 0, 0],
        cursor: { show: false },
        legend: { show: false },
        tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
        scales: {
          x: { time: true, range: (_, low, high) => this.#span(low, high) },
          y: { range: (_, low, high) => [this.#bars || this.#axes ? 0 : low * 0.7, high > 0 ? high * (this.#axes ? 1.08 : 1.05) : 1] },
        },
        axes: this.#axes
          ? [{ ...axis, values: [[60, "{HH}:{mm}", null, null, null, null, null, null, 1]], size: 28 }, { ...axis, size: (_, texts) => Math.max(54, 14 + 7 * Math.max(...(texts ?? []).map((text) => (text ?? "").length), 0)) }]
          : [{ show: false }, { show: false }],
        series: [{}, series],
      },
      this.#data,
      this.#element,
    );
  }

  // Bars need room, so a narrow card shows half an hour.
  #span(low, high) {
    const narrow = this.#bars && !this.#axes && this.#element.clientWidth < NARROW;
    const most = (narrow ? 29 : 59) * 60;
    // Do not stretch a few minutes over the full width.
    const first = Math.min(Math.max(low, high - most), high - LEAST_MINUTES * 60);
    return [first, this.#bars ? high + 60 : high];
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.#element;
    if (!width || !height) return;
    if (this.#plot) this.#plot.setSize({ width, height });
    else if (this.#data[0].length) this.#draw();
  }
}

const SVG = "http://www.w3.org/2000/svg";

export function makeSpark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 30");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  for (const name of ["under", "line"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}

export function drawSpark(svg, values) {
  // A line needs two points.
  if (values.length < 2) {
    for (const path of svg.children) path.removeAttribute("d");
    return;
  }
  const most = Math.max(...values, 1);
  const least = Math.min(...values);
  // Raise the scale's lower end only so far that small changes look small.
  const floor = least > most * 0.6 ? most * 0.6 - (most - least) * 0.3 : Math.min(least, most * 0.4);
  const step = 100 / Math.max(values.length - 1, 1);
  const points = values.map((value, index) => `${(index * step).toFixed(1)} ${(28 - (26 * (value - floor)) / (most - floor || 1)).toFixed(1)}`);
  const line = `M${points.join("L")}`;
  svg.children[1].setAttribute("d", line);
  svg.children[0].setAttribute("d", `${line}L100 30L0 30Z`);
}
