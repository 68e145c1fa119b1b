"""LoRAs on modulations.

ComfyUI leaves out patches of parameters that lie beside submodules, which modulations are, so that LoRAs for them would
do nothing. They are put in for a run and taken out after it.
"""

import comfy.lora
import comfy.utils
from comfy.patcher_extension import CallbacksMP

_PLAIN = "_wan22_plain_modulations"
_KEY = "wan22_modulations"


def put_in(model, patches: dict) -> None:
    """Apply those of a MODEL's patches that are for modulations to its model."""
    take_out(model)
    patches = {name: p for name, p in patches.items() if name.endswith(".modulation")}
    plain = model.__dict__[_PLAIN] = {name: comfy.utils.get_attr(model, name).data for name in patches}
    for name, weight in plain.items():
        patched = comfy.lora.calculate_weight(patches[name], weight.float().clone(), name)
        comfy.utils.get_attr(model, name).data = patched.to(weight)


def take_out(model) -> None:
    """Leave the model as it was."""
    for name, plain in model.__dict__.pop(_PLAIN, {}).items():
        comfy.utils.get_attr(model, name).data = plain


def keep_in_runs(patcher) -> None:
    """Have a MODEL of another loader do this in its runs; ours do it by themselves."""
    if not patcher.get_callbacks(CallbacksMP.ON_PRE_RUN, _KEY):
        patcher.add_callback_with_key(
            CallbacksMP.ON_PRE_RUN, _KEY, lambda running: put_in(running.model, running.patches)
        )
        patcher.add_callback_with_key(CallbacksMP.ON_CLEANUP, _KEY, lambda ended: take_out(ended.model))
