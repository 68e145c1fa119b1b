"""Block formats against the reference implementation, on every bit pattern that a file can hold."""

import gguf
import numpy as np
import pytest
import torch

from wan_core.checkpoints.formats.ggml import FORMATS

SCALES = {  # bytes of the float16 fields, which may not be NaN or infinite here
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}


def random_blocks(kind: str, count: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (count, FORMATS[kind].size), dtype=np.uint8)
    for start in SCALES[kind]:
        blocks[:, start : start + 2] = rng.normal(0, 0.1, (count, 1)).astype(np.float16).view(np.uint8)
    return blocks


@pytest.mark.parametrize("kind", FORMATS)
def test_blocks_dequantize_as_the_reference_does(kind):
    blocks, reference = random_blocks(kind, 3000), gguf.GGMLQuantizationType[kind]
    assert gguf.GGML_QUANT_SIZES[reference] == (FORMATS[kind].weights, FORMATS[kind].size)
    ours = FORMATS[kind].dequantize(torch.from_numpy(blocks))
    theirs = gguf.quants.dequantize(blocks, reference)
    assert ours.dtype == torch.float32 and torch.equal(ours, torch.from_numpy(theirs))
