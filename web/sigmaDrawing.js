// The drawing of the sigma plot: noise level over steps, steps coloured by expert, the boundary as a line to drag.

import { text } from "./i18n.js";
import { boundaryFor, timesteps } from "./schedule.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 30, right: 12, top: 36, bottom: 44 }; // pixels around the curve, for words
const NARROWEST = 240; // pixels; what is narrower is cut off

/** An SVG element with attributes. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

export function label(x, y, words, attributes = {}) {
  const element = svg("text", { x, y, ...attributes });
  element.textContent = words;
  return element;
}

/**
 * The plot of one node, drawn pixel by pixel at the size that the page gives it, so that words have the size of words.
 *
 * @param {(boundary: number) => void} onBoundary a boundary has been chosen, by mouse or key
 */
export class SigmaDrawing {
  constructor(height, onBoundary) {
    this.state = null;
    this.starts = []; // timestep at which each step starts
    this.count = 0; // of high-noise steps
    [this.width, this.height] = [NARROWEST, height];
    this.onBoundary = onBoundary;
    this.element = svg("svg", { height });
    this.element.style.touchAction = "none";
    this.element.addEventListener("pointerdown", (event) => this.#grab(event));
    this.element.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#resize()).observe(this.element);
  }

  /**
   * @param {{sigmas: number[]|null, experts: string[], boundary: number|null, editable: boolean, note: string,
   *   live: object|null}} state
   *   experts: "high" or "low" for each step; boundary: null for a single model; live: of a run, the step that has
   *   `begun`, its `expert` and whether that is `loading`, the last `step` done with `pace` and `left` in seconds, and
   *   after the run the `seconds` of each expert; a `warning` throughout
   */
  draw(state) {
    this.state = state;
    const { sigmas, experts, boundary, live } = state;
    const focused = this.element.contains(document.activeElement);
    this.element.replaceChildren();
    if (!sigmas || sigmas.length < 2) {
      const words = state.note || text("unknownSchedule");
      this.element.append(label(this.width / 2, this.height / 2, words, { "text-anchor": "middle" }));
      return;
    }
    this.starts = timesteps(sigmas);
    this.count = experts.filter((expert) => expert === "high").length;
    this.#axes();
    this.#curve(sigmas, experts);
    this.#words(boundary, live);
    if (boundary !== null) this.#line(boundary, focused);
    if (live?.step && !live.seconds) this.#now(sigmas, live);
  }

  #resize() {
    const width = Math.max(NARROWEST, this.element.clientWidth);
    if (width === this.width) return;
    this.width = width;
    if (this.state) this.draw(this.state);
  }

  #x(step) {
    return MARGIN.left + ((this.width - MARGIN.left - MARGIN.right) * step) / this.starts.length;
  }

  #y(sigma) {
    const bottom = this.height - MARGIN.bottom;
    return bottom - (bottom - MARGIN.top) * sigma;
  }

  #axes() {
    const [left, right] = [this.#x(0), this.#x(this.starts.length)];
    const [top, bottom] = [this.#y(1), this.#y(0)];
    this.element.append(
      svg("path", { d: `M${left} ${top}V${bottom}H${right}`, class: "wan22-line" }),
      label(left - 5, top + 6, "1", { "text-anchor": "end" }),
      label(left - 5, bottom, "0", { "text-anchor": "end" }),
      label(left - 20, (top + bottom) / 2, "σ"),
    );
  }

  #curve(sigmas, experts) {
    const many = sigmas.length > 120;
    experts.forEach((expert, i) => {
      const [x1, y1, x2, y2] = [this.#x(i), this.#y(sigmas[i]), this.#x(i + 1), this.#y(sigmas[i + 1])];
      this.element.append(svg("line", { x1, y1, x2, y2, "stroke-width": 2, class: `wan22-${expert}` }));
      if (!many) this.element.append(svg("circle", { cx: x1, cy: y1, r: 2.2, class: `wan22-${expert}` }));
    });
  }

  #words(boundary, live) {
    const steps = this.starts.length,
      [high, low] = [this.count, steps - this.count];
    const line = (words, y, kind = "") =>
      this.element.append(label(MARGIN.left, y, words, { class: `wan22-words ${kind}` }));
    let words = boundary === null ? text("steps", { steps }) : text("counts", { high, low });
    let second = this.state.note;
    if (live?.seconds) {
      const each = Object.entries(live.seconds).map(
        ([expert, s]) => `${boundary === null ? "" : `${text(expert)} `}${s.toFixed(1)} s`,
      );
      words = [words, ...each].join(" · ");
    } else if (live?.begun <= steps) {
      const kind = live.loading ? "Loading" : "AtWork";
      const doing = boundary === null ? text(`one${kind}`) : text(`${live.expert}${kind}`);
      words = `${text("step", { step: live.begun, steps })} · ${doing}`;
      second = [`t=${this.starts[live.begun - 1]}`, ...pace(live)].join(" · ");
    }
    line(words, this.height - 24);
    if (second) line(second, this.height - 7);
    const unused = boundary === null ? "" : high === 0 ? text("noHigh") : low === 0 ? text("noLow") : "";
    if (live?.warning || unused) line(live?.warning || unused, 14, "wan22-warning");
  }

  #line(boundary, focused) {
    const [x, top, bottom] = [this.#x(this.count), this.#y(1), this.#y(0)];
    const steps = this.starts.length;
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
      svg("line", { x1: x, x2: x, y1: top, y2: bottom, class: "wan22-line", "stroke-dasharray": "3 2" }),
      svg("rect", { x: x - 6, y: top, width: 12, height: bottom - top, fill: "transparent" }),
      label(Math.min(x, this.width - 20), top - 5, boundary.toFixed(3), { "text-anchor": "middle" }),
    );
    handle.style.cursor = this.state.editable ? "ew-resize" : "default";
    this.element.append(handle);
    if (focused) handle.focus({ preventScroll: true });
  }

  #now(sigmas, { step }) {
    const i = Math.min(step, sigmas.length - 1);
    const at = { cx: this.#x(i), cy: this.#y(sigmas[i]), r: 4.5 };
    this.element.append(svg("circle", { ...at, class: "wan22-now wan22-line", "stroke-width": 2 }));
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
      const point = new DOMPoint(moved.clientX, moved.clientY).matrixTransform(this.element.getScreenCTM().inverse());
      this.#choose(((point.x - this.#x(0)) / (this.#x(this.starts.length) - this.#x(0))) * this.starts.length);
    };
    const release = () => {
      this.element.removeEventListener("pointermove", follow);
      this.element.querySelector(".wan22-boundary")?.focus({ preventScroll: true });
    };
    this.element.setPointerCapture(event.pointerId); // also where the canvas or a Vue node would take the pointer
    this.element.addEventListener("pointermove", follow);
    this.element.addEventListener("lostpointercapture", release, { once: true });
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

/** Seconds a step and time left, as soon as they are known. */
function pace({ pace, left }) {
  if (pace === undefined) return [];
  const whole = Math.round(left);
  const time = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  return [text("pace", { seconds: pace.toFixed(1) }), text("left", { time })];
}
