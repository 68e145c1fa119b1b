// The expert loader: choosing a high-noise file chooses the low-noise file of the same release.

import { app } from "../../scripts/app.js";
import { lowNoiseFor } from "./expertNames.js";
import { widget } from "./watch.js";

app.registerExtension({
  name: "Wan22.ExpertPair",
  nodeCreated(node) {
    if (node.comfyClass !== "Wan22ExpertLoader") return;
    const [high, low] = ["high_noise", "low_noise"].map((name) => widget(node, name));
    const fill = () => {
      low.value = lowNoiseFor(high.value, Array.from(low.options.values ?? []));
    };
    const chosen = high.callback;
    high.callback = (...given) => {
      fill(); // by hand: neither a file, nor undo, nor a paste calls this
      return chosen?.apply(high, given);
    };
    fill(); // what a saved workflow says comes afterwards
  },
});
