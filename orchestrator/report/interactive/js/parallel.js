// The search of one method: a line per trial through its hyperparameters, most important first.

const OUTCOMES = [
  { name: "MMACs", kind: "log", value: (trial) => number(trial.val_macs_mean_m) },
  { name: "validation accuracy, %", kind: "linear", value: (trial) => 100 * trial.val_acc },
];

/** The trials of a method, each by its most accurate operating point, and what they vary. */
function searchOf(method, rows) {
  const own = rows.filter((row) => row.method === method);
  const trials = d3
    .rollups(own, (all) => d3.greatest(all, (row) => number(row.val_acc)), (row) => row.trial)
    .map(([, row]) => ({ ...row, params: JSON.parse(row.params) }))
    .sort((one, other) => one.val_acc - other.val_acc);
  const shares = new Map(
    data.importances.filter((i) => i.method === method).map((i) => [i.field, i]),
  );
  const fields = data.fields
    .filter((field) => field.method === method)
    .map((field) => ({
      ...field,
      importance: shares.get(field.name),
      value: (trial) => trial.params[field.name],
    }))
    .sort((one, other) => (other.importance?.share ?? 0) - (one.importance?.share ?? 0));
  return { trials, axes: [...fields, ...OUTCOMES].map((axis) => scaled(axis, trials)) };
}

/** An axis with the place of every value on it, from 0 to 1. */
function scaled(axis, trials) {
  const values = trials.map(axis.value).filter((value) => value !== undefined && value !== null);
  if (axis.kind === "choice") {
    const choices = [...new Set([...axis.ends, ...values].map(String))];
    const scale = d3.scalePoint(choices, [0, 1]).padding(choices.length > 1 ? 0 : 0.5);
    return { ...axis, ticks: choices, place: (value) => scale(String(value)), write: String };
  }
  const [low, high] = d3.extent([...(axis.ends ?? []), ...values]);
  const domain = low === high ? [low * 0.9, low * 1.1 || 1] : [low, high];
  const scale = (axis.kind === "log" && low > 0 ? d3.scaleLog : d3.scaleLinear)(domain, [0, 1]);
  const ticks = low === high ? [low] : [low, scale.invert(0.5), high];
  return { ...axis, ticks, place: scale, write: short };
}

function parallelFigure(root) {
  const rows = table(data.search);
  const searches = new Map(
    [...methods.keys()]
      .map((name) => [name, searchOf(name, rows)])
      .filter(([, { trials, axes }]) => trials.length > 1 && axes.length > OUTCOMES.length),
  );
  if (!searches.size) return;
  let method = [...searches.keys()][0];
  const choice = element("div", { class: "row", role: "group", "aria-label": "Method" });
  for (const name of searches.keys()) {
    const button = toggle(name === method, glyph(name), name);
    button.addEventListener("click", () => {
      method = name;
      for (const other of choice.children) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      draw();
    });
    choice.append(button);
  }
  const plot = element("div", { class: "plot" });
  const note = element("p", { class: "small", "aria-live": "polite" });
  root.append(choice, plot, note);
  root.hidden = false;

  function draw() {
    const { trials, axes } = searches.get(method);
    const best = new Set(data.best[method] ?? []);
    const width = Math.max(280, Math.min(root.clientWidth, 900));
    const svg = named(parallelPlot(method, trials, axes, best, width));
    hideCard();
    plot.replaceChildren(svg);
    const paths = svg.querySelector(".trials").querySelectorAll("path");
    const items = trials.map((trial, i) => trialItem(trial, axes, linked(paths[i], trial)));
    listen(items.reverse());
    const coloured = best.size
      ? ` In colour: the best quarter of those under ${primary()} ${data.budgeted.unit}, ${best.size} trials.`
      : "";
    note.textContent = `${plural(trials.length, "trial")} of ${method}.${coloured}`;
  }

  function linked(path, trial) {
    const href = runPage(trial.trial);
    if (href === null) return path;
    const mark = document.createElementNS(path.namespaceURI, "a");
    mark.setAttribute("href", href);
    mark.setAttribute("target", "_blank");
    mark.dataset.trial = trial.trial;
    path.replaceWith(mark);
    mark.append(path);
    return mark;
  }

  drawToWidth(root, draw);
}

function primary() {
  return data.budgets.find((budget) => budget.primary).label;
}

function trialItem(trial, axes, mark) {
  return {
    mark,
    method: trial.method,
    title: `${trial.trial} ${trial.point}`.trim(),
    rows: axes.map((axis) => [axis.name, written(axis, axis.value(trial))]),
    hint: runPage(trial.trial) ? "Click or Enter: its run in MLflow" : "A search trial",
  };
}

function written(axis, value) {
  return value === undefined || value === null ? "" : axis.write(value);
}

function parallelPlot(method, trials, axes, best, width) {
  const names = axes.map((axis) => axis.name);
  const line = trials.flatMap((trial) =>
    axes.map((axis) => ({
      trial: trial.trial,
      axis: axis.name,
      at: written(axis, axis.value(trial)) === "" ? NaN : axis.place(axis.value(trial)),
    })),
  );
  const ticks = axes.flatMap((axis) =>
    axis.ticks.map((tick) => ({ axis: axis.name, at: axis.place(tick), text: axis.write(tick) })),
  );
  const shares = axes.filter((axis) => axis.importance);
  const narrow = width < 560;
  const bar = (share) => 1.12 + 0.28 * share;
  return Plot.plot({
    width,
    height: 60 + 58 * axes.length,
    marginLeft: narrow ? 12 : 170,
    marginRight: narrow ? 24 : 30,
    marginTop: 26,
    marginBottom: 24,
    ariaLabel: `Hyperparameters and validation accuracy of the trials of ${method}`,
    style: FIGURE_STYLE,
    x: { axis: null, domain: [0, shares.length ? 1.45 : 1] },
    y: { axis: null, domain: names, type: "point", padding: 0.25 },
    marks: [
      Plot.link(axes, { x1: 0, x2: 1, y1: "name", y2: "name", stroke: "var(--rule)" }),
      Plot.line(line, {
        x: "at",
        y: "axis",
        z: "trial",
        curve: "linear",
        stroke: ({ trial }) => (best.has(trial) ? methods.get(method).colour : "var(--grey)"),
        strokeWidth: ({ trial }) => (best.has(trial) ? 2.2 : 1.1),
        strokeOpacity: ({ trial }) => (best.has(trial) ? 1 : 0.55),
        className: "trials", // without links: Plot draws no line where one has none
      }),
      Plot.text(axes, {
        x: 0,
        y: "name",
        text: "name",
        dx: narrow ? 0 : -14,
        dy: narrow ? -14 : 0,
        textAnchor: narrow ? "start" : "end",
        fontWeight: 600,
        ...halo(),
      }),
      Plot.text(ticks, {
        x: "at",
        y: "axis",
        text: "text",
        dy: 13,
        fill: "var(--soft)",
        stroke: "var(--paper)",
        strokeWidth: 4,
      }),
      Plot.link(shares, {
        x1: bar(0),
        x2: (axis) => bar(axis.importance.share),
        y1: "name",
        y2: "name",
        stroke: methods.get(method).colour,
        strokeWidth: 8,
      }),
      Plot.link(shares, {
        x1: (axis) => bar(axis.importance.lo),
        x2: (axis) => bar(axis.importance.hi),
        y1: "name",
        y2: "name",
        stroke: "var(--ink)",
      }),
      Plot.text(shares, {
        x: bar(0),
        y: "name",
        text: (axis) => `${Math.round(100 * axis.importance.share)} %`,
        textAnchor: "start",
        dy: 14,
        ...halo(),
      }),
      Plot.text(shares.slice(0, 1), {
        x: bar(0),
        y: "name",
        text: () => "importance",
        textAnchor: "start",
        dy: -16,
        fill: "var(--soft)",
      }),
    ],
  });
}

/** Text that stays readable on lines. */
function halo() {
  return { fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 4 };
}
