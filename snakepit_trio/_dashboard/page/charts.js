// Small charts of the last minutes. Everything is made by the DOM's own functions: no text becomes markup.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300, HEIGHT = 80;

const CHARTS = [
  {title: "Calls per second", unit: rate, curves: [["succeeded", "succeeded"], ["failed, late or crashed", failures], ["cancelled", "cancelled"]]},
  {title: "Time of calls", unit: seconds, curves: [["half of them", "p50"], ["95 %", "p95"], ["99 %", "p99"]]},
  {title: "Calls under way", unit: whole, curves: [["running", "running"], ["queued", "queued"]]},
  {title: "Memory of workers", unit: bytes, curves: [["resident", "memory"]]},
];

function failures(sample) { return sample.failed + sample.timed_out + sample.crashed; }

export function rate(value) { return value >= 100 ? whole(value) : `${Number(value.toFixed(1))}`; }

export function whole(value) { return Math.round(value).toLocaleString("en"); }

export function seconds(value) {
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Number((value * 1e3).toPrecision(3))} ms`;
  if (value < 100) return `${value.toFixed(1)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function bytes(value) {
  if (value < 2 ** 20) return `${Math.round(value / 1024)} KiB`;
  if (value < 2 ** 30) return `${(value / 2 ** 20).toFixed(value < 10 * 2 ** 20 ? 1 : 0)} MiB`;
  return `${(value / 2 ** 30).toFixed(2)} GiB`;
}

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

function valueOf(curve, sample) { return typeof curve === "function" ? curve(sample) : sample[curve]; }

class Chart {
  constructor({title, unit, curves}, parent) {
    this.title = title;
    this.unit = unit;
    const figure = document.createElement("figure");
    figure.className = "chart";
    const caption = document.createElement("figcaption");
    caption.append(title);
    this.most = document.createElement("span");
    this.most.className = "quiet";
    caption.append(this.most);
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    for (const y of [1, HEIGHT / 2, HEIGHT - 1]) element("line", {class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y}, this.svg);
    const legend = document.createElement("ul");
    legend.className = "legend";
    this.curves = curves.map(([name, value], at) => {
      const item = document.createElement("li");
      const sign = element("svg", {viewBox: "0 0 24 8", "aria-hidden": "true"}, item);
      element("line", {class: `curve k${at + 1}`, x1: 0, x2: 24, y1: 4, y2: 4}, sign);
      const now = document.createElement("span");
      item.append(now);
      legend.append(item);
      return {name, value, now, line: element("path", {class: `curve k${at + 1}`, d: ""}, this.svg)};
    });
    figure.append(caption, this.svg, legend);
    parent.append(figure);
  }

  draw(samples, length) {
    const all = this.curves.flatMap(({value}) => samples.map((sample) => valueOf(value, sample)));
    const most = Math.max(0, ...all.filter((value) => value !== null));
    const top = niceTop(most, this.unit);
    const last = samples.at(-1);
    this.most.textContent = most > 0 ? `top: ${this.unit(top)}` : "";
    for (const {name, value, now, line} of this.curves) {
      line.setAttribute("d", path(samples.map((sample) => valueOf(value, sample)), top, length));
      const current = last ? valueOf(value, last) : null;
      now.textContent = `${name} ${current === null ? "–" : this.unit(current)}`;
    }
    const told = this.curves.map(({now}) => now.textContent).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}: now ${told}`);
  }
}

// The smallest round number that has room for all values.
function niceTop(most, unit) {
  if (most <= 0) return 1;
  const base = unit === bytes ? 2 ** 20 : 10 ** Math.floor(Math.log10(most));
  const steps = unit === bytes ? [1, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384, 65536] : [1, 2, 5, 10];
  const found = steps.find((step) => step * base >= most);
  return found === undefined ? most : found * base;
}

function path(values, top, length) {
  const step = WIDTH / (length - 1), begin = WIDTH - step * (values.length - 1);
  let drawn = "", pen = "M";
  values.forEach((value, at) => {
    if (value === null) {
      pen = "M"; // no call has ended in that second: a gap
      return;
    }
    const x = (begin + at * step).toFixed(1), y = (HEIGHT - 1 - (value / top) * (HEIGHT - 2)).toFixed(1);
    const alone = pen === "M" && (at + 1 === values.length || values[at + 1] === null);
    drawn += `${pen}${x} ${y}${alone ? `l${step.toFixed(1)} 0` : ""}`;
    pen = "L";
  });
  return drawn;
}

export function makeCharts(parent) {
  const charts = CHARTS.map((each) => new Chart(each, parent));
  return (samples, length) => charts.forEach((chart) => chart.draw(samples, length));
}
