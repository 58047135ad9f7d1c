// The RTT matrix as a heat map: a table whose cells are coloured. Estimates are hatched; colour is never the only sign.

import { byId, h, show, table } from "./dom.js";
import { estimate, ms, names } from "./words.js";

const STEPS_MS = [1, 3, 10, 30, 100]; // a heat step for each of up to 1 ms, 3 ms, ... and one above
const MAX_WITH_FIGURES = 20; // nodes; in a larger mesh the cells are small and the figure is in their title
const WORDS = { m: "measured", r: "reported by the pair", u: "few samples yet", e: "estimated", "-": "unknown", "=": "itself" };

const shown = (value, kind) => (kind === "e" ? estimate(value) : ms(value));
const step = (value) => STEPS_MS.filter((limit) => value > limit).length;

let cells = []; // of the table that stands now, so that only what changed is touched
let standing = "";

export const showHeat = (grid) => {
  byId("s-rtt").hidden = grid.nodes.length < 2;
  const small = grid.nodes.length > MAX_WITH_FIGURES;
  const key = JSON.stringify([grid.nodes, grid.nodes.map((node) => names.of(node))]);
  if (key !== standing) build(grid, small);
  standing = key;
  grid.nodes.forEach((from, y) => grid.nodes.forEach((to, x) => paint(cells[y][x], from, to, grid.min_ms[y][x], grid.kinds[y][x], small)));
  showList(grid);
};

const build = (grid, small) => {
  const target = byId("rtt");
  target.classList.toggle("small-cells", small);
  cells = grid.nodes.map(() => grid.nodes.map(() => h("td")));
  const label = (node) => names.of(node).slice(0, small ? 10 : 16);
  const heads = grid.nodes.map((node) => h("th", { scope: "col" }, h("span", {}, label(node))));
  const rows = grid.nodes.map((node, y) => h("tr", {}, h("th", { scope: "row" }, label(node)), cells[y]));
  const corner = h("td", { class: "corner" }, "from \\ to");
  const more = grid.left_out ? ` (${grid.left_out} more nodes are left out)` : "";
  show(target, h("caption", { class: "unseen" }, `RTT in milliseconds, from row to column${more}`), h("thead", {}, h("tr", {}, corner, heads)), h("tbody", {}, rows));
  showLegend(grid.left_out);
};

const paint = (cell, from, to, value, kind, small) => {
  const mark = `${value}${kind}`;
  if (cell.dataset.mark === mark) return;
  cell.dataset.mark = mark;
  cell.className = kind === "=" ? "own" : value === null ? "none" : `h${step(value)}${kind === "e" ? " hatched" : ""}`;
  const plain = value === null ? "?" : kind === "e" && value < 5 ? "<5" : value < 10 ? value.toFixed(1) : value.toFixed(0);
  const figure = kind === "=" ? "" : `${kind === "e" ? "~" : ""}${plain}`;
  cell.replaceChildren(small ? h("span", { class: "unseen" }, figure) : document.createTextNode(figure));
  cell.title = `${names.of(from)} to ${names.of(to)}: ${value === null ? "" : `${shown(value, kind)}, `}${WORDS[kind]}`;
};

const showLegend = (leftOut) => {
  const limits = [...STEPS_MS.map((limit) => `up to ${limit}ms`), `above ${STEPS_MS.at(-1)}ms`];
  const items = limits.map((text, at) => h("li", {}, h("span", { class: `swatch h${at}` }), ` ${text}`));
  items.push(h("li", {}, h("span", { class: "swatch h1 hatched" }), " ~ estimated from coordinates, not measured"), h("li", {}, "? unknown"));
  if (leftOut) items.push(h("li", {}, `${leftOut} more nodes are left out here`));
  show(byId("rtt-legend"), items);
};

const showList = (grid) => {
  const pairs = [];
  grid.nodes.forEach((from, y) => grid.nodes.forEach((to, x) => {
    if (grid.min_ms[y][x] !== null) pairs.push([grid.min_ms[y][x], grid.kinds[y][x], from, to]);
  }));
  pairs.sort((a, b) => b[0] - a[0]);
  const rows = pairs.slice(0, 40).map(([value, kind, from, to]) => [`${names.of(from)} to ${names.of(to)}`, shown(value, kind), WORDS[kind]]);
  show(byId("rtt-list"), rows.length ? table("The slowest pairs", [["Pair"], ["RTT", "figure"], ["How it is known"]], rows) : h("p", {}, "No RTT is known yet."));
};
