// A topology: drawn once, then only what has changed is changed.

const SPOKEN_AFTER_MS = 1000; // a screen reader hears how things are, not how they became so
const FEW = { flows: 16, flashes: 20, states: 60, ill: 20 };

class Topology {
  constructor(el) {
    this.title = html("h4");
    this.canvas = svg("svg", { role: "group", "data-lm-suppress-shortcuts": "true" });
    this.links = svg("g");
    this.nodes = svg("g");
    this.canvas.append(this.links, this.nodes);
    this.about = html("div", { class: "cl-about", hidden: "" });
    this.legend = html("ul", { class: "cl-legend", "aria-hidden": "true" });
    this.said = html("p", { class: "cl-said", "aria-hidden": "true" });
    this.spoken = html("p", { class: "cl-unseen", role: "status", "aria-live": "polite" });
    this.ended = html("p", { class: "cl-ended", role: "status" });
    this.rows = html("tbody");
    const heads = ["Name", "Kind", "State", "Details"].map((word) => html("th", { scope: "col" }, word));
    const table = html("table", {}, html("thead", {}, html("tr", {}, ...heads)), this.rows);
    const scroll = html("div", { class: "cl-scroll" }, table);
    this.table = html("details", { "data-lm-suppress-shortcuts": "true" }, html("summary", {}, "The same as a table"), scroll);
    this.frame = html("div", { class: "cl-view cl-live" });
    this.frame.append(this.title, this.canvas, this.about, this.legend, this.said, this.spoken, this.ended, this.table);
    el.append(this.frame);
    this.drawn = { nodes: new Map(), links: new Map() };
    this.listen();
  }

  show(picture) {
    this.links.replaceChildren();
    this.nodes.replaceChildren();
    this.rows.replaceChildren();
    this.drawn = { nodes: new Map(), links: new Map() };
    write(this.title, picture.title || "");
    this.title.hidden = !picture.title;
    this.canvas.setAttribute("aria-label", picture.title || "live topology");
    this.apply(picture);
    write(this.ended, picture.ended);
  }

  change(message) {
    const began = performance.now();
    this.apply(message);
    const changed = Object.keys(message.nodes || {});
    if (changed.length <= FEW.flashes) changed.forEach((name) => this.flash(name, message.nodes[name]));
    this.frame.dataset.workMs = (performance.now() - began).toFixed(2);
  }

  apply({ size, nodes = {}, links = {}, gone = {}, text, ended }) {
    for (const name of gone.links || []) this.remove("links", name);
    for (const name of gone.nodes || []) this.remove("nodes", name);
    for (const [name, fields] of Object.entries(nodes)) this.node(name, fields);
    for (const [name, fields] of Object.entries(links)) this.link(name, fields);
    this.arrange(size, nodes);
    this.explainShapes();
    if (text !== undefined) this.say(text);
    if (ended) write(this.ended, ended);
    this.frame.classList.toggle("cl-over", this.ended.textContent !== "");
  }

  /** Put what has moved to its place, and all if the picture has another size. */
  arrange(size, nodes) {
    if (size) {
      this.size = size;
      this.canvas.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
      this.canvas.style.setProperty("--cl-font", `${size.font}px`);
      this.canvas.style.setProperty("--cl-outline", `${Math.max(1.5, size.marker / 9)}px`);
      this.canvas.style.setProperty("--cl-link-sign", `${Math.max(9, Math.min(20, size.marker))}px`);
    }
    const moves = (name) => ["x", "y", "side"].some((key) => key in nodes[name]);
    const moved = new Set(size ? this.drawn.nodes.keys() : Object.keys(nodes).filter(moves));
    for (const name of moved) this.place(this.drawn.nodes.get(name));
    const links = [...this.drawn.links.values()];
    const loose = links.filter((link) => !link.placed || link.facts.ends.some((end) => moved.has(end)));
    if (loose.length) {
      const degrees = new Map();
      for (const end of links.flatMap((link) => link.facts.ends)) degrees.set(end, (degrees.get(end) || 0) + 1);
      for (const link of loose) this.span(link, degrees);
    }
    const nodesDrawn = [...this.drawn.nodes.values()];
    this.frame.classList.toggle("cl-many", nodesDrawn.length > FEW.states);
    this.frame.classList.toggle("cl-many-ill", nodesDrawn.filter(({ facts }) => !facts.well).length > FEW.ill);
    this.frame.classList.toggle("cl-many-links", links.length > FEW.flows);
    if (!this.nodes.querySelector('[tabindex="0"]')) this.nodes.firstElementChild?.setAttribute("tabindex", "0");
  }

  /** The name stands on the side that the kernel chose; the word of the state after it, or in a line of its own. */
  place({ group, shape, ring, sign, label, state, facts }) {
    const { marker, font } = this.size;
    const side = facts.side || "below";
    const [across, down] = { below: [0, 1], above: [0, -1], right: [1, 0], left: [-1, 0] }[side];
    const away = marker * 0.62 + 2;
    group.setAttribute("transform", `translate(${facts.x},${facts.y})`);
    group.classList.toggle("cl-crowded", !facts.side);
    shape.setAttribute("transform", `scale(${marker / 2})`);
    ring.setAttribute("r", marker * 0.85);
    sign.setAttribute("font-size", marker * 0.7);
    set(label, { x: across * away, y: down * (away + 0.6 * font), "text-anchor": ["end", "middle", "start"][across + 1] });
    if (across) set(state, { dx: "0.4em" });
    else set(state, { x: 0, dy: `${down * 1.15}em` });
  }

  span(link, degrees) {
    const { ends } = link.facts;
    const [a, b] = ends.map((end) => this.drawn.nodes.get(end)?.facts);
    if (!a || !b) return;
    for (const line of [link.line, link.touch]) set(line, { x1: a.x, y1: a.y, x2: b.x, y2: b.y });
    set(link.sign, { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    // the traffic stands beside the line, to its right or above it, nearer to the end that has more room around it
    const share = 0.5 + 0.14 * Math.sign(degrees.get(ends[0]) - degrees.get(ends[1]));
    const [x, y] = [a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)];
    const length = Math.hypot(b.x - a.x, b.y - a.y) || 1;
    let [right, down] = [(a.y - b.y) / length, (b.x - a.x) / length];
    if (right < 0 || (right === 0 && down > 0)) [right, down] = [-right, -down];
    const flat = right < 0.4;
    set(link.flow, { x: x + right * 10, y: y + down * (flat ? 14 : 10), "text-anchor": flat ? "middle" : "start" });
    link.placed = true;
  }

  node(name, fields) {
    const known = this.drawn.nodes.get(name);
    const node = known || this.newNode(name);
    const facts = Object.assign(node.facts, fields);
    if ("path" in fields) node.shape.setAttribute("d", facts.path);
    if ("colour" in fields || "solid" in fields) {
      set(node.shape, { stroke: facts.colour, fill: facts.solid ? facts.colour : "var(--cl-ground)" });
      node.sign.style.fill = facts.solid ? "#fff" : facts.colour;
    }
    if ("sign" in fields) write(node.sign, facts.sign);
    if ("state" in fields) write(node.state, facts.state === "running" ? "" : facts.state);
    if ("well" in fields) node.group.classList.toggle("cl-ill", !facts.well);
    this.describe(node, [name, facts.kind, facts.state], facts.details);
  }

  newNode(name) {
    const node = {
      facts: {},
      ring: svg("circle", { class: "cl-ring" }),
      shape: svg("path", { class: "cl-shape", "vector-effect": "non-scaling-stroke" }),
      sign: svg("text", { class: "cl-sign" }),
      name: svg("tspan", { class: "cl-name" }, name),
      state: svg("tspan", { class: "cl-state" }),
      row: this.newRow(name),
    };
    node.group = svg("g", { class: "cl-node", tabindex: "-1", role: "img", "data-name": name });
    node.label = svg("text", { class: "cl-label" }, node.name, node.state);
    node.group.append(node.ring, node.shape, node.sign, node.label);
    this.nodes.append(node.group);
    this.drawn.nodes.set(name, node);
    return node;
  }

  link(name, fields) {
    const link = this.drawn.links.get(name) || this.newLink(name);
    const facts = Object.assign(link.facts, fields);
    if ("colour" in fields) set(link.line, { stroke: facts.colour });
    if ("dash" in fields) set(link.line, { "stroke-dasharray": facts.dash });
    if ("width" in fields) link.line.style.strokeWidth = facts.width;
    if ("flow" in fields) {
      write(link.flow, facts.flow);
      link.group.classList.toggle("cl-flowing", facts.flow !== "");
    }
    if ("sign" in fields) write(link.sign, facts.sign);
    if ("well" in fields) link.group.classList.toggle("cl-ill", !facts.well);
    this.describe(link, [name, facts.kind, facts.state], facts.flow ? [...facts.details, ["now", facts.flow]] : facts.details);
  }

  newLink(name) {
    const link = {
      facts: {},
      placed: false,
      line: svg("line", { class: "cl-line" }),
      touch: svg("line", { class: "cl-touch" }),
      sign: svg("text", { class: "cl-sign" }),
      flow: svg("text", { class: "cl-flow" }),
      row: this.newRow(name),
    };
    link.group = svg("g", { class: "cl-link", "data-name": name });
    link.group.append(link.line, link.touch, link.sign, link.flow);
    this.links.append(link.group);
    this.drawn.links.set(name, link);
    return link;
  }

  newRow(name) {
    const row = html("tr", { "data-name": name }, html("th", { scope: "row" }), html("td"), html("td"), html("td"));
    this.rows.append(row);
    return row;
  }

  /** The same facts for the eye (the box on hover), for the ear (the label) and as a row of the table. */
  describe(thing, words, details) {
    const facts = details.map((pair) => pair.join(" "));
    const cells = [...words, facts.join(", ")];
    [...thing.row.children].forEach((cell, column) => write(cell, cells[column]));
    thing.group.setAttribute("aria-label", cells.filter(Boolean).join(", "));
    [thing.words, thing.details] = [words, facts];
    if (this.explained === thing) this.explain(thing);
  }

  remove(part, name) {
    const thing = this.drawn[part].get(name);
    if (!thing) return;
    if (this.explained === thing) this.explain(null);
    thing.group.remove();
    thing.row.remove();
    this.drawn[part].delete(name);
  }

  /** Which shape is what: rebuilt only when a kind comes or goes. */
  explainShapes() {
    const kinds = new Map([...this.drawn.nodes.values()].map(({ facts }) => [facts.kind, facts]));
    const names = [...kinds.keys()].join();
    if (this.legend.dataset.kinds === names) return;
    this.legend.dataset.kinds = names;
    const entry = ({ kind, path, hue }) => {
      const shape = svg("path", { d: path, fill: hue, transform: "scale(6)" });
      return html("li", {}, svg("svg", { viewBox: "-9 -9 18 18" }, shape), kind);
    };
    this.legend.replaceChildren(...[...kinds.values()].map(entry));
  }

  say(text) {
    write(this.said, text);
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => write(this.spoken, text), SPOKEN_AFTER_MS);
  }

  flash(name, fields) {
    const node = this.drawn.nodes.get(name);
    if (!("state" in fields)) return;
    node.ring.classList.remove("cl-flash");
    void node.ring.getBoundingClientRect(); // else the browser takes the same class for the same animation
    node.ring.classList.add("cl-flash");
  }

  /** Details on hover and on focus; the arrow keys go from node to node, so that Tab passes the picture in one step. */
  listen() {
    const thing = (target) => {
      const group = target.closest?.(".cl-node, .cl-link");
      return group && (this.drawn.nodes.get(group.dataset.name) || this.drawn.links.get(group.dataset.name));
    };
    this.canvas.addEventListener("pointerover", (event) => this.explain(thing(event.target) || null));
    this.canvas.addEventListener("pointerleave", () => this.explain(null));
    this.canvas.addEventListener("focusin", (event) => this.explain(thing(event.target) || null));
    this.canvas.addEventListener("focusout", () => this.explain(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.explain(null);
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const all = [...this.nodes.children];
    const now = all.indexOf(document.activeElement);
    const next = all[Math.max(0, Math.min(all.length - 1, now + step))];
    all[now]?.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }

  explain(thing) {
    this.explained = thing;
    this.about.hidden = !thing;
    if (!thing) return;
    const [name, ...words] = thing.words;
    this.about.replaceChildren(html("strong", {}, name), ` ${words.filter(Boolean).join(", ")}`);
    for (const fact of thing.details) this.about.append(html("div", {}, fact));
    const frame = this.frame.getBoundingClientRect();
    const box = (thing.line || thing.group).getBoundingClientRect(); // of a node with its name: both stay in sight
    const left = (box.left + box.right - this.about.offsetWidth) / 2;
    const top = thing.line ? (box.top + box.bottom) / 2 + 12 : box.bottom + 4;
    const room = frame.width - this.about.offsetWidth - 4;
    this.about.style.left = `${Math.max(4, Math.min(left - frame.left, room))}px`;
    this.about.style.top = `${top - frame.top}px`;
  }
}

export default {
  render({ model, el }) {
    return follow(model, new Topology(el));
  },
};
