// The mesh as a picture: this node in the middle, the others around it. The table beside it says the same in words.

import { byId, h, s, show, fillTable } from "./dom.js";
import { count, gb, memoryOf, names, rttText } from "./words.js";

const ORDER = { alive: 0, suspect: 1, dead: 2, left: 3 };
const MEASURED = new Set(["m", "r", "u"]);

export const showTopology = (peers, rtt) => {
  const box = byId("topology");
  const shown = peers.filter((peer) => peer.self || peer.status === "alive" || peer.status === "suspect" || peer.status === "dead");
  const width = Math.max(280, box.clientWidth || 800);
  const height = shown.length < 2 ? 120 : Math.round(Math.min(shown.length < 7 ? 420 : 620, Math.max(300, width * 0.62)));
  const alone = h("p", { class: "quiet" }, "Nobody else is known yet. ", h("code", {}, "meshnode invite"), " prints a token for the next machine.");
  show(box, picture(shown, rtt, width, height), shown.length < 2 ? alone : null);
};

const picture = (peers, rtt, width, height) => {
  const places = placed(peers, width, height);
  const largest = Math.max(1, ...peers.map((peer) => memoryOf(peer)?.usable ?? 0));
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": inWords(peers) });
  svg.append(othersPath(peers, rtt, places));
  for (const peer of peers) if (peer.link) svg.append(...linkTo(peer, peers, places));
  for (const peer of peers) svg.append(dot(peer, places.get(peer.node), largest));
  return svg;
};

// This node in the middle, the rest on an ellipse in the order of their ids, so that nobody jumps when one leaves.
const placed = (peers, width, height) => {
  const others = peers.filter((peer) => !peer.self).sort((a, b) => (a.node < b.node ? -1 : 1));
  const middle = { x: width / 2, y: height / 2 };
  const [rx, ry] = [Math.max(80, width / 2 - 92), Math.max(80, height / 2 - 62)];
  const radial = others.length > 18 || (Math.PI * (rx + ry)) / Math.max(1, others.length) < 76;
  // Names stand around the circle where there is room for them; else the circle takes their place.
  const withNames = (2 * Math.PI * (Math.min(width, height) / 2 - 84)) / Math.max(1, others.length) > 10;
  const r = Math.min(width, height) / 2 - (withNames ? 84 : 16);
  const room = (2 * Math.PI * r) / Math.max(1, others.length);
  const places = new Map();
  for (const peer of peers) if (peer.self) places.set(peer.node, { ...middle, radial: false, room: 60, named: true });
  others.forEach((peer, at) => {
    const angle = (2 * Math.PI * at) / others.length - Math.PI / 2 + (others.length === 2 ? Math.PI / 2 : 0);
    const [a, b] = radial ? [r, r] : [rx, ry];
    places.set(peer.node, { x: middle.x + a * Math.cos(angle), y: middle.y + b * Math.sin(angle), angle, radial, room: radial ? room : 60, named: !radial || withNames });
  });
  return places;
};

// Links between others, as their own gossiped measurements show them: one path, however many there are.
const othersPath = (peers, rtt, places) => {
  const own = peers.find((peer) => peer.self)?.node;
  let d = "";
  rtt?.nodes.forEach((from, at) => {
    for (let to = at + 1; to < rtt.nodes.length; to += 1) {
      const [a, b] = [places.get(from), places.get(rtt.nodes[to])];
      const known = MEASURED.has(rtt.kinds[at][to]) || MEASURED.has(rtt.kinds[to][at]);
      if (a && b && known && from !== own && rtt.nodes[to] !== own) d += `M${a.x.toFixed(1)} ${a.y.toFixed(1)}L${b.x.toFixed(1)} ${b.y.toFixed(1)}`;
    }
  });
  return s("path", { d, class: peers.length > 24 ? "others dense" : "others" });
};

const linkTo = (peer, peers, places) => {
  const from = places.get(peers.find((each) => each.self)?.node);
  const to = places.get(peer.node);
  if (!from || !to || peer.self) return [];
  const via = peer.link.carrier && places.get(peer.link.carrier);
  const d = via
    ? `M${from.x} ${from.y}Q${via.x} ${via.y} ${to.x} ${to.y}`
    : `M${from.x} ${from.y}L${to.x} ${to.y}`;
  const line = s("path", { d, class: `link ${peer.link.path === "relayed" ? "relayed" : "direct"}` });
  if (!peer.rtt || to.radial) return [line];
  const [x, y] = [from.x + (to.x - from.x) * 0.56, from.y + (to.y - from.y) * 0.56];
  return [line, s("text", { x, y: y - 4, class: "rtt-label" }, rttText(peer.rtt).replace(" estimated", " est."))];
};

const dot = (peer, place, largest) => {
  const memory = memoryOf(peer);
  const full = memory && peer.status !== "dead" ? 7 + 15 * Math.sqrt(memory.usable / largest) : 7;
  const r = Math.min(full, Math.max(3, place.room * 0.48));
  const group = s("g", { class: `node ${peer.status} ${peer.role}${peer.self ? " self" : ""}`, transform: `translate(${place.x.toFixed(1)} ${place.y.toFixed(1)})` });
  group.append(s("title", {}, sentence(peer)));
  group.append(peer.role === "client" ? s("rect", { x: -Math.min(7, r), y: -Math.min(7, r), width: 2 * Math.min(7, r), height: 2 * Math.min(7, r), rx: 2 }) : s("circle", { r }));
  if (peer.status === "dead") group.append(s("path", { class: "cross", d: `M${-r} ${-r}L${r} ${r}M${r} ${-r}L${-r} ${r}` }));
  if (place.named) group.append(...label(peer, place, r, memory));
  return group;
};

const label = (peer, place, r, memory) => {
  const name = short(names.of(peer.node), place.radial ? 12 : 18);
  if (place.radial) {
    const left = Math.cos(place.angle) < -0.01;
    const turn = (place.angle * 180) / Math.PI + (left ? 180 : 0);
    return [s("text", { class: "small", transform: `rotate(${turn.toFixed(1)})`, x: left ? -(r + 4) : r + 4, dy: "0.35em", "text-anchor": left ? "end" : "start" }, name)];
  }
  const under = peer.role === "client" ? "client" : peer.status === "alive" ? (memory ? gb(memory.usable) + (memory.declared ? " declared" : "") : "not yet known") : peer.status;
  return [
    s("text", { y: r + 15, "text-anchor": "middle" }, name),
    s("text", { y: r + 29, "text-anchor": "middle", class: "small" }, under),
  ];
};

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

const sentence = (peer) => {
  const path = peer.self ? "this node" : peer.link ? `${peer.link.path} link, RTT ${rttText(peer.rtt)}` : peer.connecting ? "connecting" : "no link";
  const memory = memoryOf(peer);
  return `${names.of(peer.node)}: ${peer.role}, ${peer.status}, ${path}${memory ? `, ${gb(memory.usable)} usable` : ""}`;
};

const inWords = (peers) => {
  const others = peers.filter((peer) => !peer.self);
  const by = (path) => others.filter((peer) => peer.link?.path === path).length;
  return `${count(peers.length, "node")}; this node has ${count(by("direct"), "direct link")} and ${by("relayed")} relayed. The table below lists them.`;
};

export const showNodes = (peers) => {
  const columns = [["Node", "text"], ["Role"], ["Status"], ["Path"], ["RTT", "figure"], ["Usable", "figure"], ["Address"], ["Software"]];
  const rows = [...peers].sort((a, b) => b.self - a.self || ORDER[a.status] - ORDER[b.status]).map((peer) => {
    const memory = memoryOf(peer);
    const carrier = peer.link?.carrier ? ` by ${names.of(peer.link.carrier)}` : "";
    return [
      [names.cell(peer.node), peer.self ? h("span", { class: "tag" }, "this node") : null],
      peer.role,
      h("span", { class: `status ${peer.status}` }, peer.connecting && !peer.link && peer.status === "alive" ? "connecting" : peer.status),
      peer.link ? peer.link.path + carrier : "-",
      peer.self ? "-" : rttText(peer.rtt),
      memory ? gb(memory.usable) : peer.role === "client" ? "-" : "unknown",
      h("span", { class: "address" }, peer.link?.address ?? peer.addresses[0] ?? "-"),
      (peer.software ?? "unknown").replace("meshnode ", ""),
    ];
  });
  fillTable(byId("nodes"), "Nodes", columns, rows);
};
