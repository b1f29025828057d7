// Accuracy and MACs of each method by the difficulty, and by the class, of the test images.

const BY = { difficulty: "difficulty", loss: "fifth", class: "class" };
/** Groups from which on a figure takes the whole width. */
const CROWDED = 24;

/** The groups of one kind, in the order of the board's methods, with the marks of each figure. */
function groupView(kind, rows, targets) {
  const names = [...new Set(rows.map((row) => row.group))];
  const figures = [
    { label: "Test accuracy, %", most: 100, of: (row) => span(row, "accuracy", "lo", "hi", 100) },
    { label: "MMACs of an image", of: (row) => span(row, "macs_mean_m", "macs_lo_m", "macs_hi_m", 1) },
  ];
  return {
    kind,
    names,
    figures: figures.map((figure, i) => ({
      ...figure,
      marks: rows.map((row) => ({
        ...groupMark(row, kind, figure.of(row), i),
        ...targets.get(row.method),
      })),
    })),
  };
}

/** A value with the ends of its interval, which may be empty. */
function span(row, value, lo, hi, scale) {
  const [y, low, high] = [value, lo, hi].map((column) => number(row[column]));
  const known = low !== null && high !== null;
  return { y: scale * y, lo: known ? scale * low : "", hi: known ? scale * high : "" };
}

function groupMark(row, kind, value, figure) {
  const interval = row.lo && ` (${percent(row.lo)} to ${percent(row.hi)})`;
  const [macs, low, high] = [row.macs_mean_m, row.macs_lo_m, row.macs_hi_m].map(number);
  const spread = low !== null && low < high ? ` (${short(low)} to ${short(high)})` : "";
  return {
    key: `group-${figure}-${row.line}`,
    method: row.method,
    title: `${row.method}, ${BY[kind]} ${row.group}`,
    x: row.group,
    ...value,
    rows: [
      ["Test accuracy", `${percent(row.accuracy)} %${interval}`],
      ["MMACs", `${short(macs)}${spread}`],
      ["Images", row.images],
    ],
  };
}

/** Where the means over each method's primary runs lead: to the one run, or to the cell's row. */
function primaryTargets() {
  const { budget } = data.budgeted;
  const seeds = table(data.files["seeds.csv"]);
  const cells = table(data.files["leaderboard.csv"]).filter((cell) => cell.primary === "True");
  const target = (cell) => {
    const runs = seeds.filter((run) => run.method === cell.method && run[budget] === cell[budget]);
    return runs.length === 1 && runPage(runs[0].trial)
      ? { trial: runs[0].trial, hint: "Click or Enter: its run in MLflow" }
      : { href: `#cell-${cell.line}`, hint: "Click or Enter: its row in the table" };
  };
  return new Map(cells.map((cell) => [cell.method, target(cell)]));
}

function groupsFigure(root) {
  const rows = table(data.files["groups.csv"]);
  const targets = primaryTargets();
  const kinds = d3.groups(rows, (row) => row.by);
  const views = kinds.map(([kind, own]) => groupView(kind, own, targets));
  if (!views.length) return;
  const present = new Set(rows.map((row) => row.method));
  const filter = methodFilter([...methods.keys()].filter((name) => present.has(name)), draw);
  const plots = views.flatMap((view) =>
    view.figures.map((figure) => ({ view, figure, plot: element("div", { class: "plot" }) })),
  );
  const grid = element("div", { class: "pair" }, ...plots.map(({ plot }) => plot));
  const hint = element("p", { class: "small" }, `${POINT} Bars are intervals of the mean.`);
  root.append(filter, grid, hint);
  root.hidden = false;

  function draw() {
    const whole = Math.min(root.clientWidth, 1100);
    for (const { view, figure, plot } of plots) {
      const wide = whole < 720 || view.names.length > CROWDED;
      const width = Math.max(280, wide ? whole : (whole - 28) / 2);
      const shown = figure.marks.filter(visible);
      const svg = named(groupsPlot(view, figure, shown, width));
      replaceFigure(plot, svg, () => taken(svg, "cells", shown));
    }
  }

  drawToWidth(root, draw);
}

function groupsPlot({ kind, names }, { label, most, marks }, shown, width) {
  const margin = { left: 50, right: 14 };
  const step = (width - margin.left - margin.right) / names.length;
  const order = [...methods.keys()];
  const gap = Math.min(9, (0.75 * step) / order.length);
  const shift = (name) => (order.indexOf(name) - (order.length - 1) / 2) * gap;
  const ends = marks.flatMap((mark) => [mark.y, mark.lo, mark.hi]).filter((end) => end !== "");
  const [low, high] = d3.extent(ends);
  const space = 0.06 * (high - low) || 0.05 * high || 1;
  const every = Math.ceil(26 / step);
  const own = (name) => shown.filter((mark) => mark.method === name);
  return Plot.plot({
    width,
    height: 280,
    marginTop: 30,
    marginRight: margin.right,
    marginBottom: 42,
    marginLeft: margin.left,
    ariaLabel: `${label} by ${data.kinds[kind]}`,
    style: FIGURE_STYLE,
    x: { type: "point", domain: names, padding: 0.5 },
    y: { domain: [Math.max(0, low - space), Math.min(most ?? Infinity, high + space)] },
    marks: [
      Plot.gridY({ ticks: 5, stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.axisX({
        ticks: names.filter((_, i) => i % every === 0),
        tickFormat: String,
        label: data.kinds[kind],
        labelAnchor: "center",
        labelArrow: "none",
      }),
      Plot.axisY({ ticks: 5, label, labelArrow: "none" }),
      ...order.filter((name) => kind !== "class" && own(name).length).map((name) =>
        Plot.line(own(name), {
          x: "x",
          y: "y",
          dx: shift(name),
          stroke: methods.get(name).colour,
          strokeOpacity: 0.6,
        }),
      ),
      ...order.filter((name) => own(name).length).map((name) =>
        Plot.ruleX(own(name).filter((mark) => mark.lo !== ""), {
          x: "x",
          y1: "lo",
          y2: "hi",
          dx: shift(name),
          stroke: methods.get(name).colour,
        }),
      ),
      ...dots(shown, "cells", { r: 4.2, shift }),
    ],
  });
}
