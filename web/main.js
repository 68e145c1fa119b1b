// Words for all nodes of the pack: the texts of the page's language, and the labels of combo values.
// Nodes work without any of the frontend: it edits the inputs that are there and keeps nothing of its own.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { comboLabel, loadText } from "./i18n.js";

app.registerExtension({
  name: "Wan22.Words",
  async setup() {
    await loadText((path) => api.fetchApi(path), app.extensionManager.setting.get("Comfy.Locale"));
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Wan22")) return;
    for (const input of node.widgets ?? []) if (input.type === "combo") input.options.getOptionLabel = comboLabel;
  },
});
