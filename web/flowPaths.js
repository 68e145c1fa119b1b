// Flow matching beside diffusion: the same noise levels on a straight path and on a curved one.

import { app } from "../../scripts/app.js";
import { text } from "./i18n.js";
import { addPanel, keepMounted } from "./panel.js";
import { runOf } from "./runInputs.js";
import { plan, timesteps } from "./schedule.js";
import { label, svg } from "./sigmaDrawing.js";
import "./sigmaPlot.js"; // registered before, so that its panel stands above
import { themed } from "./theme.js";
import { isReplaced, watchNode } from "./watch.js";

const NAME = "wan22_flow_paths";

const [WIDTH, HEIGHT] = [320, 130];
const BOX = { left: 14, right: 130, top: 16, bottom: 96 };

/** Where a mix of data and noise lies on the chord between them. */
function straight(sigma) {
  return { data: 1 - sigma, noise: sigma };
}

/** The point with the same ratio of noise to data on the arc of equal variance. */
function curved(sigma) {
  const length = Math.hypot(1 - sigma, sigma);
  return { data: (1 - sigma) / length, noise: sigma / length };
}

class FlowPaths {
  constructor(node) {
    this.node = node;
    this.known = null; // what is drawn
    this.element = themed("wan22-paths");
    this.element.style.minHeight = `${HEIGHT}px`;
    this.drawing = svg("svg", { height: HEIGHT });
    this.element.append(this.drawing);
    addPanel(node, NAME, this.element, () => HEIGHT);
    watchNode(node, () => this.refresh());
  }

  refresh() {
    if (isReplaced(this.node)) return;
    keepMounted(this.node, NAME, this.element);
    const { sigmas, boundary } = runOf(this.node);
    const known = JSON.stringify([sigmas, boundary]);
    if (known === this.known) return;
    this.known = known;
    this.draw(sigmas, sigmas && boundary !== null ? plan(timesteps(sigmas), boundary) : []);
  }

  /** @param {number[]|null} sigmas noise levels of the run @param {string[]} experts "high" or "low" for each step */
  draw(sigmas, experts) {
    this.drawing.replaceChildren();
    if (!sigmas || sigmas.length < 2) return;
    this.#panel(0, straight, text("straightPath"), sigmas, experts);
    this.#panel(WIDTH / 2, curved, text("curvedPath"), sigmas, experts);
  }

  #panel(offset, path, title, sigmas, experts) {
    const at = (sigma) => {
      const { data, noise } = path(sigma);
      return [offset + BOX.left + (BOX.right - BOX.left) * data, BOX.bottom - (BOX.bottom - BOX.top) * noise];
    };
    const fine = Array.from({ length: 33 }, (_, i) => at(1 - i / 32).join(" "));
    const group = svg("g", { class: "wan22-path" });
    group.append(svg("path", { d: `M${fine.join("L")}`, class: "wan22-line" }));
    sigmas.forEach((sigma, i) => {
      const [cx, cy] = at(sigma);
      group.append(svg("circle", { cx, cy, r: 2.2, class: experts[i] ? `wan22-${experts[i]}` : "wan22-point" }));
    });
    const [noise, data] = [at(1), at(0)];
    group.append(
      label(noise[0] + 6, noise[1] - 4, text("noise")),
      label(data[0], data[1] + 12, text("data"), { "text-anchor": "end" }),
      label(offset + BOX.left, HEIGHT - 8, title),
    );
    this.drawing.append(group);
  }
}

app.registerExtension({
  name: "Wan22.FlowPaths",
  nodeCreated(node) {
    if (node.comfyClass === "Wan22Plan") new FlowPaths(node);
  },
});
