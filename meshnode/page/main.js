// Joins the stream to the sections: each part of the picture that changes redraws what shows it.

import { byId } from "./dom.js";
import { forgetEvents, takeEvents, watchFilter } from "./events.js";
import { showHeat } from "./heat.js";
import { Stream, askPlan, signIn } from "./live.js";
import { showMemory, showSummary } from "./memory.js";
import { showAnswer, showAsked, showModels, showOutsiders, showSplits, wishOf } from "./splits.js";
import { showNodes, showTopology } from "./topology.js";
import { names } from "./words.js";

const state = {};
let dirty = new Set();

// Which parts each section shows. Names are in all of them, so a renamed peer redraws everything.
const SECTIONS = [
  [["node", "mesh", "peers", "splits"], () => showSummary(state.node, state.mesh, state.peers, state.splits)],
  [["peers", "rtt"], () => showTopology(state.peers, state.rtt)],
  [["peers"], () => showNodes(state.peers)],
  [["peers"], () => showMemory(state.peers)],
  [["verdicts", "peers"], () => showOutsiders(state.verdicts)],
  [["splits", "peers"], () => showSplits(state.splits)],
  [["asked", "peers"], () => showAsked(state.asked)],
  [["models", "peers"], () => showModels(state.models)],
  [["rtt", "peers"], () => showHeat(state.rtt)],
];

const draw = () => {
  const changed = dirty;
  dirty = new Set();
  for (const [parts, section] of SECTIONS) {
    const known = parts.every((part) => part in state);
    if (known && parts.some((part) => changed.has(part))) section();
  }
};

const take = (part, value) => {
  state[part] = value;
  if (part === "peers") names.learn(value);
  if (dirty.size === 0) queueMicrotask(draw);
  dirty.add(part);
};

const say = (text, kind, banner = "") => {
  const connection = byId("connection");
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = `connection ${kind}`;
  const box = byId("banner");
  box.hidden = !banner;
  if (box.textContent !== banner) box.textContent = banner;
  document.body.classList.toggle("stale", kind === "lost");
};

let lostAt = null;
let stopped = false;
const stream = new Stream({
  part: take,
  events: (events, missed) => {
    stopped = events.some((event) => event.event === "node.stopping");
    takeEvents(events, missed);
  },
  alive: (hello) => {
    lostAt = null;
    if (state.incarnation !== undefined && state.incarnation !== hello.incarnation) forgetEvents();
    state.incarnation = hello.incarnation;
    say("live", "live");
  },
  lost: () => {
    lostAt ??= new Date();
    say("not answering", "lost", `${stopped ? "This node was stopped at" : "This node has not answered since"} ${lostAt.toLocaleTimeString()}. What is shown is from then; the page goes on by itself as soon as the node answers.`);
  },
  signedOut: () => say("not signed in", "lost", "This page is not signed in (any more). Run `meshnode ui` on this machine and open the address it prints."),
});

byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter ?? byId("ask").querySelector("button");
  button.disabled = true;
  button.textContent = "Planning…";
  try {
    showAnswer(await askPlan(wishOf()));
  } catch {
    showAnswer({ result: "refused", message: "the node does not answer" });
  } finally {
    button.disabled = false;
    button.textContent = "Where could it go?";
  }
});

let widthTimer = 0;
new ResizeObserver(() => {
  clearTimeout(widthTimer);
  widthTimer = setTimeout(() => state.peers && showTopology(state.peers, state.rtt), 100);
}).observe(byId("topology"));

addEventListener("hashchange", async () => {
  if (await signIn()) stream.again();
});
watchFilter();
try {
  await signIn();
} finally {
  stream.run();
}
