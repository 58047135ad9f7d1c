// What planning came to: a plan's stages as a picture, a shortfall with its remedies, a quorum that was not reached.

import { h, s, wideTable } from "./dom.js";
import { count, estimate, gb, ms, names } from "./words.js";

export const outcome = (result) => {
  if (!result) return [h("p", { class: "quiet" }, "No plan has been made yet.")];
  if (result.result === "plan") return plan(result);
  if (result.result === "shortfall") return shortfall(result);
  if (result.result === "quorum_not_reached") return quorum(result);
  const text = result.message ?? `${result.field}: found ${result.found}, expected ${result.expected}`;
  return [h("p", { class: "problem" }, names.inText(text)), result.advice ? h("p", {}, names.inText(result.advice)) : null];
};

// --- a plan

const plan = (found) => {
  const declared = new Set(found.declared ?? []);
  const { coordinator, prediction, stages } = found;
  const speed = prediction ? `predicted ${prediction.tokens_per_s.toFixed(1)} tokens/s` : "no speed predicted: some figures are unknown";
  const lanes = count(found.lanes, "lane");
  return [
    h("p", {}, `${count(stages.length, "stage")}, context ${found.context} tokens, ${lanes}, ${speed}. Coordinator: `, names.of(coordinator.node), `, ${gb(coordinator.host_bytes)} of host memory.`),
    strip(stages),
    h("ol", { class: "stages" }, stages.map((stage) => card(stage, found, declared))),
    [...(found.warnings ?? []), ...(found.notes ?? [])].map((text) => h("p", { class: "quiet" }, `Note: ${names.inText(text)}`)),
  ];
};

// All layers in a row, each stage as wide as its share.
const strip = (stages) => {
  const layers = Math.max(...stages.map((stage) => stage.layer_end));
  const svg = s("svg", { viewBox: "0 0 1000 26", preserveAspectRatio: "none", class: "strip", "aria-hidden": "true" });
  stages.forEach((stage, at) => {
    const x = (1000 * stage.layer_start) / layers;
    svg.append(s("rect", { x, width: Math.max(1, (1000 * (stage.layer_end - stage.layer_start)) / layers - 2), height: 26, class: `stage-${at % 6}` }));
  });
  return svg;
};

const card = (stage, found, declared) => {
  const { total, usable } = stage.bytes;
  const hop = found.hops.find((each) => each.to === stage.node) ?? found.hops.find((each) => each.from === stage.node);
  const way = stage.node === found.coordinator.node ? "on the coordinator" : !hop ? "" : `RTT ${hop.estimated ? `${estimate(hop.rtt_ms)} estimated` : ms(hop.rtt_ms)}`;
  const svg = s("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", class: "bar thin", "aria-hidden": "true" });
  svg.append(s("rect", { class: "free", width: 100, height: 8 }), s("rect", { class: "used", width: usable ? Math.min(100, (100 * total) / usable) : 100, height: 8 }));
  const item = h("li", { class: `stage stage-edge-${stage.stage % 6}` },
    h("b", {}, names.of(stage.node)), h("span", { class: "quiet" }, ` ${stage.device}`),
    h("div", {}, `layers ${stage.layer_start}-${stage.layer_end - 1} (${stage.layer_end - stage.layer_start})`),
    svg,
    h("div", {}, `${gb(total)} of ${gb(usable)}`, declared.has(stage.node) ? h("span", { class: "tag" }, "declared") : null),
    stage.missing_bytes ? h("div", { class: "quiet" }, `${gb(stage.missing_bytes)} to fetch first`) : null,
    h("div", { class: "quiet" }, hop?.estimated ? [h("span", { class: "swatch hatched" }), " "] : null, [way, stage.seconds === null ? "" : `${(stage.seconds * 1000).toFixed(1)}ms per token`].filter(Boolean).join(", ")));
  item.style.flexGrow = String(stage.layer_end - stage.layer_start);
  return item;
};

// --- a shortfall

const shortfall = (report) => [
  h("p", { class: "problem" }, headline(report)),
  gap(report),
  h("h4", {}, "What would help, least effort first"),
  report.remedies.length
    ? h("ol", { class: "remedies" }, report.remedies.map((remedy) => h("li", {}, h("span", { class: remedy.sufficient ? "tag good" : "tag" }, remedy.sufficient ? "then it fits" : `closes ${gb(remedy.closes_bytes)}`), ` ${names.inText(remedy.asks)}`)))
    : h("p", { class: "quiet" }, "Nothing that could be tried would make it fit."),
  h("h4", {}, "Who was counted"),
  participants(report),
  exclusions(report.excluded),
];

const headline = (report) => {
  const need = `needs ${gb(report.required_bytes)}, the mesh has ${gb(report.available_bytes)} across ${count(report.participants.length, "participant")}`;
  if (report.kind === "aggregate") return `${need}: short by ${gb(report.short_by_bytes)}`;
  const layers = `places ${report.placeable_layers} of ${report.layers} layers`;
  const binds = report.binds ? `, bound by ${report.binds.replaceAll("_", " ")}` : "";
  return `${need}: ${layers}, short by ${count(report.short_layers, "layer")}${binds}`;
};

const gap = (report) => {
  const whole = Math.max(report.required_bytes, report.available_bytes, 1);
  const has = (1000 * report.available_bytes) / whole;
  const needs = (1000 * report.required_bytes) / whole;
  const svg = s("svg", { viewBox: "0 0 1000 22", preserveAspectRatio: "none", class: "bar gap", "aria-hidden": "true" });
  svg.append(s("rect", { class: "track", width: 1000, height: 22 }), s("rect", { class: "missing", width: needs, height: 22 }), s("rect", { class: "free", width: has, height: 22 }));
  return svg;
};

const participants = (report) => {
  const declared = new Set(report.declared ?? []);
  const columns = [["Node"], ["Usable", "figure"], ["Cached", "figure"], ["Missing", "figure"], ["RTT", "figure"], ["Layers alone", "figure"]];
  const rows = report.participants.map((each) => [
    names.cell(each.node),
    [gb(each.usable_bytes), declared.has(each.node) ? h("span", { class: "tag" }, "declared") : null],
    gb(each.cached_bytes), gb(each.missing_bytes), each.rtt_ms === 0 ? "-" : each.rtt_estimated ? `${estimate(each.rtt_ms)} estimated` : ms(each.rtt_ms), String(each.placeable_layers),
  ]);
  return rows.length ? wideTable("Who was counted", columns, rows) : h("p", { class: "quiet" }, "Nobody.");
};

const exclusions = (excluded) => (excluded?.length ? [h("h4", {}, "Who was left out, and why"), outList(excluded)] : []);

// Nodes with the reason why each is left out, what was found, and what its operator can do.
export const outList = (verdicts) =>
  h("ul", { class: "outs" }, verdicts.map((each) =>
    h("li", {},
      h("div", {}, names.cell(each.node), h("span", { class: each.verdict === "pending" ? "tag warn" : "tag" }, h("code", {}, each.reason), each.verdict === "pending" ? " pending" : "")),
      h("div", { class: "quiet" }, names.inText(each.found || ""), each.required ? `; required: ${names.inText(each.required)}` : ""),
      each.advice ? h("div", {}, names.inText(each.advice)) : null)));

const quorum = (found) => [
  h("p", { class: "problem" }, `Quorum not reached: ${found.participants.length} of ${found.quorum} after ${found.waited_s.toFixed(1)}s`),
  exclusions(found.excluded),
];
