// How figures and nodes are worded: one place for units. Unknown is a word or a dash, never 0.

import { clean, h } from "./dom.js";

export const gb = (bytes) => (bytes === null || bytes === undefined ? "unknown" : `${(bytes / 1e9).toFixed(1)}GB`);
// What an event says: few bytes are not none.
export const amount = (bytes) => (bytes > 0 && bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)}MB` : gb(bytes));
export const ms = (value) => (value === null || value === undefined ? "unknown" : `${value < 100 ? value.toFixed(1) : value.toFixed(0)}ms`);
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
export const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)}%`;

const ID = /\b[a-z2-7]{10}(?:[a-z2-7]{42})?\b/g; // whole ids, and their first ten characters

// What people call each node. Two nodes of one name are told apart by the short id.
export class Names {
  #names = new Map();
  #byShort = new Map();
  #twice = new Set();

  learn(peers) {
    this.#names.clear();
    this.#byShort.clear();
    this.#twice.clear();
    const seen = new Set();
    for (const { node, name } of peers) {
      this.#names.set(node, clean(name));
      this.#byShort.set(node.slice(0, 10), node);
      if (seen.has(name)) this.#twice.add(clean(name));
      seen.add(name);
    }
  }

  of(node) {
    const name = this.#names.get(node);
    const id = String(node).length === 52 ? node.slice(0, 10) : clean(node);
    return !name ? id : this.#twice.has(name) ? `${name} (${id})` : name;
  }

  // Ids in a text become what people know the nodes as.
  inText(text) {
    return clean(text).replace(ID, (id) => {
      const node = this.#names.has(id) ? id : this.#byShort.get(id);
      return node ? this.of(node) : id.length === 52 ? id.slice(0, 10) : id;
    });
  }

  cell(node) {
    const id = String(node).slice(0, 10);
    const name = this.#names.get(node);
    return name ? [h("bdi", { class: "name" }, name), " ", h("code", { class: "id" }, id)] : h("code", { class: "id" }, id);
  }
}
export const names = new Names();

// The RTT of one node as seen from here, with a mark for what kind of figure it is.
export const rttText = (figure) => {
  if (!figure) return "unknown";
  if (figure.estimated) return `${estimate(figure.min_ms)} estimated`;
  return ms(figure.min_ms) + (figure.corroborated ? "" : " (few samples)");
};

// An estimate from coordinates, which tell nothing apart below 5 ms.
export const estimate = (value) => (value < 5 ? "<5ms" : ms(value));

// Sums over a node's devices; null while its offer is unknown, and for a client, which gives nothing by role.
export const memoryOf = (peer) => {
  if (!peer.offer || peer.role === "client") return null;
  const sum = (pick) => peer.offer.devices.reduce((total, device) => total + device[pick], 0);
  const [capacity, usable, used] = [sum("capacity_bytes"), sum("usable_bytes"), sum("reserved_bytes")];
  const declared = peer.offer.devices.some((device) => device.declared);
  return { capacity: Math.max(capacity, usable), usable, used, free: Math.max(0, usable - used), headroom: Math.max(0, capacity - usable), declared };
};
