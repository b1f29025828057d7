// What figures share: their style, one choice of methods for the whole page, and their marks.

const FIGURE_STYLE = { background: "none", color: "var(--ink)", fontSize: "12px", fontFamily: "inherit" };
const POINT = "Point at a mark, or move with the arrow keys, for its values.";

const hidden = new Set();
const filters = [];

function visible({ method }) {
  return !hidden.has(method);
}

/** A button for each method of a figure. What is switched off is gone from every figure. */
function methodFilter(names, changed) {
  const row = element("div", { class: "row", role: "group", "aria-label": "Methods shown" });
  const buttons = new Map(names.map((name) => [name, toggle(true, glyph(name), name)]));
  for (const [name, button] of buttons) {
    button.addEventListener("click", () => {
      if (!hidden.delete(name)) hidden.add(name);
      for (const update of filters) update();
    });
    row.append(button);
  }
  filters.push(() => {
    for (const [name, button] of buttons) {
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
    }
    changed();
  });
  return row;
}

/** Draws at once, and again whenever the width that there is to draw in has changed. */
function drawToWidth(root, draw) {
  let width = root.clientWidth;
  draw();
  new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    draw();
  }).observe(root);
}

/** Puts a drawn figure into the page; the mark that had the focus has it again. */
function replaceFigure(plot, svg, items) {
  const focused = plot.contains(document.activeElement) ? document.activeElement.dataset.key : "";
  hideCard();
  plot.replaceChildren(svg);
  const listed = items();
  listen(listed);
  listed.find((item) => item.key === focused)?.mark.focus({ preventScroll: true });
}

/** The class of a method's marks; any text may be its name. */
function layer(kind, name) {
  return `${kind}-${[...methods.keys()].indexOf(name)}`;
}

/** Marks in the colour and the shape of their method, moved by pixels where others would hide them. */
function dots(marks, className, style) {
  const { r, fill, fillOpacity = 1, strokeWidth = 0.7, ring = false, shift = () => 0, dy = 0 } = style;
  return d3.groups(marks, (mark) => mark.method).map(([name, own]) => {
    const { colour, shape } = methods.get(name);
    const [symbol, rotate] = symbols[shape];
    return Plot.dot(own, {
      x: "x",
      y: "y",
      r,
      symbol,
      rotate,
      dx: shift(name),
      dy,
      fill: (mark) => (mark.hollow ? "var(--paper)" : (fill ?? colour)),
      fillOpacity,
      stroke: (mark) => (ring && !mark.hollow ? "var(--ink)" : colour),
      strokeWidth: (mark) => (mark.hollow ? 1.8 : strokeWidth),
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
