// What a node says after a run, line by line, in the node.

import { app } from "../../scripts/app.js";
import { addPanel } from "./panel.js";
import { themed } from "./theme.js";
import { nodeById } from "./watch.js";

const NAME = "wan22_report";
const REPORTS = new Set(["Wan22LoraPair", "Wan22Plan"]);
const [LINE, LETTER, MARGIN] = [16, 7.3, 40]; // pixels: of a line, of a letter, beside the text
const MOST = 14; // lines; the panel scrolls

/** Show the text of an `executed` event in a node; nothing where there is none. */
function showReport(node, output) {
  const lines = [output?.text ?? []].flat().join("\n").split("\n").filter(Boolean);
  let panel = node.widgets?.find((widget) => widget.name === NAME);
  if (!panel && !lines.length) return;
  if (!panel) {
    const element = themed("wan22-report");
    element.style.cssText = `overflow:auto;padding:4px 6px;user-select:text;font:12px/${LINE}px monospace`;
    panel = addPanel(node, NAME, element, () => height(node, panel?.lines));
  }
  panel.lines = lines;
  panel.element.replaceChildren(
    ...lines.map((line) => {
      const element = document.createElement("div");
      element.style.cssText = "white-space:pre-wrap;overflow-wrap:anywhere";
      if (line.startsWith("Warning")) element.className = "wan22-warning";
      element.textContent = line;
      return element;
    }),
  );
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
}

/** Pixels for the lines, which wrap at the width of the node. */
function height(node, lines = []) {
  const wrapped = lines.map((line) => Math.ceil((line.length * LETTER) / (node.size[0] - MARGIN)));
  return (
    LINE *
    (2 +
      Math.min(
        MOST,
        wrapped.reduce((sum, n) => sum + n, 0),
      ))
  );
}

app.registerExtension({
  name: "Wan22.Report",
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
