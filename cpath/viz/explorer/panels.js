// The panels, each drawn from `current`: the input, one run or two, and where the slider stands.

const runs = () => (current.b ? [current.a, current.b] : [current.a]);
const sideOf = (run) => (run === current.a ? "a" : "b");
const swatch = (look) => html("i", {class: `swatch ${look}`});

function showSummary() {
  const {a, input, stop} = current;
  const kept = a.total(stop),
    total = a.unit.total,
    share = (100 * kept) / total;
  const parts = [
    html("b", {}, a.method.label),
    " keeps ",
    html("b", {id: "kept", "data-value": kept}, whole(kept)),
    ` of ${whole(total)} ${current.kind}s (${perCent(share)}).`,
  ];
  if (Math.abs(share - (100 - FACTS.sparsity[stop])) > 0.1) {
    parts.push(` Fewer than asked for: scores that tie or are zero are not kept.`);
  }
  if (kept === 0) {
    parts.push(" The pathway is empty.");
  } else if (input.classes) {
    const [first] = a.top(input, stop),
      same = first.label === input.predicted;
    parts.push(
      " Restricted to them, the network says ",
      html("b", {}, className(first.label)),
      ` with ${perCent(100 * first.restricted)}: `,
      html("span", {id: "verdict", class: same ? "yes" : "no"}, same ? "the class is kept." : "the class is lost."),
    );
  }
  byId("summary").replaceChildren(...parts);
}

function showAnswers() {
  const {input, stop} = current;
  byId("answers-panel").hidden = !input.classes;
  if (!input.classes) return;
  byId("answers-key").replaceChildren(
    html("span", {}, swatch(""), "whole network"),
    ...runs().map((run) => html("span", {}, swatch(sideOf(run)), `restricted, ${run.method.label}`)),
  );
  const listed = input.classes.map((label, place) => ({label, whole: input.probability[place]}));
  for (const run of runs()) {
    const [first] = run.top(input, stop);
    if (!listed.some((one) => one.label === first.label)) listed.push({label: first.label, whole: first.whole});
  }
  byId("answers").replaceChildren(
    ...listed.map(({label, whole: before}) => {
      const notes = [];
      if (label === input.predicted) notes.push("predicted");
      if (label === input.target && label !== input.predicted) notes.push("explained");
      if (label === input.true || className(label) === input.true) notes.push("true");
      const bars = [bar(100 * before, "", `whole-${label}`)];
      for (const run of runs()) {
        const found = run.probability(input, stop, label);
        bars.push(bar(found === null ? null : 100 * found, sideOf(run), `${sideOf(run)}-${label}`));
      }
      const note = notes.length ? html("small", {}, notes.join(", ")) : null;
      return html(
        "div",
        {class: "class"},
        html("div", {class: "name"}, className(label), note),
        html("div", {}, ...bars),
      );
    }),
  );
}

// A bar of 0 to 100 % with its number; a dash where the page does not hold it.
function bar(value, look, name) {
  const known = value !== null;
  return html(
    "div",
    {class: `measure ${look}`, "data-name": name, "data-value": known ? value : null},
    html("div", {class: "bar"}, html("i", {style: `width: ${known ? value : 0}%`})),
    html("b", {title: known ? null : "not among its most probable classes"}, known ? perCent(value) : "–"),
  );
}

function showFaithfulness() {
  const {stop, control} = current;
  byId("faith-numbers").replaceChildren(
    ...runs().flatMap((run) =>
      ["sufficiency", "necessity"].map((measure) => {
        const value = run.arrays[measure][stop],
          side = sideOf(run);
        const words = current.b ? `${measure}, ${run.method.label}` : measure;
        return html(
          "div",
          {class: side},
          html("b", {id: `${measure}-${side}`, "data-value": value}, decimal(value)),
          html("span", {}, words),
        );
      }),
    ),
  );
  const lines = [];
  if (control) lines.push({values: control.arrays.sufficiency, look: "control", measure: "sufficiency"});
  for (const run of runs().reverse()) {
    for (const measure of ["necessity", "sufficiency"])
      lines.push({values: run.arrays[measure], look: sideOf(run), measure});
  }
  faithChart(byId("faith"), lines);
  const beyond = lines.some((line) => line.values.some((value) => value < LOWEST || value > HIGHEST));
  const undefinedHere = Number.isNaN(current.a.arrays.sufficiency[stop]);
  byId("faith-note").textContent = undefinedHere
    ? "The answer does not rise from the empty to the whole network: there is nothing that units could recover."
    : "Solid, sufficiency: what the kept units alone recover. Dashed, necessity: what is lost without them. " +
      "1 is the whole answer, 0 that of the empty network." +
      (control ? " Grey: sufficiency of random units." : "") +
      (beyond ? " What is beyond the axis is drawn at its edge." : "");
}

function showDepth() {
  const {a, b, stop, sites, site} = current;
  const shares = (run) => sites.map((_, place) => run.share(stop, place));
  const reference = (100 * a.total(stop)) / a.unit.total;
  byId("depth-key").replaceChildren(
    html("span", {}, swatch("a"), a.method.label),
    ...(b ? [html("span", {}, swatch("rule"), b.method.label)] : []),
    html("span", {}, swatch("dashes"), `whole network, ${perCent(reference)}`),
  );
  siteBars(byId("depth"), {
    values: shares(a),
    others: b ? shares(b) : [],
    reference,
    unit: "%",
    label: `Kept share of each of ${sites.length} sites`,
    kind: "a",
    height: 190,
    top: stop === 0 && FACTS.sparsity[0] === 0 ? 100 : null,
  });
  byId("site").value = site;
  byId("site-before").disabled = site === 0;
  byId("site-after").disabled = site === sites.length - 1;
  const here = sites[site];
  byId("site-note").replaceChildren(
    `${here.shape.join(" × ")} ${current.kind}s, kept: `,
    ...runs().flatMap((run, place) => [
      place ? "; " : "",
      html(
        "b",
        {id: `site-kept-${sideOf(run)}`, "data-value": run.kept(stop, site)},
        perCent(run.share(stop, site)),
      ),
      ` (${whole(run.kept(stop, site))})${current.b ? ` by ${run.method.label}` : ""}`,
    ]),
  );
}

function showWhere() {
  const {sites, site, stop} = current,
    here = sites[site];
  const cells = here.cells[0] * here.cells[1];
  byId("where-note").textContent = whereNote(here);
  byId("all-channels").hidden = state.channel === null;
  byId("all-channels").textContent = `Show all ${here.word}s`;
  byId("where").className = current.b ? "pair two" : "pair";
  byId("beneath").closest("label").hidden = !current.sites.some((one) => one.overInput);
  byId("where").replaceChildren(...(cells > 1 ? runs().map((run) => whereFigure(run, here, stop, site)) : []));
}

function whereNote(site) {
  if (site.cells[0] * site.cells[1] === 1) {
    return current.kind === "neuron"
      ? `The ${site.word}s of ${site.name} are single numbers, without a place in the input.`
      : `A ${current.kind} is kept whole: it has no place in the input.`;
  }
  const pooled = site.rows > site.cells[0] || site.columns > site.cells[1];
  return (
    `Site ${site.name}, ${site.rows} × ${site.columns} positions` +
    (pooled ? `, joined to ${site.cells[0]} × ${site.cells[1]}` : "") +
    (site.skipped ? `, without the ${plural(site.skipped, "token")} before them` : "") +
    "."
  );
}

function whereFigure(run, site, stop, number) {
  const [rows, columns] = site.cells;
  const channel =
    state.channel === null ? null : run.channels(stop, number).find((one) => one.number === state.channel);
  const single = state.channel !== null;
  const room = (row, column) => {
    const [top, bottom] = span(row, rows, site.rows),
      [first, last] = span(column, columns, site.columns);
    return site.perPlace * (bottom - top + 1) * (last - first + 1);
  };
  const counts = run.places(stop, number);
  const shares = single
    ? Float32Array.from(channel ? channel.cells : new Uint8Array(counts.length), (value) => MARKED * value)
    : Float32Array.from(counts, (count, i) => (100 * count) / room(Math.floor(i / columns), i % columns));
  const largest = single ? 1 : Math.max(...shares);
  const what = single ? `${site.word} ${state.channel}` : `${current.kind}s of all ${site.word}s`;
  const box = stage(current.input, {
    values: shares,
    rows,
    columns,
    largest,
    over: site.overInput,
    label: `Positions of ${what} at ${site.name} that ${run.method.label} keeps`,
  });
  const readout = html("div", {class: "readout soft"});
  const quiet = () => {
    readout.textContent = "Point at a position for its number.";
  };
  quiet();
  onCell(box, rows, columns, (at) => {
    if (!at) return quiet();
    const i = at.row * columns + at.column;
    const place = `row ${words(at.row, rows, site.rows)}, column ${words(at.column, columns, site.columns)}`;
    readout.textContent = single
      ? `${place}: ${channel && channel.cells[i] ? "kept" : "pruned"}`
      : `${place}: ${whole(counts[i])} of ${whole(room(at.row, at.column))} kept (${perCent(shares[i])})`;
  });
  const caption = single
    ? `${run.method.label}, ${site.word} ${state.channel}: ` +
      (channel ? `${whole(channel.kept)} of ${whole(site.perChannel)} kept` : "not among its strongest")
    : `${run.method.label}, ${current.kind}s kept at each position`;
  return html(
    "figure",
    {},
    box,
    single ? null : scale("0 %", perCent(largest)),
    html("figcaption", {}, caption, readout),
  );
}

// Rows or columns of a cell, counted from 1.
function words(cell, cells, size) {
  const [first, last] = span(cell, cells, size);
  return first === last ? `${first + 1}` : `${first + 1}–${last + 1}`;
}

function showChannels() {
  const {sites, site, stop} = current,
    here = sites[site];
  byId("channels-title").textContent = `Strongest ${here.word}s`;
  byId("channels-note").textContent =
    `Those of ${here.channels} at ${here.name} with the highest sum of scores. ` +
    (here.cells[0] * here.cells[1] > 1 ? "One that is picked is shown alone in the input." : "");
  byId("channels").replaceChildren(
    ...runs().flatMap((run) => {
      const tiles = html(
        "div",
        {class: "tiles"},
        ...run.channels(stop, site).map((channel) => tile(run, here, channel)),
      );
      return current.b ? [html("h3", {}, swatch(sideOf(run)), run.method.label), tiles] : [tiles];
    }),
  );
}

function tile(run, site, channel) {
  const [rows, columns] = site.cells,
    hasPlaces = rows * columns > 1;
  const words = html(
    "div",
    {},
    html("b", {}, `${site.word} ${channel.number}`),
    html("span", {"data-value": channel.strength}, `${perCent(channel.strength)} of scores`),
    html("span", {"data-value": channel.kept}, keptWords(site, channel)),
  );
  const picked = state.channel === channel.number;
  return html(
    "button",
    {
      type: "button",
      "aria-pressed": String(picked),
      disabled: !hasPlaces,
      onclick: () => change({channel: picked ? null : channel.number}),
    },
    hasPlaces
      ? stage(current.input, {
          values: channel.cells,
          rows,
          columns,
          largest: 1 / MARKED,
          over: site.overInput,
          label: `Where ${site.word} ${channel.number} is kept`,
        })
      : null,
    words,
  );
}

function keptWords(site, channel) {
  if (site.perChannel === 1) return channel.kept ? "kept" : "pruned";
  return `${whole(channel.kept)} of ${whole(site.perChannel)} kept`;
}

function showMap() {
  byId("map").className = current.b ? "pair two" : "pair";
  byId("map").replaceChildren(
    ...runs().map((run) => {
      const values = run.map(current.stop),
        [rows, columns] = FACTS.map;
      const empty = values.every((value) => value === 0);
      const box = stage(current.input, {
        values,
        rows,
        columns,
        largest: 255,
        over: true,
        smooth: !isCoarse(current.input),
        label: `Saliency map of ${run.method.label}`,
      });
      return html(
        "figure",
        {},
        box,
        scale("0", "99th percentile"),
        html(
          "figcaption",
          {},
          `${run.method.label}, ${axisLabel(FACTS.sparsity[current.stop])} % pruned` +
            (empty ? ": zero, no path from the input to the class is left" : ""),
        ),
      );
    }),
  );
}

function showOverlap() {
  const {a, b, stop, sites, shared} = current;
  byId("overlap-panel").hidden = current.all.length < 2;
  if (current.all.length < 2) return;
  const others = current.all.filter((run) => run !== a);
  byId("overlap").replaceChildren(
    ...others.map((run) => {
      const common = sites.reduce((sum, _, site) => sum + shared(a.number, run.number, stop, site), 0);
      const value = jaccard(common, a.total(stop), run.total(stop));
      const chance = byChance(a.total(stop) / a.unit.total, run.total(stop) / a.unit.total);
      return html(
        "button",
        {
          type: "button",
          class: "row",
          "aria-pressed": String(run === b),
          style: `--dot: ${run.method.colour}`,
          onclick: () => change({other: run === b ? null : run.number}),
        },
        html("span", {}, run.method.label),
        html(
          "span",
          {class: "measure", "data-name": run.method.name, "data-value": value},
          html(
            "span",
            {class: "bar"},
            html("i", {style: `width: ${100 * (value || 0)}%`}),
            html("span", {class: "chance", style: `left: ${100 * chance}%`, title: `by chance ${decimal(chance)}`}),
          ),
          html("b", {}, Number.isNaN(value) ? "–" : value.toFixed(3)),
        ),
      );
    }),
  );
  const box = byId("overlap-sites");
  box.hidden = !b;
  if (!b) return;
  siteBars(box, {
    values: sites.map((_, site) =>
      jaccard(shared(a.number, b.number, stop, site), a.kept(stop, site), b.kept(stop, site)),
    ),
    unit: `Jaccard index with ${b.method.label} by site`,
    label: "Overlap of each site",
    kind: "b",
    height: 150,
    top: 1,
  });
}

// Expected overlap of two random sets of these shares.
function byChance(one, two) {
  const both = one * two;
  return one + two - both > 0 ? both / (one + two - both) : 0;
}
