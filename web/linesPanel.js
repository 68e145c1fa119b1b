// Lines of text in a node, in a panel as high as they need up to a limit.

import { addPanel, keepMounted } from "./panel.js";
import { themed } from "./theme.js";

const [LINE, LETTER, MARGIN] = [16, 7.3, 40]; // pixels: of a line, of a letter, beside the text
const MOST = 14; // lines; the panel scrolls

/**
 * Show lines in the node's panel of that name, which is made where there is none; without lines it is empty.
 *
 * @param {(line: string) => boolean} isWarning whether a line is in the colour of warnings
 * @returns the panel, or undefined where there is nothing to show
 */
export function showLines(node, name, lines, isWarning) {
  let panel = node.widgets?.find((widget) => widget.name === name);
  if (!panel && !lines.length) return undefined;
  if (!panel) {
    const element = themed(name.replace("_", "-"));
    element.style.cssText = `overflow:auto;padding:4px 6px;user-select:text;font:12px/${LINE}px monospace`;
    panel = addPanel(node, name, element, () => height(node, panel?.lines));
  }
  panel.lines = lines;
  panel.element.style.display = lines.length ? "" : "none";
  panel.element.replaceChildren(
    ...lines.map((line) => {
      const element = document.createElement("div");
      element.style.cssText = "white-space:pre-wrap;overflow-wrap:anywhere";
      if (isWarning(line)) element.className = "wan22-warning";
      element.textContent = line;
      return element;
    }),
  );
  if (node.graph) keepMounted(node, name, panel.element);
  node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  node.setDirtyCanvas(true, true);
  return panel;
}

/** Pixels for the lines, which wrap at the width of the node. */
function height(node, lines = []) {
  if (!lines.length) return 0;
  const wrapped = lines.map((line) => Math.ceil((line.length * LETTER) / (node.size[0] - MARGIN)));
  const count = wrapped.reduce((sum, n) => sum + n, 0);
  return LINE * (2 + Math.min(MOST, count));
}
