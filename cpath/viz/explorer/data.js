"use strict";
// What the library computed: facts as JSON, and a compressed pack of arrays for each input, unit and method.

const FACTS = JSON.parse(document.getElementById("facts").textContent);
const ARRAYS = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
};
const STOPS = FACTS.sparsity.length;

function bytesOf(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

// Numbers of several bytes, of which the first bytes of all come first, then the second ones.
function joined(planes, size) {
  const bytes = new Uint8Array(planes.length),
    count = planes.length / size;
  for (let place = 0; place < size; place++) {
    for (let i = 0; i < count; i++) bytes[i * size + place] = planes[place * count + i];
  }
  return bytes;
}

async function unpacked(id, fields) {
  const packed = new Blob([bytesOf(document.getElementById(id).textContent)]);
  const stream = packed.stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const found = {};
  let start = 0;
  for (const [name, kind, count] of fields) {
    const size = ARRAYS[kind].BYTES_PER_ELEMENT;
    found[name] = new ARRAYS[kind](joined(new Uint8Array(buffer, start, count * size), size).buffer);
    start += count * size;
  }
  return found;
}

const decoded = new Map();

function once(id, make) {
  if (!decoded.has(id)) decoded.set(id, make());
  return decoded.get(id);
}

// The answers of a method for an input. Arrays are ordered by stop of the slider, then by site.
class Run {
  constructor(unit, method, arrays) {
    this.unit = FACTS.units[unit];
    this.method = FACTS.methods[method];
    this.number = method;
    this.sites = this.unit.sites;
    this.arrays = arrays;
    let cells = 0;
    this.firstCell = this.sites.map(
      (site) => (cells += site.cells[0] * site.cells[1]) - site.cells[0] * site.cells[1],
    );
    this.allCells = cells;
  }

  kept(stop, site) {
    return this.arrays.kept[stop * this.sites.length + site];
  }

  share(stop, site) {
    return (100 * this.kept(stop, site)) / this.sites[site].units;
  }

  total(stop) {
    const from = stop * this.sites.length;
    return this.arrays.kept.subarray(from, from + this.sites.length).reduce((sum, one) => sum + one, 0);
  }

  cellsOf(site) {
    return this.sites[site].cells[0] * this.sites[site].cells[1];
  }

  // Kept units at each cell of a site.
  places(stop, site) {
    const from = stop * this.allCells + this.firstCell[site];
    return this.arrays.places.subarray(from, from + this.cellsOf(site));
  }

  map(stop) {
    const size = FACTS.map[0] * FACTS.map[1];
    return this.arrays.map.subarray(stop * size, (stop + 1) * size);
  }

  // The strongest channels of a site: number, share of the site's scores, kept units, and 1 where any is kept.
  channels(stop, site) {
    const shown = FACTS.channels,
      count = this.cellsOf(site);
    const found = [];
    for (let place = 0; place < shown; place++) {
      const number = this.arrays.channels[site * shown + place];
      if (number < 0) continue;
      const from = shown * this.firstCell[site] + place * count;
      const bits = this.arrays.channel_places.subarray(from, from + count);
      found.push({
        number,
        strength: this.arrays.strength[site * shown + place],
        kept: this.arrays.channel_kept[(stop * this.sites.length + site) * shown + place],
        cells: Uint8Array.from(bits, (value) => (value >> stop) & 1),
      });
    }
    return found;
  }

  // Probability of a class in the restricted network; null where the page does not hold it.
  probability(input, stop, label) {
    const listed = input.classes.indexOf(label),
      count = input.classes.length;
    if (listed >= 0) return this.arrays.listed[stop * count + listed];
    const own = this.top(input, stop).find((one) => one.label === label);
    return own ? own.restricted : null;
  }

  // The most probable classes of the restricted network.
  top(input, stop) {
    const count = input.classes.length,
      from = stop * count;
    return Array.from({length: count}, (_, place) => ({
      label: this.arrays.top[from + place],
      restricted: this.arrays.top_restricted[from + place],
      whole: this.arrays.top_whole[from + place],
    }));
  }
}

function load(input, unit, method) {
  const id = `pack-${input}-${unit}-${method}`;
  return once(id, async () => new Run(unit, method, await unpacked(id, FACTS.fields[`${unit}-run`])));
}

// Units that each pair of methods keeps both, as a function of the methods, the stop and the site.
async function loadShared(input, unit) {
  const able = FACTS.units[unit].methods; // those that know these units, in order
  if (able.length < 2) return () => 0;
  const id = `pack-${input}-${unit}-shared`;
  const {shared} = await once(id, () => unpacked(id, FACTS.fields[`${unit}-shared`]));
  const count = able.length,
    sites = FACTS.units[unit].sites.length;
  return (one, two, stop, site) => {
    const [first, second] = [able.indexOf(one), able.indexOf(two)].sort((a, b) => a - b);
    const pair = first * count - (first * (first + 1)) / 2 + second - first - 1;
    return shared[(pair * STOPS + stop) * sites + site];
  };
}

const jaccard = (shared, one, two) => (one + two - shared ? shared / (one + two - shared) : NaN);

function className(label) {
  return FACTS.classes[label] ?? `class ${label}`;
}
