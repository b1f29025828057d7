// Worth of routing: what networks that decide per image give under their own decisions and others.

/** From top to bottom of a cell's line, each with its look. */
const DECISIONS = [
  { column: "mean", name: "Own decisions", look: { r: 4.5, dy: -9, ring: true } },
  {
    column: "another",
    name: "Another image's",
    look: { r: 4, dy: -3, fill: "var(--paper)", strokeWidth: 1.6 },
  },
  { column: "majority", name: "The majority's", look: { r: 4, dy: 3, fillOpacity: 0.35 } },
  { column: "all_run", name: "All run", look: { r: 2.6, dy: 9 } },
];

/** The cells whose networks decide, each with its marks in both panels. */
function routingRows() {
  const seeds = table(data.files["seeds.csv"]);
  const { budget, unit } = data.budgeted;
  const cells = table(data.files["leaderboard.csv"]);
  return [...methods.keys()]
    .flatMap((name) => cells.filter((cell) => cell.method === name && cell.worth))
    .map((cell) => {
      const runs = seeds.filter(
        (run) => run.method === cell.method && run[budget] === cell[budget] && run.another,
      );
      const row = { cell, runs, method: cell.method, name: `${cell.method} \u2264 ${cell[budget]}` };
      const title = `${row.name} ${unit}`;
      return { ...row, decisions: decisionMarks(row, title), worth: worthMarks(row, title) };
    });
}

function decisionMarks({ cell, runs, method, name }, title) {
  return DECISIONS.filter(({ column }) => cell[column]).map((decision) => {
    const own = decision.column === "mean";
    const of = own ? "test_acc" : decision.column;
    const [least, largest] = d3.extent(runs, (run) => number(run[of]));
    return {
      key: `decision-${decision.column}-${cell.line}`,
      decision,
      method,
      title,
      x: 100 * cell[decision.column],
      y: name,
      lo: own && cell.lo ? 100 * cell.lo : "",
      hi: own && cell.hi ? 100 * cell.hi : "",
      href: `#cell-${cell.line}`,
      hint: "Click or Enter: its row in the table",
      rows: [
        [decision.name, `${percent(cell[decision.column])} %`],
        ["Interval", own && cell.lo && `${percent(cell.lo)} to ${percent(cell.hi)}`],
        ["Runs", runs.length > 1 && `${runs.length}, ${percent(least)} to ${percent(largest)}`],
        ["MMACs", decidedMacs(cell, decision.column)],
      ],
    };
  });
}

/** What the network costs under these decisions; another image's cost the same as one's own. */
function decidedMacs(cell, column) {
  const own = { majority: "majority_macs_m", all_run: "all_run_macs_m" };
  const macs = number(cell[own[column] ?? "macs_mean_m"]);
  return macs === null ? "" : short(macs);
}

function worthMarks({ cell, runs, method, name }, title) {
  const known = Boolean(cell.worth_lo);
  const mean = {
    key: `worth-${cell.line}`,
    method,
    title,
    x: 100 * cell.worth,
    y: name,
    lo: known ? 100 * cell.worth_lo : "",
    hi: known ? 100 * cell.worth_hi : "",
    hollow: cell.static === "True",
    href: `#cell-${cell.line}`,
    hint: "Click or Enter: its row in the table",
    rows: [
      ["Worth", `${points(cell.worth)} points`],
      ["Interval", known && `${points(cell.worth_lo)} to ${points(cell.worth_hi)}`],
      ["The network is", cell.static === "True" ? "static" : "dynamic"],
    ],
  };
  const each = runs.map((run) => ({
    key: `run-${cell.line}-${run.line}`,
    method,
    title: run.trial,
    x: 100 * (run.test_acc - run.another),
    y: name,
    trial: run.trial,
    hint: runPage(run.trial) ? "Click or Enter: its run in MLflow" : "A confirm run",
    rows: [
      ["Worth", `${points(run.test_acc - run.another)} points`],
      ["Own decisions", `${percent(run.test_acc)} %`],
      ["Another image's", `${percent(run.another)} %`],
      ["Seed", run.seed],
    ],
  }));
  return { mean, each };
}

function routingFigure(root) {
  const rows = routingRows();
  if (!rows.length) return;
  const state = { runs: false };
  const present = new Set(rows.map((row) => row.method));
  const filter = methodFilter([...methods.keys()].filter((name) => present.has(name)), draw);
  const runs = toggle(false, "Each run");
  runs.addEventListener("click", () => {
    state.runs = !state.runs;
    runs.setAttribute("aria-pressed", String(state.runs));
    draw();
  });
  const [accuracy, worth] = [0, 1].map(() => element("div", { class: "plot" }));
  const grid = element("div", { class: "pair" }, accuracy, worth);
  const key = element(
    "p",
    { class: "small" },
    "A line from top to bottom: own decisions (filled, with their interval), another image's " +
      "(hollow), the majority's (pale), all run (small). Worth: hollow is a static network, and " +
      `bars are intervals. ${POINT}`,
  );
  root.append(element("div", { class: "row" }, filter, runs), grid, key);
  root.hidden = false;

  function draw() {
    const whole = Math.min(root.clientWidth, 1100);
    const wide = whole < 720;
    const width = Math.max(280, wide ? whole : (whole - 28) / 2);
    const shown = rows.filter(visible);
    const decisions = shown.flatMap((row) => row.decisions);
    const means = shown.map((row) => row.worth.mean);
    const each = state.runs ? shown.flatMap((row) => row.worth.each) : [];
    const left = named(decisionsPlot(rows, shown, decisions, width));
    replaceFigure(accuracy, left, () => {
      const items = DECISIONS.flatMap((decision) =>
        taken(left, decision.column, decisions.filter((mark) => mark.decision === decision)),
      );
      return d3.sort(items, (item) => decisions.findIndex((mark) => mark.key === item.key));
    });
    const right = named(worthPlot(rows, shown, means, each, width));
    replaceFigure(worth, right, () => [...taken(right, "cells", means), ...taken(right, "seeds", each)]);
  }

  drawToWidth(root, draw);
}

/** A panel with a line for each cell that decides; `ends` are what its axis must hold. */
function routingPanel({ rows, shown, ends, width, label, marks, zero = false }) {
  const names = shown.map((row) => row.name);
  const narrow = width < 430;
  const longest = d3.max(rows, (row) => row.name.length);
  const [low, high] = d3.extent([...ends, ...(zero ? [0] : [])]);
  const space = 0.05 * (high - low) || 1;
  return Plot.plot({
    width,
    height: 56 + (narrow ? 48 : 36) * names.length,
    marginTop: 12,
    marginBottom: 42,
    marginLeft: narrow ? 14 : 14 + 7 * longest,
    marginRight: 16,
    ariaLabel: label,
    style: FIGURE_STYLE,
    x: { domain: [low - space, high + space] },
    y: { type: "point", domain: names, padding: 0.6, axis: null },
    marks: [
      Plot.gridX({ ticks: 5, stroke: "var(--rule)", strokeOpacity: 1 }),
      Plot.axisX({ ticks: 5, label, labelAnchor: "center", labelArrow: "none" }),
      ...(zero ? [Plot.ruleX([0], { stroke: "var(--soft)" })] : []),
      Plot.text(shown, {
        frameAnchor: "left",
        y: "name",
        text: "name",
        dx: narrow ? 0 : -10,
        dy: narrow ? -20 : 0,
        textAnchor: narrow ? "start" : "end",
        fill: "var(--ink)",
        stroke: "var(--paper)",
        strokeWidth: 4,
      }),
      ...marks,
    ],
  });
}

function whiskers(marks, dy) {
  return Plot.ruleY(marks.filter((mark) => mark.lo !== ""), {
    y: "y",
    dy,
    x1: "lo",
    x2: "hi",
    stroke: (mark) => methods.get(mark.method).colour,
    strokeWidth: 1.4,
  });
}

function decisionsPlot(rows, shown, marks, width) {
  const all = rows.flatMap((row) => row.decisions);
  return routingPanel({
    rows,
    shown,
    width,
    label: "Test accuracy, %",
    ends: all.flatMap((mark) => [mark.x, mark.lo, mark.hi]).filter((end) => end !== ""),
    marks: [
      whiskers(marks, DECISIONS[0].look.dy),
      ...DECISIONS.flatMap((decision) =>
        dots(marks.filter((mark) => mark.decision === decision), decision.column, decision.look),
      ),
    ],
  });
}

function worthPlot(rows, shown, means, each, width) {
  const all = rows.flatMap((row) => [row.worth.mean, ...row.worth.each]);
  return routingPanel({
    rows,
    shown,
    width,
    label: "Own decisions less another image's, points",
    zero: true,
    ends: all.flatMap((mark) => [mark.x, mark.lo ?? "", mark.hi ?? ""]).filter((end) => end !== ""),
    marks: [
      whiskers(means, 0),
      ...dots(each, "seeds", { r: 3, fill: "var(--paper)", strokeWidth: 1.3 }),
      ...dots(means, "cells", { r: 5, ring: true }),
    ],
  });
}
