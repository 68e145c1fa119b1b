"""What a part of a model has to hold: the names and shapes of its tensors, known from its sizes alone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import DiTConfig, VAEConfig
from ..dit import WanDiT
from ..text import encoder as text
from ..vae import WanVAE
from ..vision import encoder as vision

Shapes = dict[str, tuple[int, ...]]


class NoRandomNumbers(TorchFunctionMode):
    """Skips initial values, which are replaced; on the meta device they would import 60 MB of symbolic algebra."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **kwargs)


def expected_dit(config: DiTConfig) -> Shapes:
    """Of a transformer, from one of two blocks: a third is like the second, however many a file says it has."""
    vace = len(config.vace_layers)
    short = replace(config, layers=min(config.layers, 2), vace_layers=tuple(range(min(vace, 2))))
    shapes = _shapes(lambda: WanDiT(short))
    return shapes | _repeated(shapes, "blocks.1.", config.layers) | _repeated(shapes, "vace_blocks.1.", vace)


def expected_vae(config: VAEConfig) -> Shapes:
    return _shapes(lambda: WanVAE(config))


# kind → names and shapes from its config; umT5's and CLIP's are written out: importing transformers takes two seconds
EXPECTED: Mapping[str, Callable[[Any], Shapes]] = {
    "dit": expected_dit,
    "vae": expected_vae,
    "text_encoder": text.parameter_shapes,
    "image_encoder": vision.parameter_shapes,
}


def _shapes(construct: Callable[[], nn.Module]) -> Shapes:
    """Of a module that is constructed without memory."""
    with torch.device("meta"), NoRandomNumbers():
        return {name: tuple(t.shape) for name, t in construct().state_dict().items()}


def _repeated(shapes: Shapes, block: str, count: int) -> Shapes:
    """The tensors of one block, as those of the blocks after it."""
    kind = block.partition(".")[0]
    one = {name.removeprefix(block): shape for name, shape in shapes.items() if name.startswith(block)}
    return {f"{kind}.{n}.{name}": shape for n in range(2, count) for name, shape in one.items()}
