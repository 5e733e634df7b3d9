// Elements, numbers in words, and pictures of cells.

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function html(name, settings = {}, ...children) {
  return filled(document.createElement(name), settings, children);
}

function svg(name, settings = {}, ...children) {
  return filled(document.createElementNS(SVG, name), settings, children);
}

function filled(element, settings, children) {
  for (const [key, value] of Object.entries(settings)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") element.style.cssText = value;
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const whole = (number) => number.toLocaleString("en-GB");

// Per cent with as many digits as tell something; what is not quite 0 or 100 does not read like it.
function perCent(value) {
  if (Number.isNaN(value)) return "undefined";
  if (value > 0 && value < 0.01) return "< 0.01 %";
  if (value < 100 && value > 99.9) return "> 99.9 %";
  return `${value < 1 ? value.toFixed(2) : value.toFixed(1)} %`;
}

const decimal = (value) =>
  Number.isNaN(value) ? "undefined" : value.toFixed(2) === "-0.00" ? "0.00" : value.toFixed(2).replace("-", "−");

function plural(count, word) {
  return `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
}

// From nothing over orange to yellow, over a dark or grey picture.
const HEAT = Array.from({length: 256}, (_, step) => {
  const t = step / 255;
  if (t < 0.5) return [214, 94, 0, Math.round(255 * 1.2 * t)];
  const u = 2 * t - 1;
  return [214 + 26 * u, 94 + 136 * u, 66 * u, Math.round(255 * (0.6 + 0.25 * u))];
});

const MARKED = 0.6; // on that scale, of what is kept or not: the image is seen through it

function paint(canvas, values, rows, columns, largest) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < values.length; i++) {
    const colour = HEAT[largest > 0 ? Math.min(255, Math.round((255 * values[i]) / largest)) : 0];
    image.data.set(colour, 4 * i);
  }
  context.putImageData(image, 0, 0);
}

// A picture of cells over the input, or alone where they do not lie over it.
function stage(input, {values, rows, columns, largest, over, smooth = false, label}) {
  const canvas = html("canvas", {class: smooth ? "" : "cells", role: "img", "aria-label": label});
  paint(canvas, values, rows, columns, largest);
  const [height, width] = over ? input.size : [rows, columns];
  const ratio = over ? `${width} / ${height}` : `${columns} / ${Math.max(rows, columns / 12)}`;
  const box = html("div", {class: over ? "stage" : "stage strip", style: `aspect-ratio: ${ratio}`});
  if (over && state.beneath) {
    box.append(html("img", {src: input.picture, alt: "", class: isCoarse(input) ? "coarse" : ""}));
  }
  box.append(canvas);
  return box;
}

const isCoarse = (input) => Math.max(...input.size) <= 64;

// Tells the cell under the pointer or finger; null when it leaves.
function onCell(box, rows, columns, told) {
  const tell = (event) => {
    const area = box.getBoundingClientRect();
    const row = Math.floor(((event.clientY - area.top) / area.height) * rows);
    const column = Math.floor(((event.clientX - area.left) / area.width) * columns);
    told(row >= 0 && row < rows && column >= 0 && column < columns ? {row, column} : null);
  };
  box.addEventListener("pointermove", tell);
  box.addEventListener("pointerdown", tell);
  box.addEventListener("pointerleave", () => told(null));
}

// Places of a site that a cell holds: from ⌈cell · size / cells⌉ to the next cell's first.
function span(cell, cells, size) {
  return [Math.ceil((cell * size) / cells), Math.ceil(((cell + 1) * size) / cells) - 1];
}

function scale(least, most) {
  return html("div", {class: "scale"}, html("span", {}, least), html("i"), html("span", {}, most));
}
