// Noise levels, timesteps and the expert of each step: the arithmetic of the plot, without a page.
// tests/web/schedule.test.mjs holds it against the golden file that the Python tests read.

export const TRAIN_TIMESTEPS = 1000;
const OFFICIAL = "official";

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

// ComfyUI's schedulers over its table of 1000 shifted noise levels. Those of other packs are not known here.
const table = (shift) => (i) => shiftSigma((i + 1) / TRAIN_TIMESTEPS, shift);
const between = (a, b, n, i) => (n === 1 ? a : a + ((b - a) * i) / (n - 1));

function spaced(steps, shift, count) {
  const first = TRAIN_TIMESTEPS, last = TRAIN_TIMESTEPS * table(shift)(0);
  return Array.from({ length: steps }, (_, i) => shiftSigma(between(first, last, count, i) / TRAIN_TIMESTEPS, shift));
}

const SCHEDULERS = {
  simple: (steps, shift) => {
    const at = table(shift);
    return [...Array.from({ length: steps }, (_, i) => at(TRAIN_TIMESTEPS - 1 - Math.floor((i * TRAIN_TIMESTEPS) / steps))), 0];
  },
  normal: (steps, shift) => [...spaced(steps, shift, steps), 0],
  sgm_uniform: (steps, shift) => [...spaced(steps, shift, steps + 1), 0],
  ddim_uniform: (steps, shift) => {
    const at = table(shift), stride = Math.max(Math.floor(TRAIN_TIMESTEPS / steps), 1), sigmas = [0];
    for (let i = 1; i < TRAIN_TIMESTEPS; i += stride) sigmas.push(at(i));
    return sigmas.reverse();
  },
  beta: (steps, shift) => {
    const at = table(shift), indices = [];
    for (let i = 0; i < steps; i++) {
      const index = roundHalfToEven(betaQuantile(1 - i / steps, 0.6) * (TRAIN_TIMESTEPS - 1));
      if (index !== indices.at(-1)) indices.push(index);
    }
    return [...indices.map(at), 0];
  },
  linear_quadratic: (steps) => {
    if (steps === 1) return [1, 0];
    const threshold = 0.025, linear = Math.floor(steps / 2), quadratic = steps - linear;
    const difference = linear - threshold * steps;
    const a = difference / (linear * quadratic ** 2), b = threshold / linear - (2 * difference) / quadratic ** 2;
    const done = (i) => (i < linear ? (i * threshold) / linear : a * i * i + b * i + a * linear ** 2);
    return [...Array.from({ length: steps }, (_, i) => 1 - done(i)), 0];
  },
  kl_optimal: (steps, shift) => {
    const low = Math.atan(table(shift)(0)), high = Math.atan(1);
    return [...Array.from({ length: steps }, (_, i) => Math.tan(between(high, low, steps, i))), 0];
  },
  karras: (steps, shift) => {
    const rho = 7, low = table(shift)(0) ** (1 / rho);
    return [...Array.from({ length: steps }, (_, i) => between(1, low, steps, i) ** rho), 0];
  },
  exponential: (steps, shift) => {
    const low = Math.log(table(shift)(0));
    return [...Array.from({ length: steps }, (_, i) => Math.exp(between(0, low, steps, i))), 0];
  },
};

function roundHalfToEven(x) {
  const whole = Math.floor(x);
  return x - whole === 0.5 ? whole + (whole % 2) : Math.round(x);
}

/** Quantile of the symmetric Beta(a, a) distribution, by bisection. */
function betaQuantile(p, a) {
  if (p <= 0 || p >= 1) return Math.min(Math.max(p, 0), 1);
  let low = 0, high = 1;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (betaShare(middle, a) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Share of Beta(a, a) below x, by Lentz's continued fraction (Numerical Recipes, 6.4). */
function betaShare(x, a) {
  if (x > 0.5) return 1 - betaShare(1 - x, a);
  if (x <= 0) return 0;
  const tiny = 1e-300;
  let c = 1, d = 1 / Math.max(1 - (2 * a * x) / (a + 1), tiny), sum = d;
  for (let m = 1; m < 200; m++) {
    for (const factor of [
      (m * (a - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)),
      (-(a + m) * (2 * a + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)),
    ]) {
      d = 1 / (1 + factor * d || tiny);
      c = 1 + factor / c || tiny;
      sum *= c * d;
    }
  }
  return (sum * (x * (1 - x)) ** a) / (a * BETA_OF[a]);
}

const BETA_OF = { 0.6: 2.4153442080024723 }; // B(0.6, 0.6) = Γ(0.6)² / Γ(1.2)

// Samplers for which ComfyUI asks for one step more and drops the last but one.
const DROPS_ONE = new Set(["dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"]);

/**
 * Noise levels (N + 1) of a run, or null where only the server knows the schedule.
 *
 * @param {{steps, shift, solver, schedule, denoise, start_at_step, end_at_step}} numbers as on the sampler node
 */
export function runSigmas({ steps, shift, solver = `${OFFICIAL} unipc`, schedule = OFFICIAL, denoise = 1, start_at_step = 0, end_at_step = 10000 }) {
  if (!(steps >= 1 && steps <= 1000 && shift > 0 && denoise >= 0)) return null;
  if (denoise === 0) return [];
  const total = Math.max(steps, Math.trunc(steps / denoise));
  let sigmas;
  if (schedule === OFFICIAL) {
    sigmas = officialSigmas(total, shift, solver === `${OFFICIAL} dpmpp_2m` ? "dpmpp_2m" : "unipc");
  } else if (schedule in SCHEDULERS) {
    const drop = DROPS_ONE.has(solver) ? 1 : 0;
    sigmas = SCHEDULERS[schedule](total + drop, shift);
    if (drop) sigmas.splice(-2, 1);
  } else return null;
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
  return plan(steps, boundary).filter((who) => who === "high").length;
}
