// The frontend of the pack: plots on the sampler, guider and plan nodes, live marks while a run is under way, the rows of
// the LoRA node, reports and labels.
// Nodes work without any of it: it edits the inputs that are there and keeps nothing of its own.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { PathPanel } from "./paths.js";
import { SigmaPlot } from "./plot.js";
import { showReport } from "./report.js";
import { LoraRows } from "./rows.js";
import { plan, runSigmas, timesteps } from "./schedule.js";
import { comboLabel, loadText, text } from "./text.js";

const SHOW = "Wan22.Plot.Show", CLIP = "Wan22.Preview.Clip";
const REFRESH = 250; // milliseconds between looks at the inputs: they change by hand, by undo, by links and by other packs
const PAIRS = new Set(["t2v-a14b", "i2v-a14b", "vace-a14b"]); // models of the plan node with two experts
const REPORTS = new Set(["Wan22LoraPair", "Wan22Plan"]);
const PICTURE = /^data:image\/jpeg;base64,[A-Za-z0-9+/=]+$/;

const views = new WeakMap(); // node → its view
const mounted = new Map(); // graph, node and widget → the element on the page
const setting = (id) => app.extensionManager.setting.get(id);
const widget = (node, name) => node.widgets?.find((w) => w.name === name);
const linked = (node, name) => node.inputs?.some((input) => (input.widget?.name ?? input.name) === name && input.link != null);

function values(node, ...names) {
  return Object.fromEntries(names.map((name) => [name, widget(node, name)?.value]).filter(([, value]) => value !== undefined));
}

// What each node knows of its run: {sigmas, boundary (null: one model), note}. Sigmas are null where only the server knows.
const RUNS = {
  Wan22MoEKSampler(node) {
    const numbers = values(node, "steps", "shift", "solver", "schedule", "denoise", "start_at_step", "end_at_step");
    return { sigmas: runSigmas(numbers), boundary: linked(node, "low_noise") ? (widget(node, "boundary")?.value ?? null) : null, note: "" };
  },
  Wan22MoEGuider(node) {
    const source = sigmasOf(node);
    const numbers = source?.comfyClass === "Wan22FlowSchedule" ? values(source, "steps", "shift", "denoise") : null;
    const sigmas = numbers && runSigmas({ ...numbers, solver: `official ${widget(source, "solver")?.value}` });
    const boundary = linked(node, "low_noise") ? (widget(node, "boundary")?.value ?? null) : null;
    return { sigmas, boundary, note: source ? text("fromSigmas", { node: source.title }) : text("noSigmas") };
  },
  Wan22Plan(node) {
    const sigmas = runSigmas({ ...values(node, "steps", "shift"), solver: `official ${widget(node, "solver")?.value}` });
    return { sigmas, boundary: PAIRS.has(widget(node, "model")?.value) ? (widget(node, "boundary")?.value ?? null) : null, note: "" };
  },
};

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

/** A plot in a node, and what is known of the run that the node started last. */
class View {
  constructor(node) {
    this.node = node;
    this.live = null;
    this.plot = new SigmaPlot((boundary) => this.setBoundary(boundary));
    this.paths = node.comfyClass === "Wan22Plan" ? new PathPanel() : null;
    this.parts = { wan22_sigma_plot: this.plot.element };
    this.#add("wan22_sigma_plot", 190);
    if (this.paths) {
      this.parts.wan22_flow_paths = this.paths.element;
      this.#add("wan22_flow_paths", 130);
    }
    this.timer = setInterval(() => this.refresh(), REFRESH);
  }

  #add(name, height) {
    const added = this.node.addDOMWidget(name, name, this.parts[name], { serialize: false, getMinHeight: () => height, getValue: () => undefined, setValue: () => {} });
    added.serialize = false; // not in the workflow file either
  }

  stop() {
    clearInterval(this.timer);
  }

  setBoundary(boundary) {
    const input = widget(this.node, "boundary");
    input.value = boundary;
    input.callback?.(boundary, app.canvas, this.node);
    this.node.setDirtyCanvas(true, true);
    this.refresh();
    clearTimeout(this.saving); // one entry for undo, however many steps the line passes
    this.saving = setTimeout(() => app.extensionManager.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.(), REFRESH);
  }

  /** Undo makes the node anew, but Nodes 2.0 goes on showing the elements of the old one: take their place. */
  #mount() {
    for (const [name, element] of Object.entries(this.parts)) {
      const key = `${this.node.graph.id}/${this.node.id}/${name}`, old = mounted.get(key);
      if (old && old !== element && old.isConnected && !element.isConnected) old.replaceWith(element);
      if (element.isConnected) mounted.set(key, element);
    }
  }

  refresh() {
    if (!this.node.graph) return; // not on a canvas yet
    if (this.node.graph.getNodeById(this.node.id) !== this.node) return this.stop(); // another workflow has been opened
    this.#mount();
    const run = RUNS[this.node.comfyClass](this.node), shown = setting(SHOW) !== false;
    const known = JSON.stringify([run, this.live, linked(this.node, "boundary"), shown]);
    if (known === this.known) return;
    this.known = known;
    this.plot.element.style.visibility = shown ? "visible" : "hidden";
    if (this.live && this.live.inputs !== JSON.stringify(run)) this.live = null; // the inputs have moved on
    const sigmas = run.sigmas ?? this.live?.sigmas ?? null;
    this.plot.draw({ ...run, sigmas, editable: !linked(this.node, "boundary"), live: this.live });
    if (this.paths) this.paths.draw(sigmas, sigmas && run.boundary !== null ? plan(timesteps(sigmas), run.boundary) : []);
  }

  /** An event of the server about this node's run; whatever does not look like one is left alone. */
  hear({ sigmas, plan: experts, step, expert, seconds, clip }) {
    if (isSigmas(sigmas) && Array.isArray(experts)) {
      this.live = { sigmas, step: 0, inputs: JSON.stringify(RUNS[this.node.comfyClass](this.node)) };
      this.plot.show(null);
    } else if (!this.live) return;
    else if (Number.isInteger(step) && step > 0 && step < this.live.sigmas.length && (expert === "high" || expert === "low")) {
      this.live = { ...this.live, step, expert };
      if (setting(CLIP) !== false && typeof clip === "string" && PICTURE.test(clip)) this.plot.show(clip);
    } else if (seconds && typeof seconds === "object") {
      const each = ["high", "low"].filter((who) => Number.isFinite(seconds[who])).map((who) => [who, seconds[who]]);
      this.live = { ...this.live, seconds: Object.fromEntries(each) };
    }
    this.refresh();
  }
}

function isSigmas(sigmas) {
  return Array.isArray(sigmas) && sigmas.length > 1 && sigmas.length <= 10001 && sigmas.every((s) => Number.isFinite(s) && s >= 0);
}

/** A node by the id that the server uses: "7", or "3:7" inside subgraphs. */
function nodeById(id) {
  let graph = app.rootGraph ?? app.graph, node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

app.registerExtension({
  name: "Wan22.MoE",
  settings: [
    {
      id: SHOW,
      name: "Show the sigma plot on the sampler, guider and plan nodes",
      tooltip: "The noise level of every step, coloured by the expert that does it. Drag the line to move the boundary.",
      type: "boolean",
      defaultValue: true,
    },
    {
      id: CLIP,
      name: "Preview the whole clip while sampling",
      tooltip: "All frames of the current estimate instead of the first one alone. Takes a little time in every step.",
      type: "boolean",
      defaultValue: true,
    },
  ],
  async setup() {
    await loadText((path) => api.fetchApi(path), setting("Comfy.Locale"));
    api.addEventListener("wan22.sampling", ({ detail }) => views.get(nodeById(detail?.node))?.hear(detail));
  },
  onNodeOutputsUpdated(outputs) { // a workflow has been opened again, or undone
    for (const [id, output] of Object.entries(outputs)) {
      const node = nodeById(id);
      if (REPORTS.has(node?.comfyClass)) showReport(node, output);
    }
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Wan22")) return;
    for (const input of node.widgets ?? []) if (input.type === "combo") input.options.getOptionLabel = comboLabel;
    if (REPORTS.has(node.comfyClass)) {
      const executed = node.onExecuted;
      node.onExecuted = function (output) {
        executed?.apply(this, arguments);
        showReport(this, output);
      };
    }
    if (!(node.comfyClass in RUNS) && node.comfyClass !== "Wan22LoraPair") return;
    const view = node.comfyClass in RUNS ? new View(node) : new LoraRows(node), removed = node.onRemoved;
    if (view instanceof View) views.set(node, view);
    node.onRemoved = function (...given) {
      view.stop();
      return removed?.apply(this, given);
    };
  },
});
