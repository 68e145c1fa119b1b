import assert from "node:assert/strict";
import { test } from "node:test";
import { boundaryFor, highSteps, officialSigmas, plan, runSigmas, timesteps } from "../../web/schedule.js";
import { combos, tensor } from "./golden.mjs";

for (const [steps, shift] of combos) {
  for (const [ours, theirs] of [
    ["unipc", "unipc"],
    ["dpmpp_2m", "dpmpp"],
  ]) {
    test(`official grid of ${ours}, ${steps} steps, shift ${shift}`, () => {
      const key = `out.${theirs}.s${steps}_shift${shift}`;
      const sigmas = officialSigmas(steps, shift, ours);
      tensor(`${key}.sigmas`).forEach((sigma, i) => assert.ok(Math.abs(sigmas[i] - sigma) < 1e-6));
      assert.equal(sigmas.length, steps + 1);
      assert.deepEqual(timesteps(sigmas), tensor(`${key}.timesteps`));
      assert.deepEqual(runSigmas({ steps, shift, solver: `official ${ours}` }), sigmas);
    });
  }
}

test("steps per expert are the official ones", () => {
  for (const [steps, shift, boundary, high] of [
    [40, 12, 0.875, 26],
    [40, 5, 0.9, 15],
    [20, 8, 0.875, 11],
    [4, 5, 0.9, 2],
    [2, 5, 0.9, 1],
  ]) {
    assert.equal(highSteps(timesteps(officialSigmas(steps, shift)), boundary), high);
  }
});

test("every number of high-noise steps has its boundary, and a step on the boundary is high-noise", () => {
  for (const [steps, shift] of combos) {
    const starts = timesteps(officialSigmas(steps, shift));
    for (let count = 0; count <= steps; count++) assert.equal(highSteps(starts, boundaryFor(starts, count)), count);
  }
});

test("once low-noise, always low-noise", () => {
  assert.deepEqual(plan([900, 500, 950, 100], 0.875), ["high", "low", "low", "low"]);
});

test("denoise takes the end of a longer run, start and end cut it", () => {
  const whole = runSigmas({ steps: 20, shift: 5 });
  assert.deepEqual(runSigmas({ steps: 10, shift: 5, denoise: 0.5 }), officialSigmas(20, 5).slice(-11));
  assert.deepEqual(runSigmas({ steps: 20, shift: 5, start_at_step: 5, end_at_step: 8 }), whole.slice(5, 9));
  assert.deepEqual(runSigmas({ steps: 20, shift: 5, denoise: 0 }), []);
});

test("what only the server knows is not guessed", () => {
  for (const schedule of ["of another pack", "karras", "beta", "normal", "constructor"]) {
    assert.equal(runSigmas({ steps: 20, shift: 5, schedule }), null);
  }
  assert.equal(runSigmas({ steps: 20, shift: 0 }), null); // the shift of the MODEL
  for (const steps of [0, -1, NaN, 1e9, undefined, "20px"]) assert.equal(runSigmas({ steps, shift: 5 }), null);
});
