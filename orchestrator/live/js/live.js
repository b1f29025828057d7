"use strict";
// Fills the page with what the server tells; it asks for nothing but events and boards.
(() => {
  const byId = (id) => document.getElementById(id);
  const board = { shown: "", wanted: "" };

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  /** Writes only what differs, so that nobody hears or selects a text anew. */
  function write(node, text) {
    if (node.textContent !== text) node.textContent = text;
  }

  /** The section of a heading, shown only where it has something to show. */
  function section(id, shown) {
    const whole = byId(id).closest("section");
    whole.hidden = !shown;
    return whole;
  }

  function head(state) {
    write(byId("headline"), state.headline);
    write(byId("status"), `${state.study}: ${state.headline}`);
    write(byId("detail"), state.detail);
    byId("detail").hidden = !state.detail;
    const share = state.planned ? `${Math.floor((100 * state.done) / state.planned)} % · ` : "";
    document.title = `${share}${state.headline} · ${state.study}`;
    byId("progress").hidden = !state.where;
    const bar = document.querySelector("progress");
    bar.hidden = !state.planned;
    if (state.planned) {
      bar.max = state.planned;
      bar.value = state.done;
    }
    write(byId("where"), [state.where, state.left].filter(Boolean).join(", "));
  }

  function methods(state) {
    const body = section("methods", state.methods.length).querySelector("tbody");
    const rows = state.methods.map((method) => {
      const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = method.colour;
      const counts = ["done", "running", "waiting", "failed", "of", "refused", "over_budget"];
      return element(
        "tr",
        {},
        element("th", { scope: "row", class: "text" }, swatch, method.method),
        ...counts.map((name) => element("td", {}, `${method[name] ?? "-"}`)),
        element("td", {}, method.best || "none yet"),
      );
    });
    body.replaceChildren(...rows);
  }

  /** The curve of one trial, on the axes that all running trials share. */
  function curve(trial, colour, domain) {
    const points = trial.curve.map(([epoch, accuracy]) => ({ epoch, accuracy: 100 * accuracy }));
    const last = points.slice(-1);
    const svg = Plot.plot({
      width: 270,
      height: 110,
      marginLeft: 34,
      marginRight: 42,
      marginTop: 10,
      marginBottom: 22,
      style: { background: "none", color: "var(--ink)", fontSize: "11px", fontFamily: "inherit" },
      x: { domain: [0, Math.max(trial.epochs, trial.step, 1)] },
      y: { domain },
      marks: [
        Plot.gridY({ ticks: 3, stroke: "var(--rule)", strokeOpacity: 1 }),
        Plot.axisY({ ticks: 3, label: null, tickSize: 0, tickFormat: "d" }),
        Plot.axisX({ ticks: [0, trial.epochs || trial.step], label: null, tickSize: 3, tickFormat: "d" }),
        Plot.lineY(points, { x: "epoch", y: "accuracy", stroke: colour, strokeWidth: 1.8 }),
        Plot.dot(last, { x: "epoch", y: "accuracy", r: 3, fill: colour }),
        Plot.text(last, {
          x: "epoch",
          y: "accuracy",
          text: (point) => point.accuracy.toFixed(1),
          dx: 7,
          textAnchor: "start",
          fill: "var(--ink)",
        }),
      ],
    });
    for (const layer of svg.querySelectorAll("g[aria-label]")) layer.removeAttribute("aria-label");
    svg.setAttribute("aria-hidden", "true"); // the line above it says the same in words
    return svg;
  }

  function running(state) {
    const list = section("running", state.running.length).querySelector("ul");
    const colours = new Map(state.methods.map((method) => [method.method, method.colour]));
    const values = state.running.flatMap((trial) => trial.curve.map(([, value]) => 100 * value));
    const [low, high] = values.length ? d3.extent(values) : [0, 100];
    const space = 0.08 * (high - low) + 1;
    const domain = [low - space, high + space];
    const items = state.running.map((trial) => {
      const of = trial.epochs ? ` of ${trial.epochs}` : "";
      const accuracy =
        trial.accuracy === null ? "" : `, ${(100 * trial.accuracy).toFixed(1)} % on validation`;
      const role = trial.role === "confirm" ? "Confirm run, " : "";
      const words = `${role}epoch ${trial.step}${of}${accuracy}, for ${trial.taken}`;
      const item = element(
        "li",
        {},
        element("p", { class: "name" }, trial.trial),
        element("p", { class: "small" }, role ? words : words[0].toUpperCase() + words.slice(1)),
      );
      if (trial.curve.length) item.append(curve(trial, colours.get(trial.method), domain));
      return item;
    });
    list.replaceChildren(...items);
    byId("hidden").hidden = !state.hidden;
    write(byId("hidden"), `and ${state.hidden} more`);
  }

  function waiting(state) {
    const body = section("waiting", state.waiting.length).querySelector("tbody");
    const rows = state.waiting.map(({ what, why }) =>
      element("tr", {}, element("th", { scope: "row", class: "text" }, what), element("td", {}, why)),
    );
    body.replaceChildren(...rows);
  }

  function latest(state) {
    const list = section("latest", state.latest.length).querySelector("ol");
    const items = state.latest.map(({ time, text }) => {
      const moment = new Date(time);
      const clock = moment.toLocaleTimeString([], { hourCycle: "h23" });
      const stamp = element("time", { datetime: moment.toISOString() }, clock);
      return element("li", {}, stamp, element("span", {}, text));
    });
    list.replaceChildren(...items);
  }

  /** Loads a board behind the one that is shown, and shows it once it is drawn. */
  function load() {
    const { wanted } = board;
    if (!wanted || wanted === board.shown) return;
    board.shown = wanted;
    byId("newer").hidden = true;
    const final = wanted.startsWith("report");
    const frame = element("iframe", {
      title: final ? "The final board" : "The interim board",
      class: "coming",
    });
    frame.addEventListener("load", () => {
      const body = frame.contentDocument?.querySelector("main")?.parentNode;
      if (!body) {
        frame.remove(); // it could not be drawn: the one before stays, and a later one may do
        return;
      }
      const fit = () => {
        frame.style.height = `${Math.ceil(body.getBoundingClientRect().height) + 1}px`;
      };
      fit();
      new frame.contentWindow.ResizeObserver(fit).observe(body);
      for (const other of [...byId("frames").children]) if (other !== frame) other.remove();
      frame.className = "";
      write(
        byId("about"),
        final
          ? "The final board, as the driver wrote it."
          : "The interim board: it claims nothing. It is drawn anew as search trials end.",
      );
    });
    frame.src = wanted;
    byId("frames").append(frame);
  }

  /** A board under the reader's hands is left alone: a button shows the newer one. */
  function boards(state) {
    if (state.final) board.wanted = `report?${state.done}`;
    else if (state.board) board.wanted = `board?${state.board}`;
    else board.wanted = "";
    if (!board.wanted) {
      board.shown = "";
      byId("frames").replaceChildren();
      byId("newer").hidden = true;
      write(
        byId("about"),
        "There is no board yet: it appears when the first search trial has ended.",
      );
    } else if (document.activeElement?.tagName === "IFRAME" && board.wanted !== board.shown) {
      byId("newer").hidden = false;
    } else if (!document.querySelector("iframe.coming")) {
      load();
    }
  }

  byId("newer").querySelector("button").addEventListener("click", () => {
    byId("board").setAttribute("tabindex", "-1");
    byId("board").focus({ preventScroll: true });
    load();
  });

  function connect() {
    const source = new EventSource("events");
    source.onmessage = (event) => {
      const state = JSON.parse(event.data);
      byId("away").hidden = true;
      head(state);
      methods(state);
      running(state);
      waiting(state);
      latest(state);
      boards(state);
    };
    source.onerror = () => {
      byId("away").hidden = false;
      write(byId("status"), "The watch does not answer.");
      // A stream that broke is opened again by the browser; one that was refused is not.
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
    };
  }
  connect();
})();
