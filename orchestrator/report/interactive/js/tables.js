// Tables that sort by any column, and the report's files to save.

/** What a cell is sorted by: its own value, else its first number, else its text. */
function sortKey(cell) {
  if (!cell) return "";
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const copy = cell.cloneNode(true);
  for (const part of copy.querySelectorAll(".sub, .visually-hidden, svg")) part.remove();
  const text = copy.textContent.trim();
  const match = text.replace(/\u2212/g, "-").match(/^[<>\u2264\u2265\s]*([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)/i);
  return match ? Number(match[1].replace(/,/g, "")) : text;
}

/** Numbers by size, then words by name, then what is empty; in either direction. */
function compare(one, other, direction) {
  const kinds = [one, other].map((key) => (typeof key === "number" ? 0 : /\w/.test(key) ? 1 : 2));
  if (kinds[0] !== kinds[1]) return kinds[0] - kinds[1];
  const order = kinds[0] ? String(one).localeCompare(String(other)) : one - other;
  return direction * order;
}

function sortable(tableNode) {
  const body = tableNode.tBodies[0];
  const heads = [...tableNode.tHead.rows[0].cells];
  const rows = [...body.rows];
  if (rows.length < 2) return;
  heads.forEach((head, column) => {
    const button = element("button", { type: "button", class: "sort" });
    const below = head.querySelector(".sub");
    button.append(...[...head.childNodes].filter((node) => node !== below));
    head.prepend(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numbers = rows.some((row) => typeof sortKey(row.cells[column]) === "number");
      const first = numbers ? "descending" : "ascending";
      const second = numbers ? "ascending" : "descending";
      const next = before === null ? first : before === first ? second : null;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next === null) return body.append(...rows);
      head.setAttribute("aria-sort", next);
      const direction = next === "ascending" ? 1 : -1;
      const keyed = rows.map((row) => [sortKey(row.cells[column]), row]);
      keyed.sort(([one], [other]) => compare(one, other, direction));
      return body.append(...keyed.map(([, row]) => row));
    });
  });
}

function downloads(root) {
  for (const [name, text] of Object.entries(data.files)) {
    const kind = name.endsWith(".json") ? "application/json" : "text/csv";
    const link = element(
      "a",
      { download: name, href: `data:${kind};charset=utf-8,${encodeURIComponent(text)}` },
      name,
    );
    root.append(element("li", {}, link));
  }
  root.hidden = false;
}

/** Names of trials become links of their runs. */
function linkTrials() {
  for (const cell of document.querySelectorAll("[data-run-of]")) {
    const href = runPage(cell.dataset.runOf);
    if (href === null) continue;
    const link = element("a", { href, target: "_blank", rel: "noopener" }, ...cell.childNodes);
    link.dataset.trial = cell.dataset.runOf;
    cell.append(link);
  }
}
