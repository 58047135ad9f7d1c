// The events: a bounded list with a filter, the newest first. It can be paused; what comes meanwhile is kept, bounded.

import { byId, clean, h, show } from "./dom.js";
import { amount, names } from "./words.js";

const MOST_KEPT = 1000;
const MOST_SHOWN = 150;
const LEVELS = ["debug", "info", "warning", "error"];
const HEAD = new Set(["id", "timestamp", "level", "event"]);
const SPOKEN = new Set(["peer.joined", "peer.left", "peer.dead", "peer.returned", "split.planned", "split.shortfall", "split.withdrawn"]);

let kept = [];
let missed = 0;
let due = false;

export const takeEvents = (events, missedNow) => {
  missed += missedNow;
  kept = [...events.reverse(), ...kept].slice(0, MOST_KEPT);
  const told = events.find((event) => SPOKEN.has(event.event));
  if (told) byId("announcer").textContent = `${told.event.replace(".", " ")}: ${names.of(told.peer ?? "") || clean(told.model ?? "")}`;
  if (byId("pause").getAttribute("aria-pressed") === "false") later();
};

export const forgetEvents = () => {
  kept = [];
  missed = 0;
  later();
};

// Once per frame, however many batches come.
const later = () => {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    draw();
  });
};

const draw = () => {
  const text = byId("filter-text").value.trim().toLowerCase();
  const least = LEVELS.indexOf(byId("filter-level").value);
  const found = [];
  for (const event of kept) {
    if (LEVELS.indexOf(event.level) < least) continue;
    const line = fieldsOf(event);
    if (text && !`${event.event} ${line}`.toLowerCase().includes(text)) continue;
    found.push(h("tr", { class: event.level }, h("td", {}, new Date(event.timestamp).toLocaleTimeString()), h("td", {}, event.level), h("th", { scope: "row" }, event.event, h("div", { class: "fields" }, line))));
    if (found.length === MOST_SHOWN) break;
  }
  const head = h("thead", {}, h("tr", {}, ["Time", "Level", "Event"].map((title) => h("th", { scope: "col" }, title))));
  show(byId("events"), h("caption", { class: "unseen" }, "Events, the newest first"), head, h("tbody", {}, found));
  byId("event-count").value = `${found.length === MOST_SHOWN ? `the newest ${MOST_SHOWN}` : found.length} of ${kept.length} shown${missed ? `, ${missed} came too fast to be kept` : ""}`;
};

const fieldsOf = (event) =>
  Object.entries(event)
    .filter(([name, value]) => !HEAD.has(name) && value !== null && value !== "" && !(Array.isArray(value) && !value.length))
    .map(([name, value]) => `${name}=${valueOf(name, value)}`)
    .join("  ")
    .slice(0, 600);

const valueOf = (name, value) => {
  if (Array.isArray(value)) return `[${value.map((each) => valueOf(name, each)).join(", ")}]`;
  if (name.endsWith("_bytes") && typeof value === "number") return amount(value);
  return names.inText(value);
};

export const watchFilter = () => {
  byId("filter-text").addEventListener("input", later);
  byId("filter-level").addEventListener("change", later);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());
  const pause = byId("pause");
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") === "true";
    pause.setAttribute("aria-pressed", String(!paused));
    pause.textContent = paused ? "Pause" : "Go on";
    if (paused) later();
  });
};
