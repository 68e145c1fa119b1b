// What a node's inputs say about its run, before the server has been asked.

import { NONE } from "./expertNames.js";
import { text } from "./i18n.js";
import { runSigmas } from "./schedule.js";
import { linked, values, widget } from "./watch.js";

// Models of the plan node with two experts.
const PAIRS = new Set(["t2v-a14b", "i2v-a14b", "vace-a14b", "bernini-r-a14b", "fun-control-a14b"]);

const RUNS = {
  Wan22MoEKSampler(node) {
    const numbers = values(node, "steps", "shift", "solver", "schedule", "denoise", "start_at_step", "end_at_step");
    return { numbers, boundary: boundaryOf(node, hasSecond(node)), note: "" };
  },
  Wan22MoEGuider(node) {
    const source = sigmasOf(node);
    const known = source?.comfyClass === "Wan22FlowSchedule";
    const numbers = known ? { ...values(source, "steps", "shift", "denoise"), solver: officialSolver(source) } : null;
    const note = source ? text("fromSigmas", { node: source.title }) : text("noSigmas");
    return { numbers, boundary: boundaryOf(node, hasSecond(node)), note };
  },
  Wan22Plan(node) {
    const numbers = { ...values(node, "steps", "shift"), solver: officialSolver(node) };
    return { numbers, boundary: boundaryOf(node, PAIRS.has(widget(node, "model")?.value)), note: "" };
  },
};

export function hasRun(node) {
  return node.comfyClass in RUNS;
}

/**
 * @returns {{sigmas: number[]|null, boundary: number|null, note: string, key: string}}
 *   sigmas: null where only the server knows them; boundary: null for a single model; key: equal for equal noise levels
 */
export function runOf(node) {
  const { numbers, boundary, note } = RUNS[node.comfyClass](node);
  return { sigmas: numbers && runSigmas(numbers), boundary, note, key: JSON.stringify([numbers, note]) };
}

/** Whether a low-noise MODEL comes in: a link, and not from a loader that has none. */
function hasSecond(node) {
  const slot = node.inputs?.findIndex((input) => input.name === "low_noise") ?? -1;
  if (slot < 0 || node.inputs[slot].link == null) return false;
  const loader = sourceOf(node, slot);
  return loader?.comfyClass !== "Wan22ExpertLoader" || widget(loader, "low_noise")?.value !== NONE;
}

/** The node that a link comes from, past nodes that hand a pair on. */
function sourceOf(node, slot) {
  const source = node.getInputNode?.(slot);
  if (source?.comfyClass !== "Wan22LoraPair") return source;
  return sourceOf(
    source,
    source.inputs.findIndex((input) => input.name === "low_noise"),
  );
}

function boundaryOf(node, isPair) {
  return isPair ? (widget(node, "boundary")?.value ?? null) : null;
}

function officialSolver(node) {
  return `official ${widget(node, "solver")?.value}`;
}

/** The node whose SIGMAS go where this guider goes. */
function sigmasOf(guider) {
  for (const id of guider.outputs?.[0]?.links ?? []) {
    const target = guider.graph.getNodeById(guider.graph.getLink(id)?.target_id);
    const slot = target?.inputs?.findIndex((input) => input.name === "sigmas") ?? -1;
    const source = slot >= 0 ? target.getInputNode(slot) : null;
    if (source) return source;
  }
  return null;
}
