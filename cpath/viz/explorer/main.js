// The state, what changes it, and the order in which the page follows.

const state = {input: 0, unit: 0, method: 0, other: null, stop: 0, site: 0, channel: null, beneath: true};
let current = null;
let asked = 0; // number of the last change: answers to earlier ones come too late

function change(what) {
  const before = {...state};
  Object.assign(state, what);
  const able = FACTS.units[state.unit].methods;
  if (!able.includes(state.method)) state.method = able[0];
  if (!able.includes(state.other)) state.other = null;
  if (state.other === state.method) {
    // The compared method was picked: both change places. Or the shown one is to be compared: with none.
    state.other = before.method === state.method ? null : before.method;
  }
  const sites = FACTS.units[state.unit].sites;
  state.site = Math.max(0, Math.min(sites.length - 1, state.site));
  state.stop = Math.max(0, Math.min(STOPS - 1, state.stop));
  if (state.site !== before.site || state.unit !== before.unit) state.channel = what.channel ?? null;
  return render();
}

const PANELS = [
  ...[showControls, showSummary, showAnswers, showFaithfulness],
  ...[showOverlap, showDepth, showWhere, showChannels, showMap],
];

async function render() {
  const number = ++asked;
  const {input, unit, method, other} = state;
  const all = await Promise.all(FACTS.units[unit].methods.map((place) => load(input, unit, place)));
  const shared = await loadShared(input, unit);
  if (number !== asked) return;
  const of = (place) => all.find((run) => run.number === place) ?? null;
  const random = of(FACTS.methods.findIndex((one) => one.name === "random"));
  current = {
    input: FACTS.inputs[input],
    a: of(method),
    b: of(other),
    all,
    shared,
    control: random !== of(method) && random !== of(other) ? random : null,
    stop: state.stop,
    site: state.site,
    sites: FACTS.units[unit].sites,
    kind: FACTS.units[unit].kind,
  };
  const root = document.documentElement;
  root.style.setProperty("--a", current.a.method.colour);
  root.style.setProperty("--b", current.b ? current.b.method.colour : "");
  document.body.classList.toggle("comparing", current.b !== null);
  for (const show of PANELS) show();
  remember();
  document.body.dataset.ready = String(number);
}

function showControls() {
  const sparsity = FACTS.sparsity[state.stop];
  const slider = byId("sparsity");
  slider.value = state.stop;
  slider.setAttribute("aria-valuetext", `${sparsity} per cent pruned`);
  byId("pruned").textContent = `${axisLabel(sparsity)} % of the ${current.kind}s`;
  [...byId("stops").children].forEach((label, place) => label.classList.toggle("now", place === state.stop));
  for (const [group, value] of [
    ["input", state.input],
    ["method", state.method],
    ["unit", state.unit],
  ]) {
    document.querySelectorAll(`input[name="${group}"]`).forEach((radio, place) => {
      radio.checked = place === value;
    });
  }
  const able = FACTS.units[state.unit].methods;
  document.querySelectorAll("input[name=method]").forEach((radio, place) => {
    radio.disabled = !able.includes(place);
  });
  [...byId("compare").options].forEach((option) => {
    option.disabled =
      option.value === String(state.method) || (option.value !== "" && !able.includes(Number(option.value)));
  });
  byId("compare").value = state.other ?? "";
  byId("beneath").checked = state.beneath;
}

// Radio buttons: a keyboard and a screen reader know them as one choice.
function choice(group, place, ...content) {
  const radio = html("input", {type: "radio", name: group, value: place, onchange: () => change({[group]: place})});
  return html("label", {}, radio, ...content);
}

function build() {
  const {units, methods, inputs, sparsity} = FACTS;
  byId("what").textContent =
    `${plural(inputs.length, "input")}, ${plural(methods.length, "method")}, ` +
    units.map((unit) => plural(unit.total, unit.kind)).join(" or ") +
    ` at ${plural(units[0].sites.length, "site")}`;
  byId("inputs").append(
    ...inputs.map((input, place) =>
      choice(
        "input",
        place,
        html("img", {src: input.picture, alt: "", class: isCoarse(input) ? "coarse" : ""}),
        html("span", {title: input.name}, input.name),
        input.classes
          ? html("span", {class: "soft", title: className(input.predicted)}, className(input.predicted))
          : null,
      ),
    ),
  );
  byId("methods").append(
    ...methods.map((method, place) =>
      choice("method", place, html("i", {class: "dot", style: `--dot: ${method.colour}`}), method.label),
    ),
  );
  byId("units").append(...units.map((unit, place) => choice("unit", place, unit.kind)));
  byId("units-field").hidden = units.length < 2;
  byId("compare-field").hidden = methods.length < 2;
  byId("compare").append(
    html("option", {value: ""}, "no other"),
    ...methods.map((method, place) => html("option", {value: place}, method.label)),
  );
  byId("site").append(
    ...units[0].sites.map((site, place) => html("option", {value: place}, `${place + 1}. ${site.name}`)),
  );
  const slider = byId("sparsity");
  slider.max = STOPS - 1;
  slider.disabled = STOPS < 2;
  byId("stops").append(
    ...sparsity.map((value, place) =>
      html("span", {style: `left: ${STOPS > 1 ? (100 * place) / (STOPS - 1) : 0}%`}, axisLabel(value)),
    ),
  );
  listen(slider);
}

function listen(slider) {
  slider.addEventListener("input", () => change({stop: Number(slider.value)}));
  byId("compare").addEventListener("change", (event) =>
    change({other: event.target.value === "" ? null : Number(event.target.value)}),
  );
  byId("site").addEventListener("change", (event) => change({site: Number(event.target.value)}));
  byId("site-before").addEventListener("click", () => change({site: state.site - 1}));
  byId("site-after").addEventListener("click", () => change({site: state.site + 1}));
  byId("all-channels").addEventListener("click", () => change({channel: null}));
  byId("beneath").addEventListener("change", (event) => change({beneath: event.target.checked}));
  document.addEventListener("keydown", press);
  let width = innerWidth;
  addEventListener("resize", () => {
    // a phone's toolbar changes the height alone
    if (innerWidth !== width) render();
    width = innerWidth;
  });
}

const turned = (value, step, count) => (value + step + count) % count;

const KEYS = {
  ArrowLeft: () => ({stop: state.stop - 1}),
  ArrowRight: () => ({stop: state.stop + 1}),
  n: () => ({input: turned(state.input, 1, FACTS.inputs.length)}),
  p: () => ({input: turned(state.input, -1, FACTS.inputs.length)}),
  m: () => ({method: nextMethod()}),
  c: () => ({other: nextOther()}),
  u: () => ({unit: turned(state.unit, 1, FACTS.units.length)}),
  d: () => ({site: state.site + 1}),
  s: () => ({site: state.site - 1}),
};

function nextMethod() {
  const able = FACTS.units[state.unit].methods;
  return able[turned(able.indexOf(state.method), 1, able.length)];
}

// The next method to compare with; none after the last.
function nextOther() {
  const candidates = [null, ...FACTS.units[state.unit].methods].filter((place) => place !== state.method);
  return candidates[turned(candidates.indexOf(state.other), 1, candidates.length)];
}

function press(event) {
  // Lists and radio buttons have keys of their own; a shortcut of the browser is no key of the page.
  const own = event.target.closest("select") || (event.target.closest("input") && event.key.startsWith("Arrow"));
  if (own || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  change(KEYS[event.key]());
}

// The address tells what is shown, so that it can be kept and passed on.
const REMEMBERED = ["input", "unit", "method", "other", "stop", "site", "channel"];

function remember() {
  const parts = REMEMBERED.filter((name) => state[name] !== null).map((name) => `${name}=${state[name]}`);
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch {
    /* a page inside a notebook has no address */
  }
}

function recalled() {
  const most = {
    input: FACTS.inputs.length,
    unit: FACTS.units.length,
    method: FACTS.methods.length,
    other: FACTS.methods.length,
    stop: STOPS,
    site: FACTS.units[0].sites.length,
    channel: Infinity,
  };
  const found = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (name in most && /^\d+$/.test(text) && Number(text) < most[name]) found[name] = Number(text);
  }
  return found;
}

function firstLook() {
  const preferred = FACTS.sparsity.findIndex((value) => value >= 90);
  const sites = FACTS.units[0].sites;
  const seen = sites.map((site) => site.cells[0] * site.cells[1] > 1);
  return {
    stop: preferred < 0 ? STOPS - 1 : preferred,
    site: Math.max(0, seen.lastIndexOf(true, Math.floor(0.75 * sites.length))),
  };
}

build();
change({...firstLook(), ...recalled()});
