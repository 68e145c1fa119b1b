// What a file's name says about its expert, and what follows for the loader and the rows of the LoRA node. No page.

export const NONE = "none";
const OTHER = { high: "low", low: "high" };

/** Whether a file name says "high" or "low", by itself or in front of "noise": as `mentions` of the library. */
function says(word, name) {
  return new RegExp(`(?<![a-z])${word}(?![a-z])|${word}[ -]?noise`).test(name.toLowerCase().replaceAll("_", " "));
}

/** The expert that a file is for by its name: "high", "low", or null. */
export function expertOf(file) {
  const name = file.split(/[\\/]/).pop(),
    words = Object.keys(OTHER).filter((word) => says(word, name));
  return words.length === 1 ? words[0] : null;
}

/** The file in `files` for the other expert of the same release, or null. */
export function siblingOf(file, files) {
  const expert = expertOf(file);
  if (!expert) return null;
  const at = Math.max(file.lastIndexOf("/"), file.lastIndexOf("\\")) + 1;
  const wanted = file.slice(0, at) + file.slice(at).replace(new RegExp(expert, "gi"), OTHER[expert]);
  return files.find((other) => other !== file && other.toLowerCase() === wanted.toLowerCase()) ?? null;
}

/**
 * The low-noise file that goes with a high-noise file which has just been chosen; none where the choice has no other
 * half: it is a single model, or the low-noise file of another release would be left over.
 */
export function lowNoiseFor(high, files) {
  return expertOf(high) === "high" ? (siblingOf(high, files) ?? NONE) : NONE;
}

/** How many rows to show: those up to the last one in use, and an empty one. @param {boolean[]} used of each row */
export function rowsShown(used) {
  return Math.min(used.length, used.lastIndexOf(true) + 2);
}

/**
 * The strengths of a row after `file` has been chosen in the place of `before`: a file for one expert goes to that one
 * alone.
 *
 * @param {{high: number, low: number}} strengths of the row so far
 */
export function strengthsFor(file, before, strengths) {
  const expert = expertOf(file),
    either = strengths.high || strengths.low || 1;
  if (expert) return { high: 0, low: 0, [expert]: strengths[expert] || either };
  return expertOf(before) ? { high: either, low: either } : strengths;
}
