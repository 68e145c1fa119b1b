// The drawing of the sigma plot: noise level over steps, steps coloured by expert, the boundary as a line to drag.

import { text } from "./i18n.js";
import { boundaryFor, timesteps } from "./schedule.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [320, 150]; // of the drawing; the page scales it
const AREA = { left: 30, right: 312, top: 20, bottom: 122 };
const COLOURS = {
  high: "#e8a33d",
  low: "#4fa8e0",
  line: "#9a9a9a",
  text: "#cfcfcf",
  now: "#ffffff",
  warning: "#ff7b6b",
};

/** An SVG element with attributes. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

export function label(x, y, words, attributes = {}) {
  const element = svg("text", {
    x,
    y,
    fill: COLOURS.text,
    "font-size": 10,
    "font-family": "sans-serif",
    ...attributes,
  });
  element.textContent = words;
  return element;
}

/**
 * The plot of one node.
 *
 * @param {(boundary: number) => void} onBoundary a boundary has been chosen, by mouse or key
 */
export class SigmaDrawing {
  constructor(onBoundary) {
    this.state = null;
    this.starts = []; // timestep at which each step starts
    this.count = 0; // of high-noise steps
    this.onBoundary = onBoundary;
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      width: "100%",
      height: "100%",
      preserveAspectRatio: "xMidYMid meet",
    });
    this.strip = document.createElement("img");
    this.strip.hidden = true;
    this.strip.style.cssText = "width:100%;height:40px;object-fit:contain;image-rendering:auto";
    this.element = document.createElement("div");
    this.element.className = "wan22-plot";
    this.element.style.cssText = "display:flex;flex-direction:column;width:100%;height:100%;min-height:150px";
    this.drawing.style.cssText = "flex:1;min-height:0;touch-action:none";
    this.element.append(this.drawing, this.strip);
    this.drawing.addEventListener("pointerdown", (event) => this.#grab(event));
    this.drawing.addEventListener("keydown", (event) => this.#key(event));
  }

  /**
   * @param {{sigmas: number[]|null, experts: string[], boundary: number|null, editable: boolean, note: string,
   *   live: object|null}} state
   *   experts: "high" or "low" for each step; boundary: null for a single model;
   *   live: {step, expert, seconds, warning} of a run
   */
  draw(state) {
    this.state = state;
    const { sigmas, experts, boundary, live } = state;
    const focused = this.drawing.contains(document.activeElement);
    this.drawing.replaceChildren();
    if (!sigmas || sigmas.length < 2) {
      this.drawing.append(
        label(WIDTH / 2, HEIGHT / 2, state.note || text("unknownSchedule"), { "text-anchor": "middle" }),
      );
      return;
    }
    this.starts = timesteps(sigmas);
    this.count = experts.filter((expert) => expert === "high").length;
    this.#axes();
    this.#curve(sigmas, experts);
    this.#words(boundary, live);
    if (boundary !== null) this.#line(boundary, focused);
    if (live?.step) this.#now(sigmas, live);
  }

  /** Show a picture of the clip so far, or none. */
  show(picture) {
    this.strip.hidden = !picture;
    if (picture) this.strip.src = picture;
    else this.strip.removeAttribute("src");
  }

  #x(step) {
    return AREA.left + ((AREA.right - AREA.left) * step) / this.starts.length;
  }

  #y(sigma) {
    return AREA.bottom - (AREA.bottom - AREA.top) * sigma;
  }

  #axes() {
    const { left, right, top, bottom } = AREA;
    this.drawing.append(
      svg("path", { d: `M${left} ${top}V${bottom}H${right}`, stroke: COLOURS.line, fill: "none" }),
      label(left - 5, top + 4, "1", { "text-anchor": "end" }),
      label(left - 5, bottom, "0", { "text-anchor": "end" }),
      label(left - 18, (top + bottom) / 2, "σ"),
    );
  }

  #curve(sigmas, experts) {
    const many = sigmas.length > 120;
    experts.forEach((expert, i) => {
      const [x1, y1, x2, y2] = [this.#x(i), this.#y(sigmas[i]), this.#x(i + 1), this.#y(sigmas[i + 1])];
      this.drawing.append(
        svg("line", { x1, y1, x2, y2, stroke: COLOURS[expert], "stroke-width": 2, class: `wan22-${expert}` }),
      );
      if (!many) this.drawing.append(svg("circle", { cx: x1, cy: y1, r: 2.2, fill: COLOURS[expert] }));
    });
  }

  #words(boundary, live) {
    const steps = this.starts.length,
      [high, low] = [this.count, steps - this.count];
    const line = (words, colour, y) =>
      this.drawing.append(label(AREA.left, y, words, { fill: colour, class: "wan22-words" }));
    let words = boundary === null ? text("steps", { steps }) : text("counts", { high, low });
    if (live?.expert && live.step <= steps && !live.seconds) {
      const expert = boundary === null ? "" : text(`${live.expert}AtWork`);
      const start = this.starts[Math.max(0, live.step - 1)];
      words = `${text("step", { step: live.step, steps })} · t=${start} · ${expert}`;
    } else if (live?.seconds) {
      const each = Object.entries(live.seconds).map(
        ([expert, s]) => `${boundary === null ? "" : `${text(expert)} `}${s.toFixed(1)} s`,
      );
      words += ` · ${each.join(" · ")}`;
    }
    line(words, COLOURS.text, HEIGHT - 14);
    if (live?.warning) line(live.warning, COLOURS.warning, HEIGHT - 3);
    else if (this.state.note) line(this.state.note, COLOURS.line, HEIGHT - 3);
    if (boundary !== null && (high === 0 || low === 0)) line(text(high === 0 ? "noHigh" : "noLow"), COLOURS.warning, 7);
  }

  #line(boundary, focused) {
    const x = this.#x(this.count),
      steps = this.starts.length;
    const handle = svg("g", {
      class: "wan22-boundary",
      tabindex: this.state.editable ? 0 : -1,
      role: "slider",
      "aria-label": text("boundary"),
      "aria-valuemin": 0,
      "aria-valuemax": steps,
      "aria-valuenow": this.count,
      "aria-disabled": !this.state.editable,
    });
    handle.append(
      svg("line", { x1: x, x2: x, y1: AREA.top, y2: AREA.bottom, stroke: COLOURS.now, "stroke-dasharray": "3 2" }),
      svg("rect", { x: x - 6, y: AREA.top, width: 12, height: AREA.bottom - AREA.top, fill: "transparent" }),
      label(x, AREA.top - 3, boundary.toFixed(3), { "text-anchor": "middle" }),
    );
    handle.style.cursor = this.state.editable ? "ew-resize" : "default";
    handle.style.outlineOffset = "1px";
    this.drawing.append(handle);
    if (focused) handle.focus({ preventScroll: true });
  }

  #now(sigmas, { step }) {
    const i = Math.min(step, sigmas.length - 1);
    this.drawing.append(
      svg("circle", {
        class: "wan22-now",
        cx: this.#x(i),
        cy: this.#y(sigmas[i]),
        r: 4.5,
        fill: "none",
        stroke: COLOURS.now,
        "stroke-width": 2,
      }),
    );
  }

  /** Choose the boundary after `count` steps. */
  #choose(count) {
    const steps = this.starts.length,
      chosen = Math.min(Math.max(Math.round(count), 0), steps);
    if (chosen !== this.count) this.onBoundary(boundaryFor(this.starts, chosen));
  }

  #grab(event) {
    if (!this.state?.editable || !event.target.closest(".wan22-boundary")) return;
    event.stopPropagation(); // the canvas must not drag the node
    const follow = (moved) => {
      const point = new DOMPoint(moved.clientX, moved.clientY).matrixTransform(this.drawing.getScreenCTM().inverse());
      this.#choose(((point.x - AREA.left) / (AREA.right - AREA.left)) * this.starts.length);
    };
    const release = () => {
      this.drawing.removeEventListener("pointermove", follow);
      this.drawing.querySelector(".wan22-boundary")?.focus({ preventScroll: true });
    };
    this.drawing.setPointerCapture(event.pointerId); // also where the canvas or a Vue node would take the pointer
    this.drawing.addEventListener("pointermove", follow);
    this.drawing.addEventListener("lostpointercapture", release, { once: true });
  }

  #key(event) {
    const steps = this.starts.length,
      by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -steps, End: steps }[event.key];
    if (!this.state?.editable || !by || !event.target.closest(".wan22-boundary")) return;
    event.preventDefault();
    event.stopPropagation(); // arrow keys move nodes on the canvas
    this.#choose(this.count + by);
  }
}
