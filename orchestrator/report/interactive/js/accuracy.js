// Accuracy over a cost: confirmed networks on test, or the search on validation.

/** Every cost that can be chosen, with the marks to draw on it. */
function accuracyViews() {
  const cells = table(data.files["leaderboard.csv"]);
  const seeds = table(data.files["seeds.csv"]);
  const views = data.costs.map((cost, i) => ({
    name: String(i),
    label: cost.label,
    budgets: cost.column === data.budgeted.cost,
    front: new Set(cost.front),
    marks: cost.points.map((line) => cellMark(cells, line, cost)),
    seeds: seeds.filter((seed) => number(seed[cost.column]) !== null).map((seed) => seedMark(seed, cost)),
  }));
  const search = table(data.search).map(searchMark);
  if (search.length) {
    const label = "MMACs per image";
    views.push({ name: "search", label, budgets: data.budgeted.cost === "macs_mean_m", front: new Set(), marks: search, seeds: [] });
  }
  return views;
}

function cellMark(cells, line, cost) {
  const cell = cells[line];
  const { budget, same, unit } = data.budgeted;
  const stands = cells.filter(
    (other) =>
      other === cell ||
      (other.method === cell.method && other[same] === cell[budget]),
  );
  const budgets = stands.map((other) => `\u2264 ${other[budget]}`).join(" and ");
  const gain = cell.gain && `${points(cell.gain)} points`;
  return {
    key: `cell-${line}`,
    line,
    method: cell.method,
    title: `${cell.method} at ${budgets} ${unit}`,
    x: number(cell[cost.column]) / cost.scale,
    y: 100 * number(cell.mean),
    lo: cell.lo && 100 * number(cell.lo),
    hi: cell.hi && 100 * number(cell.hi),
    href: `#cell-${line}`,
    hint: "Click or Enter: its row in the table",
    rows: [
      ["Test accuracy", `${percent(cell.mean)} %`],
      ["Interval", cell.lo && `${percent(cell.lo)} to ${percent(cell.hi)}`],
      ["Runs", plural(number(cell.n), data.unit)],
      [cost.label, short(number(cell[cost.column]) / cost.scale)],
      ["MMACs", cost.column === "macs_mean_m" ? "" : short(number(cell.macs_mean_m))],
      ["Letters", cell.letters],
      ["Gain", cell.gain_lo ? `${gain} (${points(cell.gain_lo)} to ${points(cell.gain_hi)})` : gain],
      ["Worth of routing", cell.worth && `${points(cell.worth)} points`],
      ["Budget", cell.overrun === "True" ? "exceeded on test" : ""],
      ["Collapsed", number(cell.collapsed) ? cell.collapsed : ""],
      ["Configuration", `${cell.config} ${cell.point}`.trim()],
    ],
  };
}

function seedMark(seed, cost) {
  const href = runPage(seed.trial);
  return {
    key: `seed-${seed.line}`,
    method: seed.method,
    title: seed.trial,
    x: number(seed[cost.column]) / cost.scale,
    y: 100 * number(seed.test_acc),
    trial: seed.trial,
    hint: href ? "Click or Enter: its run in MLflow" : "A confirm run",
    rows: [
      ["Test accuracy", `${percent(seed.test_acc)} %`],
      ["Budget", `\u2264 ${seed[data.budgeted.budget]} ${data.budgeted.unit}`],
      [cost.label, short(number(seed[cost.column]) / cost.scale)],
      ["Seed", seed.seed],
    ],
  };
}

function searchMark(row) {
  const params = Object.entries(JSON.parse(row.params));
  return {
    key: `search-${row.line}`,
    method: row.method,
    title: `${row.trial} ${row.point}`.trim(),
    x: number(row.val_macs_mean_m),
    y: 100 * number(row.val_acc),
    trial: row.trial,
    hint: runPage(row.trial) ? "Click or Enter: its run in MLflow" : "A search trial",
    rows: [
      ["Validation accuracy", `${percent(row.val_acc)} %`],
      ["MMACs per image", short(number(row.val_macs_mean_m))],
      ...params.map(([name, value]) => [
        name,
        typeof value === "number" ? short(value) : String(value),
      ]),
    ],
  };
}

function accuracyFigure(root) {
  const views = accuracyViews();
  if (!views.length) return;
  const state = { view: views[0], off: new Set(), seeds: false, zoom: d3.zoomIdentity };
  const status = element("p", { class: "small", "aria-live": "polite" });
  const plot = element("div", { class: "plot" });
  const zoom = d3
    .zoom()
    .scaleExtent([1, 40])
    .filter((event) => {
      if (event.type === "wheel") return event.ctrlKey || event.metaKey;
      if (event.type.startsWith("touch")) return event.touches.length > 1 || state.zoom.k > 1;
      return !event.button && !event.ctrlKey;
    })
    .on("zoom", (event) => {
      state.zoom = event.transform;
      draw();
    });

  const choice = element("select");
  for (const [label, chosen] of [
    ["Confirmed networks, test", views.filter((view) => view.name !== "search")],
    ["Search, validation", views.filter((view) => view.name === "search")],
  ]) {
    const group = element("optgroup", { label });
    group.append(...chosen.map((view) => element("option", { value: view.name }, view.label)));
    if (chosen.length) choice.append(group);
  }
  choice.addEventListener("change", () => {
    state.view = views.find((view) => view.name === choice.value);
    runs.disabled = !state.view.seeds.length;
    reset();
  });

  const filters = element("div", { class: "row", role: "group", "aria-label": "Methods shown" });
  for (const name of methods.keys()) {
    const button = toggle(true, glyph(name), name);
    button.addEventListener("click", () => {
      if (!state.off.delete(name)) state.off.add(name);
      button.setAttribute("aria-pressed", String(!state.off.has(name)));
      draw();
    });
    filters.append(button);
  }
  const runs = toggle(false, "Each run");
  runs.disabled = !state.view.seeds.length;
  runs.addEventListener("click", () => {
    state.seeds = !state.seeds;
    runs.setAttribute("aria-pressed", String(state.seeds));
    draw();
  });

  const zoomed = [
    ["+", "Zoom in", () => d3.select(plot).call(zoom.scaleBy, 1.6)],
    ["\u2212", "Zoom out", () => d3.select(plot).call(zoom.scaleBy, 1 / 1.6)],
    ["Reset", "Reset the zoom", () => reset()],
  ].map(([text, label, act]) => {
    const button = element("button", { type: "button", "aria-label": label }, text);
    button.addEventListener("click", act);
    return button;
  });
  const zooms = element("div", { class: "row", role: "group", "aria-label": "Zoom" }, ...zoomed);
  const top = element("div", { class: "row" }, element("label", {}, "Cost ", choice), runs, zooms);
  if (Object.keys(data.runs).length) top.append(addressField(() => draw()));
  const hint = element(
    "p",
    { class: "small" },
    "Point at a mark, or move with the arrow keys, for its values. The buttons, Ctrl and the wheel " +
      "or two fingers zoom; dragging moves what is enlarged.",
  );
  root.append(top, filters, plot, status, hint);
  root.hidden = false;

  function reset() {
    d3.select(plot).call(zoom.transform, d3.zoomIdentity);
  }

  function visible({ method }) {
    return !state.off.has(method);
  }

  function draw() {
    const { view } = state;
    const width = Math.max(280, Math.min(root.clientWidth, 1100));
    const height = width < 560 ? 340 : 440;
    const margin = { top: 14, right: 18, bottom: 44, left: 50 };
    zoom.extent([[0, 0], [width, height]]).translateExtent([[0, 0], [width, height]]);
    const all = state.seeds ? [...view.marks, ...view.seeds] : view.marks;
    const [xDomain, yDomain] = domains(view, all);
    const x = state.zoom
      .rescaleX(d3.scaleLog(xDomain, [margin.left, width - margin.right]))
      .domain();
    const y = state.zoom
      .rescaleY(d3.scaleLinear(yDomain, [height - margin.bottom, margin.top]))
      .domain();
    const inside = (mark) =>
      visible(mark) && mark.x >= x[0] && mark.x <= x[1] && mark.y >= y[0] && mark.y <= y[1];
    const shown = view.marks.filter(inside);
    const seeds = state.seeds ? view.seeds.filter(inside) : [];
    const focused = plot.contains(document.activeElement) ? document.activeElement.dataset.key : "";
    const whole = !state.off.size;
    const svg = named(accuracyPlot({ view, shown, seeds, x, y, width, height, margin, whole }));
    hideCard();
    plot.replaceChildren(svg);
    part(svg);
    const items = [...taken(svg, "cells", shown), ...taken(svg, "seeds", seeds)];
    items.sort((one, other) => one.x - other.x || one.y - other.y);
    listen(items);
    items.find((item) => item.key === focused)?.mark.focus({ preventScroll: true });
    const what = view.name === "search" ? "operating points of the search" : "networks";
    const total = view.name === "search" ? data.searched : view.marks.length;
    status.textContent = `${shown.length} of ${total} ${what} shown.`;
  }

  new ResizeObserver(() => draw()).observe(root);
}

/** The whole of a view, whatever is filtered. */
function domains(view, marks) {
  const costs = marks.map((mark) => mark.x);
  if (view.budgets) costs.push(...data.budgets.map((budget) => budget.value));
  const heights = marks.flatMap((mark) => [mark.y, mark.lo || mark.y, mark.hi || mark.y]);
  const [low, high] = d3.extent(heights);
  const space = 0.06 * (high - low) + 0.2;
  return [
    [d3.min(costs) / 1.2, d3.max(costs) * 1.2],
    [low - space, high + space],
  ];
}

function accuracyPlot({ view, shown, seeds, x, y, width, height, margin, whole }) {
  const search = view.name === "search";
  const budgets = view.budgets ? data.budgets : [];
  const within = budgets.filter(({ value }) => value >= x[0] && value <= x[1]);
  const front = whole ? shown.filter((mark) => view.front.has(mark.line)) : [];
  const tops = search ? [] : d3.rollups(shown, (all) => d3.greatest(all, (m) => m.y), (m) => m.method);
  const what = search ? "Validation accuracy" : "Test accuracy";
  return Plot.plot({
    width,
    height,
    marginTop: margin.top,
    marginRight: margin.right,
    marginBottom: margin.bottom,
    marginLeft: margin.left,
    clip: true,
    ariaLabel: `${what} over ${view.label}`,
    style: { background: "none", color: "var(--ink)", fontSize: "12px", fontFamily: "inherit" },
    x: { type: "log", domain: x },
    y: { domain: y },
    marks: [
      Plot.gridY({ ticks: 6, stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.axisX({
        ticks: logTicks(x),
        tickFormat: short,
        label: view.label + (within.length ? ", mean (dotted: budgets)" : ""),
        labelAnchor: "center",
        labelArrow: "none",
        clip: false,
      }),
      Plot.axisY({ ticks: 6, label: `${what}, %`, labelArrow: "none", clip: false, labelAnchor: "center" }),
      Plot.ruleX(within, {
        x: "value",
        stroke: (budget) => (budget.primary ? "var(--soft)" : "var(--rule)"),
        strokeDasharray: "1 4",
        strokeWidth: 1.5,
      }),
      Plot.line(front, { x: "x", y: "y", curve: "step-after", stroke: "var(--ink)" }),
      Plot.ruleX(shown.filter((mark) => mark.lo), {
        x: "x",
        y1: "lo",
        y2: "hi",
        stroke: (mark) => methods.get(mark.method).colour,
        strokeWidth: 1.4,
      }),
      ...dots(seeds, "seeds", { r: 3, fill: "var(--paper)", strokeWidth: 1.3 }),
      ...dots(shown, "cells", search ? { r: 3.2, fillOpacity: 0.65 } : { r: 5.5, ring: true }),
      Plot.text(tops.map(([, mark]) => mark), {
        x: "x",
        y: "y",
        text: "method",
        dx: 9,
        dy: -8,
        textAnchor: "start",
        fill: "var(--ink)",
        stroke: "var(--paper)",
        strokeWidth: 4,
        className: "names",
        clip: false,
      }),
    ],
  });
}

/** The class of a method's marks; any text may be its name. */
function layer(kind, name) {
  return `${kind}-${[...methods.keys()].indexOf(name)}`;
}

/** Marks in the colour and the shape of their method. */
function dots(marks, className, { r, fill, fillOpacity = 1, strokeWidth = 0.7, ring = false }) {
  return d3.groups(marks, (mark) => mark.method).map(([name, own]) => {
    const { colour, shape } = methods.get(name);
    const [symbol, rotate] = symbols[shape];
    return Plot.dot(own, {
      x: "x",
      y: "y",
      r,
      symbol,
      rotate,
      fill: fill ?? colour,
      fillOpacity,
      stroke: ring ? "var(--ink)" : colour,
      strokeWidth,
      href: (mark) => mark.href ?? runPage(mark.trial),
      target: own[0].href ? undefined : "_blank",
      className: layer(className, name),
    });
  });
}

/** The items with their nodes: the link where there is one, else the shape itself. */
function taken(svg, className, marks) {
  return d3.groups(marks, (mark) => mark.method).flatMap(([name, own]) => {
    const group = svg.querySelector(`.${layer(className, name)}`);
    return own.map((item, i) => {
      const mark = group.children[i];
      mark.dataset.key = item.key;
      if (item.trial && mark.tagName === "a") {
        mark.dataset.trial = item.trial;
        mark.setAttribute("rel", "noopener");
      }
      return { ...item, mark };
    });
  });
}

/** Moves names apart that would stand on each other. */
function part(svg) {
  const placed = [];
  const edge = svg.getBoundingClientRect().right;
  for (const text of svg.querySelectorAll(".names text")) {
    let box = text.getBoundingClientRect();
    const left = box.right > edge ? edge - box.right - 2 : 0;
    let down = 0;
    const collides = (other) =>
      box.left + left < other.right &&
      box.right + left > other.left &&
      box.top + down < other.bottom &&
      box.bottom + down > other.top;
    while (down < 120 && placed.some(collides)) down += 3;
    placed.push({
      left: box.left + left,
      right: box.right + left,
      top: box.top + down,
      bottom: box.bottom + down,
    });
    text.setAttribute("transform", `${text.getAttribute("transform")} translate(${left},${down})`);
  }
}
