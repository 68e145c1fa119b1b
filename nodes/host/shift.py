"""The shift of a run, which moves its noise levels, and with them the windows that are given in percent of a run."""

import contextlib
import copy
import logging
from collections.abc import Iterator

import comfy.model_sampling

from ...wan_core.errors import InputError
from ...wan_core.flow.schedule import MAX_SHIFT, MIN_SHIFT
from ...wan_core.validate import real_number

NAME = "model_sampling"  # of ComfyUI's object with the noise levels

OF_THE_MODEL = 0.0  # as a shift: the one that the MODEL has, from ModelSamplingSD3 or its loader


def has_shift(model) -> bool:
    """Whether the noise levels of the MODEL move by a shift: those of FlowRVS, which takes a clip for noise, do not."""
    return not isinstance(model.get_model_object(NAME), comfy.model_sampling.IMG_TO_IMG_FLOW)


def model_shift(model) -> float:
    """The shift of a MODEL, from ModelSamplingSD3 or its loader."""
    return _own_sampling(model).shift


def run_shift(model, shift: float) -> float:
    """The shift of a run: a number in its range, or for 0 that of the MODEL.

    Raises:
        InputError: a number out of range, or a MODEL of which 0 cannot take one.
    """
    if shift != OF_THE_MODEL:
        return real_number("shift", shift, MIN_SHIFT, MAX_SHIFT)
    return real_number("shift of the MODEL", model_shift(model), MIN_SHIFT, MAX_SHIFT) if has_shift(model) else 1.0


def sampling_at(model, shift: float):
    """ComfyUI's noise levels of the MODEL, moved to the shift of a run."""
    if not has_shift(model):
        return model.get_model_object(NAME)
    own = _own_sampling(model)
    if own.shift == shift:
        return own
    moved = copy.deepcopy(own)  # the MODEL's is shared by its clones
    moved.set_parameters(shift=shift, multiplier=own.multiplier)
    return moved


@contextlib.contextmanager
def at_shift(model, shift: float) -> Iterator[None]:
    """For a run, patch the MODEL as ModelSamplingSD3 does: what is given in percent follows the shift of the run.

    Not a clone of it, as ComfyUI unpins the weights in main memory when the patcher goes away that has loaded them.
    """
    patches = model.object_patches
    model.object_patches = patches | {NAME: sampling_at(model, shift)}
    try:
        yield
    finally:
        model.object_patches = patches


def ignored_shift(model, shift: float, slot: str) -> float | None:
    """The shift that a node has set on the MODEL, where the run has another one; said in the log."""
    if NAME not in model.object_patches or not has_shift(model) or model_shift(model) == shift:
        return None
    logging.warning(
        "Wan 2.2: the MODEL in %s has shift %g, this run %g; with shift 0 the sampler follows the MODEL in high_noise",
        slot,
        model_shift(model),
        shift,
    )
    return model_shift(model)


def _own_sampling(model) -> comfy.model_sampling.ModelSamplingDiscreteFlow:
    sampling = model.get_model_object(NAME)
    if not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscreteFlow):
        raise InputError(
            f"a MODEL whose noise levels are those of {type(sampling).__mro__[1].__name__}, which have no shift",
            "a Wan MODEL",
            "Take out the node that sets another sampling on it; ModelSamplingSD3 is the one for Wan",
        )
    return sampling
