"""The CPU as a host, as ComfyUI is one: the models of `wan_core` in less arithmetic and fewer passes over memory.

`make_dit` and `make_vae` build the models of `wan_core.dit` and `wan_core.vae` from subclasses with the same parameter
names. Each tests one `suits(…)` where it computes: tensors on a CPU, no gradients, no compiler. Everything else
goes to the plain class above it, so such a model may move to another device and back, be trained, compiled or given
LoRAs. The loaders of `wan_core.checkpoints` therefore always build with this package; nothing else decides.

What each way buys stands at the top of `ops`, `dit` and `vae`; all of it together, against other implementations, in
benchmarks/results/dit.md and vae.md.
"""

from .dit import make_dit
from .vae import make_vae

__all__ = ["make_dit", "make_vae"]
