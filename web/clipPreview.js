// The clip so far as a moving picture: the server sends all its frames side by side, the page shows one after the other.

import { text } from "./i18n.js";

const PICTURE = /^data:image\/jpeg;base64,[A-Za-z0-9+/=]+$/;
const MOST = 1000; // frames

/** What the server has sent, or null where it does not look like a clip. */
export function checkedClip(clip) {
  if (typeof clip?.picture !== "string" || !PICTURE.test(clip.picture)) return null;
  const { picture, frames, columns, fps } = clip;
  const count = (value) => Number.isInteger(value) && value > 0 && value <= MOST;
  return count(frames) && count(columns) && fps > 0 && fps <= 60 ? { picture, frames, columns, fps } : null;
}

/** Plays a clip in a loop at the width of its node; a click, Space or Enter pauses it. */
export class ClipPreview {
  /** @param {() => void} onShape the clip has another shape than before */
  constructor(onShape) {
    this.onShape = onShape;
    this.clip = null; // frames, columns and fps of what is shown
    this.sheet = null; // its picture
    this.frame = 0;
    this.shown = -1;
    this.paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.timer = null;
    this.element = document.createElement("canvas");
    this.element.className = "wan22-clip";
    this.element.hidden = true;
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "button");
    this.element.style.cssText = "display:block;width:100%;cursor:pointer";
    this.element.addEventListener("click", () => this.#toggle());
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation(); // Space and Enter mean something to the canvas
      this.#toggle();
    });
  }

  /** Height over width of what is shown, 0 where there is nothing. */
  get aspect() {
    return this.element.hidden ? 0 : this.element.height / this.element.width;
  }

  /** Show a clip that `checkedClip` has passed, from the frame that is on show; null takes the picture away. */
  show(clip) {
    if (clip === null) {
      [this.clip, this.sheet, this.frame] = [null, null, 0];
      this.element.hidden = true;
      clearInterval(this.timer);
      this.timer = null;
      return;
    }
    const sheet = new Image();
    sheet.onload = () => {
      const { frames, columns, fps } = clip;
      const [width, height] = [sheet.width / columns, sheet.height / Math.ceil(frames / columns)].map(Math.floor);
      if (width < 1 || height < 1) return;
      const changed = this.element.hidden || this.element.width !== width || this.element.height !== height;
      if (changed) [this.element.width, this.element.height, this.element.hidden] = [width, height, false];
      if (fps !== this.clip?.fps || this.timer === null) {
        clearInterval(this.timer);
        this.timer = setInterval(() => this.#next(), 1000 / fps);
      }
      [this.clip, this.sheet, this.frame] = [clip, sheet, this.frame % frames];
      this.#draw();
      this.#label();
      if (changed) this.onShape();
    };
    sheet.src = clip.picture;
  }

  #toggle() {
    this.paused = !this.paused;
    this.#label();
  }

  #label() {
    this.element.setAttribute("aria-pressed", String(this.paused));
    this.element.setAttribute("aria-label", text("clip"));
    this.element.title = text(this.paused ? "play" : "pause");
  }

  #next() {
    if (this.paused || !this.element.isConnected) return;
    this.frame = (this.frame + 1) % this.clip.frames;
    this.#draw();
  }

  #draw() {
    const { width, height } = this.element;
    const [column, row] = [this.frame % this.clip.columns, Math.floor(this.frame / this.clip.columns)];
    const context = this.element.getContext("2d");
    context.drawImage(this.sheet, column * width, row * height, width, height, 0, 0, width, height);
  }
}
