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
  const highest = stands
    .filter((other) => other.best === "True")
    .map((other) => `at \u2264 ${other[budget]}`)
    .join(" and ");
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
    hollow: cell.static === "True",
    href: `#cell-${line}`,
    hint: "Click or Enter: its row in the table",
    rows: [
      ["Test accuracy", `${percent(cell.mean)} %`],
      ["Interval", cell.lo && `${percent(cell.lo)} to ${percent(cell.hi)}`],
      ["Runs", plural(number(cell.n), data.unit)],
      [cost.label, short(number(cell[cost.column]) / cost.scale)],
      ["MMACs", cost.column === "macs_mean_m" ? "" : short(number(cell.macs_mean_m))],
      ["Letters", cell.letters],
      ["Highest mean", highest],
      ["The network is", cell.static === "True" ? "static: deciding per image is not shown to pay" : ""],
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
  const state = { view: views[0], seeds: false, zoom: d3.zoomIdentity };
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

  const filter = methodFilter([...methods.keys()], draw);
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
    `${POINT} The buttons, Ctrl and the wheel or two fingers zoom; dragging moves what is enlarged.` +
      (views[0].marks.some((mark) => mark.hollow) ? " A hollow mark is a static network." : ""),
  );
  root.append(top, filter, plot, status, hint);
  root.hidden = false;

  function reset() {
    d3.select(plot).call(zoom.transform, d3.zoomIdentity);
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
    const whole = view.marks.every(visible);
    const svg = named(accuracyPlot({ view, shown, seeds, x, y, width, height, margin, whole }));
    replaceFigure(plot, svg, () => {
      part(svg);
      const items = [...taken(svg, "cells", shown), ...taken(svg, "seeds", seeds)];
      return items.sort((one, other) => one.x - other.x || one.y - other.y);
    });
    const what = view.name === "search" ? "operating points of the search" : "networks";
    const total = view.name === "search" ? data.searched : view.marks.length;
    status.textContent = `${shown.length} of ${total} ${what} shown.`;
  }

  drawToWidth(root, draw);
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
    style: FIGURE_STYLE,
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
