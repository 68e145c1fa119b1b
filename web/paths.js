// Flow matching beside diffusion: the same noise levels on a straight path and on a curved one.

import { label, svg } from "./plot.js";
import { text } from "./text.js";

const [WIDTH, HEIGHT] = [320, 130];
const BOX = { left: 14, right: 130, top: 16, bottom: 96 };

/** Where a mix of data and noise lies: on the chord between them, or on the arc of equal variance. */
export function straight(sigma) {
  return { data: 1 - sigma, noise: sigma };
}

/** The point of the arc with the same ratio of noise to data. */
export function curved(sigma) {
  const length = Math.hypot(1 - sigma, sigma);
  return { data: (1 - sigma) / length, noise: sigma / length };
}

export class PathPanel {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "wan22-paths";
    this.element.style.cssText = "width:100%;height:100%;min-height:130px";
    this.drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: "100%", height: "100%" });
    this.element.append(this.drawing);
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
    group.append(svg("path", { d: `M${fine.join("L")}`, fill: "none", stroke: "#9a9a9a" }));
    sigmas.forEach((sigma, i) => {
      const [cx, cy] = at(sigma);
      group.append(svg("circle", { cx, cy, r: 2.2, fill: { high: "#e8a33d", low: "#4fa8e0" }[experts[i]] ?? "#ffffff" }));
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
