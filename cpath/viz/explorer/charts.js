// Charts as SVG, drawn at the size that they are shown at, so that their text keeps its size.

const LOWEST = -1, HIGHEST = 2.5; // of the faithfulness that an axis shows

// A round number that is not smaller, for the end of an axis.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((end) => end >= value * 0.999);
}

function axisLabel(value) {
  return Number(value.toPrecision(3)).toString().replace("-", "−");
}

// Bars for the sites, from input to output; a click or a finger picks one.
function siteBars(box, {values, others = null, reference = null, unit, selected, pick, kind = "a", height = 170, top = null}) {
  const width = box.clientWidth || 600;
  const left = 46, right = 8, above = 18, below = 26;
  const all = [...values, ...(others ?? []), reference ?? 0].filter((value) => !Number.isNaN(value));
  const end = top ?? ceiling(Math.max(...all, 1e-9));
  const x = (place) => left + ((width - left - right) * place) / values.length;
  const y = (value) => above + (height - above - below) * (1 - Math.min(1, value / end));
  const step = x(1) - x(0);
  const drawing = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": box.dataset.label});
  drawing.append(svg("rect", {class: "band", x: x(selected), y: above - 4, width: step, height: height - above - below + 4}));
  for (const value of [0, end / 2, end]) {
    drawing.append(svg("line", {class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value)}));
    drawing.append(svg("text", {x: left - 8, y: y(value) + 4, "text-anchor": "end"}, axisLabel(value)));
  }
  drawing.append(svg("text", {x: 0, y: 10}, unit));
  const thick = Math.max(1, Math.min(0.78 * step, step - 1.5));
  values.forEach((value, place) => {
    if (Number.isNaN(value)) return;
    const at = x(place) + (step - thick) / 2;
    const title = svg("title", {}, `${current.sites[place].name}: ${perCent(unit === "%" ? value : 100 * value)}`);
    const faint = place === selected ? "" : " faint";
    drawing.append(svg("rect", {class: `bar ${kind}${faint}`, x: at, y: y(value), width: thick, height: Math.max(0, y(0) - y(value)), "data-value": value}, title));
    if (others) drawing.append(svg("line", {class: "tick-b", x1: x(place) + 0.08 * step, x2: x(place) + 0.92 * step, y1: y(others[place]), y2: y(others[place])}));
  });
  if (reference !== null) drawing.append(svg("line", {class: "reference", x1: left, x2: width - right, y1: y(reference), y2: y(reference)}));
  drawing.append(svg("text", {x: left, y: height - 6}, "input"));
  drawing.append(svg("text", {x: width - right, y: height - 6, "text-anchor": "end"}, "output"));
  const area = svg("rect", {class: "pick", x: left, y: 0, width: width - left - right, height});
  const choose = (event) => {
    const place = Math.floor((event.clientX - area.getBoundingClientRect().left) / step);
    pick(Math.max(0, Math.min(values.length - 1, place)));
  };
  area.addEventListener("pointerdown", choose);
  area.addEventListener("pointermove", (event) => event.buttons && choose(event));
  drawing.append(area);
  box.replaceChildren(drawing);
}

// Sufficiency and necessity over the stops of the slider, of one method or two, with random units beside them.
function faithChart(box, {lines, stop, pick}) {
  const width = box.clientWidth || 400, height = 230;
  const left = 40, right = 12, above = 20, below = 44;
  const known = lines.flatMap((line) => [...line.values]).filter((value) => !Number.isNaN(value));
  const low = Math.max(LOWEST, Math.min(0, ...known) - 0.02), high = Math.min(HIGHEST, Math.max(1, ...known) + 0.05);
  const x = (place) => (STOPS === 1 ? (left + width - right) / 2 : left + ((width - left - right) * place) / (STOPS - 1));
  const y = (value) => above + ((height - above - below) * (high - Math.max(low, Math.min(high, value)))) / (high - low);
  const drawing = svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": "Sufficiency and necessity over the sparsity"});
  for (let value = Math.ceil(2 * low) / 2; value <= high; value += 0.5) {
    drawing.append(svg("line", {class: "axis", x1: left, x2: width - right, y1: y(value), y2: y(value)}));
    drawing.append(svg("text", {x: left - 8, y: y(value) + 4, "text-anchor": "end"}, value.toFixed(1).replace("-", "−")));
  }
  drawing.append(svg("line", {class: "reference", x1: left, x2: width - right, y1: y(1), y2: y(1)}));
  drawing.append(svg("text", {x: 0, y: 11}, "part of the answer"));
  drawing.append(svg("line", {class: "marker", x1: x(stop), x2: x(stop), y1: above, y2: height - below}));
  const every = Math.ceil((34 * STOPS) / (width - left - right));
  FACTS.sparsity.forEach((value, place) => {
    if (place % every === 0) drawing.append(svg("text", {x: x(place), y: height - below + 18, "text-anchor": "middle"}, axisLabel(value)));
  });
  drawing.append(svg("text", {x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle"}, `${current.kind}s pruned (%)`));
  for (const {values, look, measure} of lines) {
    const points = [...values].map((value, place) => [x(place), y(value), value]).filter((point) => !Number.isNaN(point[2]));
    drawing.append(svg("polyline", {class: `line ${look} ${measure}`, points: points.map((point) => `${point[0]},${point[1]}`).join(" ")}));
    if (look !== "control" && !Number.isNaN(values[stop])) {
      drawing.append(svg("circle", {class: look, cx: x(stop), cy: y(values[stop]), r: 4.5}));
    }
  }
  const area = svg("rect", {class: "pick", x: 0, y: 0, width, height});
  area.addEventListener("pointerdown", (event) => {
    const at = event.clientX - box.getBoundingClientRect().left;
    const near = FACTS.sparsity.map((_, place) => Math.abs(x(place) - at));
    pick(near.indexOf(Math.min(...near)));
  });
  drawing.append(area);
  box.replaceChildren(drawing);
}
