// What a node says after a run, and what went wrong in it, line by line, in the node.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { showLines } from "./linesPanel.js";
import { makeRoom, showWidget } from "./panel.js";
import { nodeById } from "./watch.js";

const [REPORT, ERROR] = ["wan22_report", "wan22_error"];
const REPORTS = new Set(["Wan22LoraPair", "Wan22Plan"]);
const failed = new Map(); // nodes that show an error → their size without it

/** Show the text of an `executed` event in a node; nothing where there is none. */
function showReport(node, output) {
  const lines = [output?.text ?? []].flat().join("\n").split("\n").filter(Boolean);
  showLines(node, REPORT, lines, (line) => line.startsWith("Warning"));
}

/** Show an error of ours: what was found on the first line, what was needed and what to do on the second. */
function showError({ node_id: id, exception_message: message }) {
  const node = nodeById(id);
  if (!node?.comfyClass?.startsWith("Wan22") || typeof message !== "string") return;
  const lines = message.trim().split("\n", 1)[0].split(/ (?=Needed: )/);
  if (!failed.has(node)) failed.set(node, [...node.size]);
  const panel = showLines(node, ERROR, lines, () => true);
  panel.element.setAttribute("role", "alert");
  if (showWidget(panel, true)) makeRoom(node);
}

function clearErrors() {
  for (const [node, size] of failed) {
    const panel = showLines(node, ERROR, [], () => true);
    if (panel) showWidget(panel, false);
    makeRoom(node, false);
    node.setSize(size);
  }
  failed.clear();
}

app.registerExtension({
  name: "Wan22.Report",
  setup() {
    api.addEventListener("execution_start", clearErrors);
    api.addEventListener("execution_error", ({ detail }) => showError(detail));
  },
  onNodeOutputsUpdated(outputs) {
    // a workflow has been opened again, or undone
    for (const [id, output] of Object.entries(outputs)) {
      const node = nodeById(id);
      if (REPORTS.has(node?.comfyClass)) showReport(node, output);
    }
  },
  nodeCreated(node) {
    if (!REPORTS.has(node.comfyClass)) return;
    const executed = node.onExecuted;
    node.onExecuted = function (output) {
      executed?.apply(this, arguments);
      showReport(this, output);
    };
  },
});
