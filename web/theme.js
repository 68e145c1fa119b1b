// The look of our panels: text and ground are those of the page's input fields, which every palette keeps readable;
// the colours of the experts and of warnings come in two sets, for dark grounds and for light ones.

const STYLE = `
.wan22-panel {
  box-sizing: border-box; width: 100%; height: 100%; border-radius: 6px;
  background: var(--comfy-input-bg); color: var(--input-text); font: 12px/16px sans-serif;
  --wan22-high: #e8a33d; --wan22-low: #4fa8e0; --wan22-warning: #ff9082;
}
:root[data-wan22-ground="light"] .wan22-panel {
  --wan22-high: #8a4b00; --wan22-low: #0b5687; --wan22-warning: #8f1414;
}
.wan22-panel svg { display: block; width: 100%; overflow: hidden; }
.wan22-panel text { fill: currentColor; font-size: 12px; }
.wan22-panel .wan22-high { stroke: var(--wan22-high); fill: var(--wan22-high); }
.wan22-panel .wan22-low { stroke: var(--wan22-low); fill: var(--wan22-low); }
.wan22-panel .wan22-line { stroke: currentColor; fill: none; }
.wan22-panel .wan22-point { fill: currentColor; }
.wan22-panel .wan22-warning { color: var(--wan22-warning); fill: var(--wan22-warning); }
.wan22-panel .wan22-boundary:focus { outline: none; }
.wan22-panel .wan22-boundary:focus-visible .wan22-line { stroke-width: 3; stroke-dasharray: none; }
.wan22-panel canvas:focus-visible { outline: 2px solid currentColor; outline-offset: -2px; }
`;
const LIGHT = 0.18; // relative luminance at which black and white text are about equally readable

/** Relative luminance of a colour as `getComputedStyle` gives it, "rgb(…)". Source: WCAG 2.2, relative luminance. */
export function luminance(colour) {
  const [r, g, b] = (colour.match(/[\d.]+/g) ?? [0, 0, 0]).map((value) => {
    const channel = Number(value) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** An element for a panel in a node, which follows the page's palette. @param {string} name its class beside our own */
export function themed(name) {
  const element = document.createElement("div");
  element.className = `wan22-panel ${name}`;
  return element;
}

/** Add the styles to the page, and look at the ground again whenever the palette changes. */
export function followPalette() {
  const style = document.createElement("style");
  style.textContent = STYLE;
  document.head.append(style);
  const probe = themed("wan22-probe");
  probe.style.cssText = "position:absolute;width:0;height:0;visibility:hidden";
  document.body.append(probe);
  const look = () => {
    const ground = luminance(getComputedStyle(probe).backgroundColor) > LIGHT ? "light" : "dark";
    if (document.documentElement.dataset.wan22Ground !== ground) document.documentElement.dataset.wan22Ground = ground;
  };
  look();
  const changes = { attributes: true, attributeFilter: ["style", "class"] };
  for (const root of [document.documentElement, document.body]) new MutationObserver(look).observe(root, changes);
}
