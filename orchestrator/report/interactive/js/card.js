// What a mark of a figure says when it is pointed at or focused, and how the keyboard walks them.

const card = element("div", { class: "card", role: "tooltip", id: "card", hidden: "" });
document.body.append(card);

function hideCard() {
  card.hidden = true;
  card.owner = null;
}

/** Shows what an item says beside its mark. */
function showCard(item) {
  const list = element("dl");
  for (const [name, value] of item.rows) {
    if (value) list.append(element("dt", {}, name), element("dd", {}, value));
  }
  const title = element("p", { class: "title" }, glyph(item.method), item.title);
  card.replaceChildren(title, list, element("p", { class: "hint" }, item.hint));
  card.owner = item.mark;
  card.hidden = false;
  const box = item.mark.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = card;
  const middle = (box.left + box.right) / 2;
  const left = middle + 14 + width < innerWidth ? middle + 14 : middle - 14 - width;
  const top = (box.top + box.bottom) / 2 - height / 2;
  card.style.left = `${scrollX + Math.max(6, Math.min(left, innerWidth - width - 6))}px`;
  card.style.top = `${scrollY + Math.max(6, Math.min(top, innerHeight - height - 6))}px`;
}

/** What an item says in one sentence, for those who hear it. */
function spoken(item) {
  const values = item.rows.filter(([, value]) => value).map(([name, value]) => `${name} ${value}`);
  return `${item.title}: ${values.join(", ")}`;
}

/**
 * Makes marks answer to pointer and keyboard. The figure is one stop of the Tab key; arrows move
 * from mark to mark in the given order.
 */
function listen(items) {
  items.forEach((item, i) => {
    const { mark } = item;
    mark.setAttribute("tabindex", i ? "-1" : "0");
    mark.setAttribute("aria-label", spoken(item));
    if (mark.tagName !== "a") mark.setAttribute("role", "img");
    mark.addEventListener("pointerenter", () => showCard(item));
    mark.addEventListener("pointerleave", hideCard);
    mark.addEventListener("focus", () => showCard(item));
    mark.addEventListener("blur", hideCard);
    let touched = false;
    mark.addEventListener("pointerdown", (event) => {
      touched = event.pointerType === "touch" && card.owner !== mark;
    });
    mark.addEventListener("click", (event) => {
      if (touched) event.preventDefault(); // the first touch shows the card, the second follows
      showCard(item);
    });
    mark.addEventListener("keydown", (event) => {
      const last = items.length - 1;
      const next = {
        ArrowRight: Math.min(i + 1, last),
        ArrowDown: Math.min(i + 1, last),
        ArrowLeft: Math.max(i - 1, 0),
        ArrowUp: Math.max(i - 1, 0),
        Home: 0,
        End: last,
      }[event.key];
      if (event.key === "Escape") hideCard();
      if (next === undefined) return;
      event.preventDefault();
      mark.setAttribute("tabindex", "-1");
      items[next].mark.setAttribute("tabindex", "0");
      items[next].mark.focus({ preventScroll: true });
    });
  });
}
