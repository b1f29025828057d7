// What every part shares: the page's data, its methods, and how numbers are written.

const data = JSON.parse(document.getElementById("data").textContent);
const methods = new Map(data.methods.map((method) => [method.name, method]));
const symbols = {
  o: ["circle", 0],
  s: ["square", 0],
  "^": ["triangle", 0],
  D: ["square", 45],
  v: ["triangle", 180],
  P: ["cross", 0],
  X: ["cross", 45],
};

/** The rows of a table as objects of text, each with its line from 0 on. */
function table(text) {
  const [heads, ...rows] = d3.csvParseRows(text);
  return rows.map((row, line) => ({
    ...Object.fromEntries(row.map((value, i) => [heads[i], value])),
    line,
  }));
}

function number(text) {
  return text === "" || text === undefined ? null : Number(text);
}

function percent(text) {
  return (100 * text).toFixed(2);
}

function points(text) {
  const value = 100 * text;
  return `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(2)}`;
}

/** Up to four significant digits, as people write them. */
function short(value) {
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : noun.endsWith("rch") ? "es" : "s"}`;
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The shape of a method in its colour. */
function glyph(name) {
  const { colour, shape } = methods.get(name);
  const [symbol, turn] = symbols[shape];
  const type = d3[`symbol${symbol[0].toUpperCase()}${symbol.slice(1)}`];
  const svg = d3.create("svg").attr("viewBox", "-6 -6 12 12").attr("aria-hidden", "true");
  svg
    .append("path")
    .attr("d", d3.symbol(type, 56)())
    .attr("transform", `rotate(${turn})`)
    .attr("fill", colour);
  return svg.node();
}

/** A button that is pressed or not. */
function toggle(pressed, ...content) {
  return element("button", { type: "button", "aria-pressed": String(pressed) }, ...content);
}

/** A figure as one group with a name; what Plot calls its layers says nothing to a reader. */
function named(svg) {
  for (const layer of svg.querySelectorAll("g[aria-label]")) layer.removeAttribute("aria-label");
  svg.setAttribute("role", "group");
  return svg;
}

const mlflow = { address: "http://127.0.0.1:5000" };

/** The page of a trial's run in MLflow; null where the run is not known. */
function runPage(trial) {
  const run = data.runs[trial];
  return run === undefined ? null : `${mlflow.address}/#/runs/${run}`;
}

/** A field for the address at which the reader's MLflow answers. */
function addressField(changed) {
  const field = element("input", { type: "url", value: mlflow.address, size: "24" });
  field.addEventListener("change", () => {
    mlflow.address = field.value.replace(/\/+$/, "");
    for (const link of document.querySelectorAll("a[data-trial]")) {
      link.setAttribute("href", runPage(link.dataset.trial)); // of HTML and of SVG
    }
    changed();
  });
  return element("label", {}, "MLflow at ", field);
}

/** Ticks at 1, 2, 3 and 5 times the powers of ten; more where that gives fewer than three. */
function logTicks([low, high]) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const step of [1, 2, 3, 5]) {
      const tick = Number((step * 10 ** power).toPrecision(1));
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks.length > 2 ? ticks : d3.ticks(low, high, 5);
}
