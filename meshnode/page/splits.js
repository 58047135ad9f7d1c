// The splits of this node, the answers to what was asked for, the models, and who stands out whatever the model.

import { byId, h, show, fillTable } from "./dom.js";
import { outList, outcome } from "./outcome.js";
import { gb, names } from "./words.js";

const PHASES = {
  watching: "another node coordinates", no_source: "nobody holds its files", waiting: "waiting for participants",
  planning: "planning", planned: "planned, nothing reserved", short: "short of memory", below_quorum: "below the quorum",
  reserving: "reserving", running: "running", replanning: "replanning", stage: "holds a stage", stopped: "stopped",
};
const GATES = { open: "takes requests", hold: "requests wait: a stage's node does not answer", closed: "takes no requests" };
const KINDS = { running: "good", stage: "good", short: "bad", no_source: "bad", below_quorum: "bad", replanning: "warn" };

export const showSplits = (splits) => {
  const none = h("p", { class: "quiet" }, "This node pursues no model and holds no stage. Name one with ", h("code", {}, "meshnode run --model"), ", or ask below where one could go.");
  show(byId("splits"), splits.length ? splits.map(split) : none);
};

const split = (found) => {
  const pending = (found.candidates ?? []).filter((each) => each.reason);
  const head = [
    h("h3", {}, found.model, " ", h("span", { class: `tag ${KINDS[found.phase] ?? ""}` }, PHASES[found.phase] ?? found.phase)),
    h("p", { class: "quiet" }, [found.coordinator ? `pursued by ${names.of(found.coordinator)}` : "", found.generation ? `generation ${found.generation}` : "", GATES[found.gate] ?? ""].filter(Boolean).join(", ")),
  ];
  if (found.phase === "stage") return h("article", {}, head, h("p", {}, `Layers ${found.layer_start}-${found.layer_end - 1} here, ${gb(found.reserved_bytes)}${found.committed ? "" : ", not yet committed"}.`));
  const waits = pending.length ? [h("h4", {}, "Not taking part (yet)"), outList(pending)] : null;
  return h("article", {}, head, running(found.run), waits, found.result ? outcome(found.result) : null);
};

// How far the engine is with it, and which stages are not there yet.
const running = (run) => {
  if (!run) return null;
  const stages = (run.stages ?? []).filter((stage) => stage.state).map((stage) => `${names.of(stage.node)} ${stage.state}${stage.total_bytes ? ` ${gb(stage.done_bytes)} of ${gb(stage.total_bytes)}` : ""}`);
  const far = run.percent === null || run.percent === undefined || run.percent === 100 ? "" : `, ${run.percent}%`;
  return h("p", {}, `Engine: ${run.state.replaceAll("_", " ")}${far}`, stages.length ? `; stages: ${stages.join(", ")}` : "");
};

export const showAsked = (asked) => {
  byId("h-asked").hidden = asked.length === 0;
  show(byId("asked"), asked.map((each) => h("article", {}, h("h3", {}, each.model, " ", h("time", { class: "quiet", datetime: new Date(each.at_unix_s * 1000).toISOString() }, new Date(each.at_unix_s * 1000).toLocaleTimeString())), outcome(each.result))));
};

export const showOutsiders = (verdicts) => {
  const out = verdicts.filter((each) => each.verdict !== "participant");
  show(byId("outsiders"), out.length ? outList(out) : h("p", { class: "quiet" }, "Every machine of the mesh can take part."));
};

export const showModels = ({ models, profiles, left_out: leftOut }) => {
  const columns = [["Model"], ["Kind"], ["Complete at", "prose"], ["In part at", "figure"], ["Wanted by", "prose"]];
  const rows = models.map((each) => [each.ref, each.is_profile ? "profile" : "files", listed(each.complete_at), String(each.partly_at), listed(each.wanted_by)]);
  fillTable(byId("models"), "Models of the mesh", columns, rows);
  byId("models").closest(".wide").hidden = rows.length === 0;
  offer([...models.map((each) => each.ref), ...profiles.filter((name) => !models.some((each) => each.ref === name))]);
  return leftOut ? `${leftOut} more` : "";
};

const listed = (nodes) => {
  const some = nodes.slice(0, 4).map((node) => names.of(node)).join(", ");
  return nodes.length > 4 ? `${some} and ${nodes.length - 4} more` : some || "-";
};

// The choice stays as it is while somebody chooses.
const offer = (refs) => {
  const select = byId("ask-model");
  const chosen = select.value;
  if ([...select.options].map((option) => option.value).join("\n") === refs.join("\n")) return;
  select.replaceChildren(...refs.map((ref) => h("option", { value: ref }, ref)));
  if (refs.includes(chosen)) select.value = chosen;
};

export const wishOf = () => {
  const context = byId("ask-context").value;
  return { model: byId("ask-model").value, objective: byId("ask-objective").value, ...(context ? { context: Number(context) } : {}) };
};

export const showAnswer = (result) => show(byId("answer"), h("article", { class: "answer" }, outcome(result)));
