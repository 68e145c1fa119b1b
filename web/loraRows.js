// The LoRA node shows the rows that are in use and an empty one. The inputs are all there; the others are hidden.

import { app } from "../../scripts/app.js";
import { NONE, rowsShown, siblingOf, strengthsFor } from "./expertNames.js";
import { makeRoom, showWidget } from "./panel.js";
import { isReplaced, linked, watchNode, widget } from "./watch.js";

/** The rows of one node. */
class LoraRows {
  constructor(node) {
    this.node = node;
    this.rows = [];
    for (let n = 1; widget(node, `lora_${n}`); n++) {
      const [file, high, low] = ["lora", "strength_high", "strength_low"].map((name) => widget(node, `${name}_${n}`));
      this.rows.push({ file, high, low, widgets: [file, high, low], before: file.value });
    }
    for (const row of this.rows) {
      // Rows that are not in use are not sent, but stay in the workflow file. Asked when a prompt is made, not before.
      for (const { options } of row.widgets)
        Object.defineProperty(options, "serialize", { get: () => this.#used(row), set() {}, enumerable: true });
      const chosen = row.file.callback;
      row.file.callback = (...given) => {
        this.#choose(row);
        const result = chosen?.apply(row.file, given);
        this.refresh();
        return result;
      };
    }
    const configured = node.onConfigure;
    node.onConfigure = (...given) => {
      configured?.apply(node, given);
      this.refresh(false); // the file has the node's size
    };
    this.refresh();
    watchNode(node, () => this.refresh());
  }

  #used(row) {
    return row.file.value !== NONE || row.widgets.some(({ name }) => linked(this.node, name));
  }

  /** A file has been chosen by hand: set the strengths by its name, and put its other half into the next row. */
  #choose(row) {
    const file = row.file.value,
      files = Array.from(row.file.options.values ?? []);
    if (file === row.before || file === NONE) return;
    const next = this.rows[this.rows.indexOf(row) + 1],
      other = siblingOf(file, files);
    const free = next && !this.#used(next),
      paired = next && next.file.value === siblingOf(row.before, files);
    this.#set(row, file, row);
    if (!other || !(free || paired) || this.rows.some((any) => any !== next && any.file.value === other)) return;
    this.#set(next, other, free ? row : next);
  }

  /** Put a file into a row, with the strengths that another row has had so far. */
  #set(row, file, { high, low }) {
    const strengths = strengthsFor(file, row.before, { high: high.value, low: low.value });
    [row.file.value, row.high.value, row.low.value] = [file, strengths.high, strengths.low];
  }

  /** Show what is needed. @param {boolean} resize let the node grow and shrink with it */
  refresh(resize = true) {
    const { node, rows } = this;
    if (isReplaced(node)) return;
    const used = rows.map((row) => this.#used(row)),
      count = rowsShown(used);
    let changed = false;
    rows.forEach((row, i) => {
      row.before = row.file.value;
      changed = showWidget(row.file, i < count) || changed;
      for (const strength of [row.high, row.low]) changed = showWidget(strength, used[i]) || changed;
    });
    if (!changed) return;
    makeRoom(node, resize);
  }
}

app.registerExtension({
  name: "Wan22.LoraRows",
  nodeCreated(node) {
    if (node.comfyClass === "Wan22LoraPair") new LoraRows(node);
  },
});
