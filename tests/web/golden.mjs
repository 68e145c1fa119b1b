// The golden file of schedules, read as safetensors: an 8-byte length, a JSON header, then the data.
import { readFileSync } from "node:fs";

const bytes = readFileSync(new URL("../golden/schedules.safetensors", import.meta.url));
const length = Number(bytes.readBigUInt64LE(0));
const header = JSON.parse(bytes.subarray(8, 8 + length).toString("utf8"));
const ARRAYS = { F32: Float32Array, F64: Float64Array, I64: BigInt64Array };

export const { combos } = JSON.parse(header.__metadata__.meta).config;

export function tensor(name) {
  const { dtype, data_offsets } = header[name];
  const [first, last] = data_offsets.map((offset) => 8 + length + offset);
  const data = bytes.buffer.slice(bytes.byteOffset + first, bytes.byteOffset + last);
  return Array.from(new ARRAYS[dtype](data), Number);
}
