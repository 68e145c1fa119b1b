// What all nodes of the pack share: the texts of the page's language, the labels of combo values, and the colours.
// Nodes work without any of the frontend: it edits the inputs that are there and keeps nothing of its own.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { comboLabel, loadText } from "./i18n.js";
import { followPalette } from "./theme.js";

app.registerExtension({
  name: "Wan22.Words",
  init: followPalette,
  async setup() {
    await loadText((path) => api.fetchApi(path), app.extensionManager.setting.get("Comfy.Locale"));
  },
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Wan22")) return;
    for (const input of node.widgets ?? []) if (input.type === "combo") input.options.getOptionLabel = comboLabel;
  },
});
