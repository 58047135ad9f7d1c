// Memory by node: what is offered, used, free, and kept back; and the figures on top of the page.

import { byId, h, s, show, fillTable } from "./dom.js";
import { count, gb, memoryOf, names } from "./words.js";

export const showMemory = (peers) => {
  const givers = peers.filter((peer) => peer.status === "alive" || peer.status === "suspect").filter((peer) => peer.role !== "client");
  const largest = Math.max(1, ...givers.map((peer) => memoryOf(peer)?.capacity ?? 0));
  const columns = [["Node", "bar-cell"], ["Offered", "figure"], ["Used", "figure"], ["Free", "figure"], ["Headroom", "figure"]];
  const rows = givers.flatMap((peer) => [rowOf(peer, largest), ...deviceRows(peer, largest)]);
  fillTable(byId("memory"), "Memory by node and device", columns, rows);
};

const rowOf = (peer, largest) => {
  const memory = memoryOf(peer);
  if (!memory) return [[names.cell(peer.node), h("div", { class: "quiet" }, "its offer is not yet known")], "unknown", "unknown", "unknown", "unknown"];
  const tags = [memory.declared ? h("span", { class: "tag" }, "declared") : null, peer.offer.draining ? h("span", { class: "tag warn" }, "draining") : null, peer.offer.willingness === "always" ? null : h("span", { class: "tag" }, peer.offer.willingness.replace("_", " "))];
  return [[names.cell(peer.node), tags, bar(memory, largest)], gb(memory.usable), gb(memory.used), gb(memory.free), memory.declared ? "-" : gb(memory.headroom)];
};

// Devices stand below their node where it has more than one.
const deviceRows = (peer, largest) => {
  const devices = peer.offer?.devices ?? [];
  if (devices.length < 2 || peer.role === "client") return [];
  return devices.map((device) => {
    const memory = memoryOf({ offer: { devices: [device] }, role: "worker" });
    return [h("div", { class: "device" }, `${device.id} ${device.name}`, bar(memory, largest, true)), gb(memory.usable), gb(memory.used), gb(memory.free), memory.declared ? "-" : gb(memory.headroom)];
  });
};

const bar = (memory, largest, thin = false) => {
  const x = (bytes) => (1000 * bytes) / largest;
  const height = thin ? 8 : 16;
  const svg = s("svg", { viewBox: `0 0 1000 ${height}`, preserveAspectRatio: "none", class: `bar${thin ? " thin" : ""}`, "aria-hidden": "true" });
  svg.append(s("rect", { class: "track", width: 1000, height }));
  svg.append(s("rect", { class: "headroom", width: x(memory.usable + memory.headroom), height }));
  svg.append(s("rect", { class: "free", width: x(memory.usable), height }));
  svg.append(s("rect", { class: "used", width: x(Math.min(memory.used, memory.usable)), height }));
  return svg;
};

export const showSummary = (node, mesh, peers, splits) => {
  const state = mesh.nodes;
  const gone = ["suspect", "dead", "left"].filter((each) => state[each]).map((each) => `${state[each]} ${each}`);
  const memory = peers.filter((peer) => peer.status === "alive").map(memoryOf).filter(Boolean);
  const sum = (pick) => memory.reduce((total, each) => total + each[pick], 0);
  const unknown = mesh.unknown_offers ? `${mesh.unknown_offers} not yet known` : "";
  const declared = memory.some((each) => each.declared) ? "declared figures in it" : "";
  const running = splits.filter((split) => split.phase === "running" || split.phase === "stage").length;
  tiles([
    ["Nodes alive", String(state.alive), gone.join(", ")],
    ["Links of this node", `${mesh.links.direct} direct`, mesh.links.relayed ? `${mesh.links.relayed} relayed` : ""],
    ["Free for plans", gb(sum("free")), [declared, unknown].filter(Boolean).join(", ")],
    ["Used by splits", gb(sum("used")), `of ${gb(sum("usable"))} offered`],
    ["Splits", count(running, "running", "running"), splits.length > running ? `${splits.length - running} not running` : ""],
  ]);
  const draining = node.draining ? ", draining: takes no new stages" : "";
  show(byId("whoami"), h("bdi", { class: "name" }, node.name || node.short), ` ${node.short}, ${node.role}, version ${node.version}${draining}; mesh `, h("code", {}, mesh.mesh.slice(0, 10)));
  document.title = `${node.name || node.short}: meshnode`;
};

const tiles = (figures) =>
  show(byId("summary"), figures.map(([name, value, note]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("b", {}, value), note ? h("small", {}, note) : null))));
