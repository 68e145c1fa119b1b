import assert from "node:assert/strict";
import { test } from "node:test";
import { expertOf, lowNoiseFor, NONE, rowsShown, siblingOf, strengthsFor } from "../../web/expertNames.js";

const FILES = [
  "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors",
  "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors",
  "styles/ink_HighNoise.safetensors",
  "styles/ink_LowNoise.safetensors",
  "other/ink_LowNoise.safetensors",
  "style.safetensors",
  "win\\Dance-HIGH-v2.safetensors",
  "win\\dance-low-v2.safetensors",
  "flow_high.safetensors",
  "high/low_noise_model.safetensors",
  "high/high_noise_model.safetensors",
];

test("a file of a pair finds the other one, in its own folder", () => {
  const pairs = [
    [0, 1],
    [2, 3],
    [6, 7],
    [9, 10],
  ];
  for (const [a, b] of pairs) {
    assert.equal(siblingOf(FILES[a], FILES), FILES[b]);
    assert.equal(siblingOf(FILES[b], FILES), FILES[a]);
  }
  for (const alone of [4, 5, 8]) assert.equal(siblingOf(FILES[alone], FILES), null);
  for (const odd of ["none", "", "high low", "highlow"]) assert.equal(siblingOf(odd, FILES), null);
});

test("letters around a word make another word", () => {
  const said = {
    a_high_b: "high",
    highlands: null,
    below: null,
    lownoise: "low",
    "low-noise": "low",
    flow_v2: null,
    "x-low": "low",
    high_to_low: null,
  };
  for (const [name, expert] of Object.entries(said)) assert.equal(expertOf(name), expert, name);
});

test("rows up to the last one in use, and an empty one", () => {
  for (const [used, shown] of [
    [[], 0],
    [[false, false], 1],
    [[true, false, false], 2],
    [[false, true, false], 3],
    [[true, true], 2],
  ]) {
    assert.equal(rowsShown(used), shown);
  }
});

test("a file for one expert goes to that one alone", () => {
  const [high, low, style] = [FILES[0], FILES[1], FILES[5]];
  assert.deepEqual(strengthsFor(high, "none", { high: 1, low: 1 }), { high: 1, low: 0 });
  assert.deepEqual(strengthsFor(low, high, { high: 0.8, low: 0 }), { high: 0, low: 0.8 });
  assert.deepEqual(strengthsFor(style, high, { high: 0.8, low: 0 }), { high: 0.8, low: 0.8 });
  assert.deepEqual(strengthsFor(style, "none", { high: 0.3, low: 0 }), { high: 0.3, low: 0 });
  assert.deepEqual(strengthsFor(high, style, { high: 0, low: 0 }), { high: 1, low: 0 });
});

test("a high-noise file brings its low-noise file, and anything else none", () => {
  assert.equal(lowNoiseFor(FILES[0], FILES), FILES[1]);
  assert.equal(lowNoiseFor(FILES[10], FILES), FILES[9]);
  for (const alone of [FILES[1], FILES[5], FILES[8], "wan2.2_ti2v_5B_fp16.safetensors"])
    assert.equal(lowNoiseFor(alone, FILES), NONE);
});
