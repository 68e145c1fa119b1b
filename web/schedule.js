// Noise levels, timesteps and the expert of each step: the arithmetic of the plot, without a page.
// tests/web/schedule.test.mjs holds it against the golden file that the Python tests read.

export const TRAIN_TIMESTEPS = 1000;

/** Move a noise level in [0, 1] toward 1. */
export function shiftSigma(sigma, shift) {
  return (shift * sigma) / (1 + (shift - 1) * sigma);
}

/** The official grid: N + 1 noise levels for N steps; UniPC and Euler start at 0.999, DPM++ at exactly 1. */
export function officialSigmas(steps, shift, solver = "unipc") {
  const start = solver === "dpmpp_2m" ? 1 : Math.fround(Math.fround(1) - Math.fround(1 / TRAIN_TIMESTEPS));
  const sigmas = Array.from({ length: steps }, (_, i) => shiftSigma(start - (start / steps) * i, shift));
  return [...sigmas, 0];
}

/** ComfyUI's `simple`: evenly spaced entries of its table of 1000 shifted noise levels. */
function simpleSigmas(steps, shift) {
  const index = (i) => TRAIN_TIMESTEPS - Math.floor((i * TRAIN_TIMESTEPS) / steps);
  return [...Array.from({ length: steps }, (_, i) => shiftSigma(index(i) / TRAIN_TIMESTEPS, shift)), 0];
}

// The schedules drawn before a run. Of all others the server tells the noise levels when a run starts.
const GRIDS = {
  official: (steps, shift, solver) =>
    officialSigmas(steps, shift, solver === "official dpmpp_2m" ? "dpmpp_2m" : "unipc"),
  simple(steps, shift, solver) {
    const drop = DROPS_ONE.has(solver) ? 1 : 0;
    const sigmas = simpleSigmas(steps + drop, shift);
    if (drop) sigmas.splice(-2, 1);
    return sigmas;
  },
};

// Samplers for which ComfyUI asks for one step more and drops the last but one.
const DROPS_ONE = new Set(["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"]);

/**
 * Noise levels (N + 1) of a run, or null where only the server knows the schedule, or the shift of the MODEL (0).
 *
 * @param {{steps, shift, solver, schedule, denoise, start_at_step, end_at_step}} numbers as on the sampler node
 */
export function runSigmas({
  steps,
  shift,
  solver = "official unipc",
  schedule = "official",
  denoise = 1,
  start_at_step = 0,
  end_at_step = 10000,
}) {
  if (!(steps >= 1 && steps <= 1000 && shift > 0 && denoise >= 0)) return null;
  if (denoise === 0) return [];
  if (!Object.hasOwn(GRIDS, schedule)) return null;
  const sigmas = GRIDS[schedule](Math.max(steps, Math.trunc(steps / denoise)), shift, solver);
  return sigmas.slice(-(steps + 1)).slice(start_at_step, Math.max(start_at_step, end_at_step) + 1);
}

/** The timestep (0..1000) that each step starts at, truncated as the official code does. */
export function timesteps(sigmas) {
  return sigmas.slice(0, -1).map((sigma) => Math.trunc(sigma * TRAIN_TIMESTEPS + 1e-4));
}

/** "high" or "low" for each step: high exactly where it starts at or above the boundary. */
export function plan(steps, boundary) {
  const low = steps.findIndex((t) => t < boundary * TRAIN_TIMESTEPS);
  return steps.map((_, i) => (low >= 0 && i >= low ? "low" : "high"));
}

/** The boundary at which exactly the first `count` steps, or as near as can be, are high-noise. */
export function boundaryFor(steps, count) {
  if (count <= 0) return 1;
  return Math.min(count >= steps.length ? 0 : steps[count - 1] / TRAIN_TIMESTEPS, 1);
}

/** How many steps are high-noise. */
export function highSteps(steps, boundary) {
  return plan(steps, boundary).filter((expert) => expert === "high").length;
}
