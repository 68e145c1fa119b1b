"""Everything that is measured."""

import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import branches
import devices
import family_runs
import formats
import loras
import native
import one_run
import percent
import pipelines
import pixels
import prompts
import refusals
import solver
import torch

ALONE = (
    solver.equals_wan_core,
    solver.same_model_twice,
    solver.steps_per_expert,
    solver.churn,
    solver.lora_changes_its_expert_alone,
    solver.nothing_is_left_behind,
    solver.batch_index_is_honoured,
    solver.schedules,
    solver.a_run_in_two_parts,
    solver.modulations_take_loras,
    native.step_caches,
    percent.percent_windows,
    percent.scheduled_hooks,
    percent.the_shift_of_the_model,
    percent.the_models_afterwards,
    percent.step_cache_windows,
    one_run.added_during_the_run,
    one_run.set_on_the_first_alone,
    one_run.context_windows,
    one_run.context_windows_and_native,
    devices.guidance_on_two_devices,
    devices.experts_on_two_devices,
    formats.gguf_experts,
    prompts.text_encoder_bytes,
    prompts.weighted_prompt,
    pipelines.vision_towers,
)
WITH_FILES = (
    native.native_and_ours,
    native.five_b_and_ours,
    native.conditioning_nodes,
    native.patches,
    native.long_text,
    native.what_one_model_is_told,
    pipelines.families_in_python,
    branches.branches,
    branches.branches_as_stored,
    branches.refused_conditions,
    branches.uni3c,
    solver.equals_golden,
    solver.equals_golden_first_frame,
    formats.stored_experts,
    formats.prefixed_metadata,
    formats.packed_experts,
    formats.stored_text_encoders,
    prompts.official_text,
    prompts.prompts_as_in_the_library,
    pixels.infinite_pixels,
    pixels.finite_pixels,
    loras.lora_pairs,
    loras.what_the_node_leaves_alone,
    loras.modulations_beside_other_runs,
    loras.modulations_by_the_native_loader,
    loras.partly_on_the_device,
)


FAMILIES = (
    family_runs.families,
    family_runs.native_classes,
    refusals.conditions_that_our_models_ignore,
    refusals.parts_of_other_models,
    refusals.conditions_of_another_size,
    refusals.a_shift_of_nothing,
    refusals.without_ftfy,
)


def measure(group: str) -> dict:
    """Name of a check → ["found", what] or ["failed", its traceback]: the other checks go on."""
    with torch.inference_mode(), tempfile.TemporaryDirectory() as tmp:
        if group == "families":
            return {check.__name__: _attempt(check, tmp) for check in FAMILIES}
        alone = {check.__name__: _attempt(check) for check in ALONE}
        return alone | {check.__name__: _attempt(check, tmp) for check in WITH_FILES}


def _attempt(check: Callable[..., Any], *arguments) -> tuple[str, Any]:
    try:
        return "found", check(*arguments)
    except Exception:
        return "failed", traceback.format_exc()
