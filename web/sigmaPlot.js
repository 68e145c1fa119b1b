// The sigma plot on the sampler, guider and plan nodes: noise levels and the expert of each step, the boundary as a
// line to drag, live marks while a run is under way, and its clip so far.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { checkedClip, ClipPreview } from "./clipPreview.js";
import { text } from "./i18n.js";
import { addPanel, keepMounted, makeRoom, showWidget } from "./panel.js";
import { hasRun, runOf } from "./runInputs.js";
import { plan, timesteps } from "./schedule.js";
import { SigmaDrawing } from "./sigmaDrawing.js";
import { themed } from "./theme.js";
import { isReplaced, linked, nodeById, watchNode, widget } from "./watch.js";

const SHOW = "Wan22.Plot.Show";
const CLIP = "Wan22.Preview.Clip";
const NAME = "wan22_sigma_plot";
const HEIGHT = 190; // pixels, of the plot alone
const BESIDE = 30; // pixels of a node beside its panel
const UNDO = 250; // milliseconds after the last move of the boundary, which is one entry for undo
const MOST_STEPS = 10000;

const plots = new WeakMap(); // node → its plot
const setting = (id) => app.extensionManager.setting.get(id);

class SigmaPlot {
  constructor(node) {
    this.node = node;
    this.live = null; // what the server has told of the run that the node started last
    this.known = null; // what is drawn
    this.saving = null;
    this.drawing = new SigmaDrawing(HEIGHT, (boundary) => this.setBoundary(boundary));
    this.clip = new ClipPreview(() => this.#grow());
    this.element = themed("wan22-plot");
    this.element.append(this.drawing.element, this.clip.element);
    this.panel = addPanel(node, NAME, this.element, () => this.#height());
    watchNode(node, () => this.refresh());
  }

  #height() {
    return HEIGHT + Math.round(this.clip.aspect * (this.node.size[0] - BESIDE));
  }

  /** Make room for the clip in the node. */
  #grow() {
    this.element.style.minHeight = `${this.#height()}px`;
    this.node.setSize([this.node.size[0], Math.max(this.node.size[1], this.node.computeSize()[1])]);
    this.node.setDirtyCanvas(true, true);
  }

  setBoundary(boundary) {
    const input = widget(this.node, "boundary");
    input.value = boundary;
    input.callback?.(boundary, app.canvas, this.node);
    this.node.setDirtyCanvas(true, true);
    this.refresh();
    clearTimeout(this.saving);
    const tracker = () => app.extensionManager.workflow?.activeWorkflow?.changeTracker;
    this.saving = setTimeout(() => tracker()?.captureCanvasState?.(), UNDO);
  }

  refresh() {
    if (!this.node.graph || isReplaced(this.node)) return;
    keepMounted(this.node, NAME, this.element);
    const run = runOf(this.node);
    const shown = setting(SHOW) !== false;
    const editable = !linked(this.node, "boundary");
    const known = JSON.stringify([run, this.live, editable, shown]);
    if (known === this.known) return;
    this.known = known;
    if (showWidget(this.panel, shown)) makeRoom(this.node);
    // What belongs to the second model looks unused where there is none.
    for (const name of ["boundary", "cfg_low"]) {
      const input = widget(this.node, name);
      if (input) input.disabled = run.boundary === null;
    }
    this.drawing.draw({
      ...this.#steps(run),
      boundary: run.boundary,
      note: run.note,
      editable,
      live: this.#marks(run),
    });
  }

  /** Noise levels and the expert of each step; as the server told them while the inputs are those of the run. */
  #steps({ sigmas, boundary, key }) {
    const told = this.live?.key === key ? this.live : null;
    if (told && told.boundary === boundary) return { sigmas: told.sigmas, experts: told.experts };
    const levels = told?.sigmas ?? sigmas;
    if (!levels || levels.length < 2) return { sigmas: null, experts: [] };
    const starts = timesteps(levels);
    return { sigmas: levels, experts: boundary === null ? starts.map(() => "high") : plan(starts, boundary) };
  }

  /** The step and the seconds of a run whose inputs are still those of the node, or null. */
  #marks({ boundary, key }) {
    return this.live?.key === key && this.live.boundary === boundary ? this.live : null;
  }

  /** An event of the server about this node's run; whatever does not look like one is left alone. */
  onServerEvent({ sigmas, plan: experts, ignored_shift: shift, begun, loading, step, expert, pace, left, seconds, clip }) {
    const isExpert = expert === "high" || expert === "low";
    if (isSigmas(sigmas) && isPlan(experts, sigmas)) {
      const { key, boundary } = runOf(this.node);
      const warning = Number.isFinite(shift) ? text("ignoredShift", { shift }) : "";
      this.live = { sigmas, experts, key, boundary, warning, step: 0 };
      this.clip.show(null);
    } else if (!this.live) return;
    else if (isStep(begun, this.live.sigmas) && isExpert) {
      this.live = { ...this.live, begun, expert, loading: loading === true };
    } else if (isStep(step, this.live.sigmas) && isExpert) {
      const times = Number.isFinite(pace) && Number.isFinite(left) ? { pace, left } : {};
      this.live = { ...this.live, step, expert, ...times };
      const picture = setting(CLIP) === false ? null : checkedClip(clip);
      if (picture) this.clip.show(picture);
    } else if (seconds && typeof seconds === "object") {
      const each = ["high", "low"].filter((name) => Number.isFinite(seconds[name])).map((name) => [name, seconds[name]]);
      this.live = { ...this.live, seconds: Object.fromEntries(each) };
    }
    this.refresh();
  }
}

function isSigmas(sigmas) {
  if (!Array.isArray(sigmas) || sigmas.length < 2 || sigmas.length > MOST_STEPS + 1) return false;
  return sigmas.every((sigma) => Number.isFinite(sigma) && sigma >= 0);
}

function isPlan(experts, sigmas) {
  const words = Array.isArray(experts) && experts.length === sigmas.length - 1;
  return words && experts.every((expert) => expert === "high" || expert === "low");
}

function isStep(step, sigmas) {
  return Number.isInteger(step) && step > 0 && step < sigmas.length;
}

app.registerExtension({
  name: "Wan22.SigmaPlot",
  settings: [
    {
      id: SHOW,
      name: "Show the sigma plot on the sampler, guider and plan nodes",
      tooltip:
        "The noise level of every step, coloured by the expert that does it. Drag the line to move the boundary.",
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
  setup() {
    api.addEventListener("wan22.sampling", ({ detail }) => plots.get(nodeById(detail?.node))?.onServerEvent(detail));
  },
  nodeCreated(node) {
    if (hasRun(node)) plots.set(node, new SigmaPlot(node));
  },
});
