// Elements from plain values. Everything that a peer may have written becomes a text node, never markup.

const SVG = "http://www.w3.org/2000/svg";

// Names and texts of peers: no control characters, no invisible ones that turn the reading direction around.
export const clean = (text) => String(text ?? "").replace(/[\p{C}\u2028\u2029]/gu, "\uFFFD");

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(clean(child)));
  }
  return element;
};

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

// Put `children` in place of what is there, and leave the scroll position of the box around it alone.
export const show = (element, ...children) => {
  const box = element.closest(".wide");
  const [top, left] = box ? [box.scrollTop, box.scrollLeft] : [0, 0];
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  if (box) box.scrollTo(left, top);
};

// A table: `columns` are [title, class], `rows` are lists of cells, the first of each a heading of its row.
export const fillTable = (table, caption, columns, rows) => {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, at) => (at ? h("td", { class: columns[at][1] }, cell) : h("th", { scope: "row", class: columns[at][1] }, cell)))));
  show(table, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body));
  return table;
};

export const table = (caption, columns, rows) => fillTable(h("table"), caption, columns, rows);

// A table in a box of its own that scrolls sideways on a narrow screen, reachable by keyboard.
export const wideTable = (caption, columns, rows) =>
  h("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" }, table(caption, columns, rows));
