// What a node says after a run, line by line, in the node.

const NAME = "wan22_report";
const [LINE, LETTER, MARGIN] = [15, 6.7, 40]; // pixels: of a line, of a letter, beside the text
const MOST = 14; // lines; the panel scrolls
const COLOURS = { text: "#cfcfcf", warning: "#ff7b6b" };

/** Show the text of an `executed` event in a node; nothing where there is none. */
export function showReport(node, output) {
  const lines = [output?.text ?? []].flat().join("\n").split("\n").filter(Boolean);
  let panel = node.widgets?.find((widget) => widget.name === NAME);
  if (!panel && !lines.length) return;
  if (!panel) {
    const element = document.createElement("div");
    element.className = "wan22-report";
    element.style.cssText = `overflow:auto;width:100%;height:100%;box-sizing:border-box;padding:4px 6px;font:11px/${LINE}px monospace;user-select:text`;
    const options = { serialize: false, getMinHeight: () => height(node, panel.lines), getValue: () => undefined, setValue: () => {} };
    panel = node.addDOMWidget(NAME, NAME, element, options);
    panel.serialize = false; // not in the workflow file either
  }
  panel.lines = lines;
  panel.element.replaceChildren(
    ...lines.map((line) => {
      const element = document.createElement("div");
      element.style.cssText = `white-space:pre-wrap;overflow-wrap:anywhere;color:${line.startsWith("Warning") ? COLOURS.warning : COLOURS.text}`;
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
  return LINE * (2 + Math.min(MOST, wrapped.reduce((sum, n) => sum + n, 0)));
}
