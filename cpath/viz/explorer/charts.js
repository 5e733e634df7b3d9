// Charts as SVG, drawn at the size that they are shown at, so that their text keeps its size.

const LOWEST = -1,
  HIGHEST = 2.5; // of the faithfulness that an axis shows

// A round number that is not smaller, for the end of an axis.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((end) => end >= value * 0.999);
}

function axisLabel(value) {
  return Number(value.toPrecision(3)).toString().replace("-", "−");
}

// An empty drawing with marks at some values of its vertical axis, from `low` to `high`.
class Chart {
  constructor(box, {height, below, low, high, marks, unit, label}) {
    this.width = box.clientWidth || 600;
    Object.assign(this, {height, low, high, left: 46, right: this.width - 12, top: 20, bottom: height - below});
    this.drawing = svg("svg", {viewBox: `0 0 ${this.width} ${height}`, height, role: "img", "aria-label": label});
    for (const value of marks) {
      this.level("axis", value);
      this.text({x: this.left - 8, y: this.y(value) + 4, "text-anchor": "end"}, axisLabel(value));
    }
    this.text({x: 0, y: 11}, unit);
    box.replaceChildren(this.drawing);
  }

  y(value) {
    const within = Math.max(this.low, Math.min(this.high, value));
    return this.top + ((this.bottom - this.top) * (this.high - within)) / (this.high - this.low);
  }

  add(name, settings, ...children) {
    const element = svg(name, settings, ...children);
    this.drawing.append(element);
    return element;
  }

  text(settings, words) {
    return this.add("text", settings, words);
  }

  level(look, value, from = this.left, to = this.right) {
    return this.add("line", {class: look, x1: from, x2: to, y1: this.y(value), y2: this.y(value)});
  }

  // Tells the horizontal place of a click; of a finger or a pressed button also as it moves.
  onPoint(told) {
    const area = this.add("rect", {
      class: "pick",
      x: this.left,
      y: 0,
      width: this.right - this.left,
      height: this.height,
    });
    const tell = (event) => told(event.clientX - area.getBoundingClientRect().left);
    area.addEventListener("pointerdown", tell);
    area.addEventListener("pointermove", (event) => event.buttons && tell(event));
  }
}

// Bars for the sites, from input to output, with strokes for other values; a click or a finger picks a site.
function siteBars(box, {values, others = [], reference = null, unit, label, kind, height, top = null}) {
  const known = [...values, ...others, reference ?? 0].filter((value) => !Number.isNaN(value));
  const high = top ?? ceiling(Math.max(...known));
  const chart = new Chart(box, {height, below: 26, low: 0, high, marks: [0, high / 2, high], unit, label});
  const step = (chart.right - chart.left) / values.length;
  const x = (place) => chart.left + step * place;
  const thick = Math.max(1, Math.min(0.78 * step, step - 1.5));
  const band = {x: x(current.site), y: chart.top - 4, width: step, height: chart.bottom - chart.top + 4};
  chart.drawing.prepend(svg("rect", {class: "band", ...band}));
  values.forEach((value, place) => {
    if (Number.isNaN(value)) return;
    const title = `${current.sites[place].name}: ${unit === "%" ? perCent(value) : value.toFixed(3)}`;
    const bar = {x: x(place) + (step - thick) / 2, y: chart.y(value), width: thick, "data-value": value};
    const look = `bar ${kind}${place === current.site ? "" : " faint"}`;
    chart.add("rect", {class: look, ...bar, height: chart.bottom - chart.y(value)}, svg("title", {}, title));
  });
  others.forEach((value, place) => chart.level("tick-b", value, x(place + 0.08), x(place + 0.92)));
  if (reference !== null) chart.level("reference", reference);
  chart.text({x: chart.left, y: height - 6}, "input");
  chart.text({x: chart.right, y: height - 6, "text-anchor": "end"}, "output");
  chart.onPoint((at) => change({site: Math.max(0, Math.min(values.length - 1, Math.floor(at / step)))}));
}

// Lines of numbers over the stops of the slider; a click or a finger moves the slider.
function faithChart(box, lines) {
  const height = 230;
  const known = lines.flatMap((line) => [...line.values]).filter((value) => !Number.isNaN(value));
  const low = Math.max(LOWEST, Math.min(0, ...known) - 0.02);
  const high = Math.min(HIGHEST, Math.max(1, ...known) + 0.05);
  const marks = [-1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5].filter((value) => value >= low && value <= high);
  const label = "Sufficiency and necessity over the sparsity";
  const chart = new Chart(box, {height, below: 44, low, high, marks, unit: "part of the answer", label});
  const inner = chart.right - chart.left - 24;
  const x = (place) => chart.left + 12 + (STOPS === 1 ? inner / 2 : (inner * place) / (STOPS - 1));
  chart.level("reference", 1);
  chart.add("line", {class: "marker", x1: x(current.stop), x2: x(current.stop), y1: chart.top, y2: chart.bottom});
  const every = Math.ceil((34 * STOPS) / inner);
  FACTS.sparsity.forEach((value, place) => {
    const at = {x: x(place), y: chart.bottom + 18, "text-anchor": "middle"};
    if (place % every === 0) chart.text(at, axisLabel(value));
  });
  const middle = {x: (chart.left + chart.right) / 2, y: height - 6, "text-anchor": "middle"};
  chart.text(middle, `${current.kind}s pruned (%)`);
  for (const line of lines) addLine(chart, line, x);
  chart.onPoint((at) => {
    const distances = FACTS.sparsity.map((_, place) => Math.abs(x(place) - chart.left - at));
    change({stop: distances.indexOf(Math.min(...distances))});
  });
}

function addLine(chart, {values, look, measure}, x) {
  const known = [...values.keys()].filter((place) => !Number.isNaN(values[place]));
  const points = known.map((place) => `${x(place)},${chart.y(values[place])}`).join(" ");
  chart.add("polyline", {class: `line ${look} ${measure}`, points});
  if (look !== "control" && known.includes(current.stop)) {
    chart.add("circle", {class: look, cx: x(current.stop), cy: chart.y(values[current.stop]), r: 4.5});
  }
}
