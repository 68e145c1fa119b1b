"""WanPipeline: from a prompt, and images, frames and masks where given, to a clip."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..attention import get_backend, use_attention
from ..checkpoints import (
    ModelFiles,
    load_dit,
    load_image_encoder,
    load_text_encoder,
    load_vae,
    open_model,
    open_tokenizer,
)
from ..checkpoints.identify import identify_experts
from ..config import Preset
from ..devices import usable_device, usable_dtype
from ..dit import WanDiT
from ..errors import InputError, quoted
from ..flow import Experts, draw_noise, sample
from ..flow.guidance import BATCHED_CFG_MAX_TOKENS
from ..flow.solvers import Callback
from ..lora import LoraReport, LoraStack
from ..media.ffmpeg import find_ffmpeg
from ..memory import ModelOffloader, typed_oom
from ..text import UMT5, Tokenizer
from ..vae import WanVAE
from ..vision import ImageEncoder
from .condition import Condition, Loaders, encode_condition
from .experts import expert_in_run
from .inputs import Inputs
from .options import Options
from .output import WanOutput
from .request import Request


class WanPipeline:
    """A Wan model ready to generate.

    Attributes:
        preset: the family's official defaults with this model's own sizes.
        high, low: the experts; low is None for a single model.
        image_encoder: of models with a CLIP branch; None for the others.
    """

    def __init__(
        self,
        high: WanDiT,
        low: WanDiT | None,
        vae: WanVAE,
        text_encoder: UMT5,
        tokenizer: Tokenizer,
        preset: Preset,
        device: torch.device | str = "cpu",
        image_encoder: ImageEncoder | None = None,
    ):
        self.high, self.low, self.vae, self.image_encoder = high, low, vae, image_encoder
        self.text_encoder, self.tokenizer, self.preset = text_encoder, tokenizer, preset
        self.offloader = ModelOffloader(device)
        self._loras = LoraStack(high, low)

    @classmethod
    @typed_oom()
    def from_pretrained(
        cls,
        path: str | Path,
        torch_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: str = "sdpa",
    ) -> "WanPipeline":
        """Open a model folder.

        Args:
            path: official folder, diffusers folder, or a folder of ComfyUI single files. Where neither names nor
                metadata of two experts say which is which, a test of both decides; a warning says that it is a guess.
                Bernini-R has the tensors of a text-to-video model, and is known by the word "bernini" in the name of
                folder or file, in model_index.json or in the header; Wan2.1 I2V of 480P by "480p", else it is 720P.
            torch_dtype: what transformer and text encoder compute in; None: as stored. VAE and vision encoder are
                always float32, and the text encoder takes bfloat16 in place of float16.
            device: where to run; None: CUDA where there is one, else the CPU.
            attention: of the transformer: sdpa | flash | sage | auto, see `wan_core.attention`. Another backend than
                sdpa is replaced by it, with a warning, where it returns NaN or infinity.
        Raises:
            InputError: a device, dtype or attention that cannot be used here.
            CheckpointNotFound: the folder, or a part of the model, is missing.
            CheckpointError: a damaged file, or parts that do not belong together.
            OutOfMemory: no memory for it.
        """
        device, torch_dtype = usable_device(device), usable_dtype(torch_dtype)
        get_backend(attention)  # all three are refused before a file is looked for
        return cls.from_files(open_model(path), torch_dtype, device, attention)

    @classmethod
    @typed_oom()
    def from_files(
        cls,
        files: ModelFiles,
        torch_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        attention: str = "sdpa",
    ) -> "WanPipeline":
        """From a model that `open_model` has opened; everything else as in `from_pretrained`."""
        device, torch_dtype = usable_device(device), usable_dtype(torch_dtype)
        backend = get_backend(attention)
        # umT5 overflows in float16; bfloat16 has the range that it was trained in.
        text_dtype = torch.bfloat16 if torch_dtype == torch.float16 else torch_dtype
        preset = files.preset
        vae = load_vae(files.vae, preset.vae)
        high = load_dit(files.high, preset.dit, torch_dtype)
        low = None
        if files.low is not None:
            low = load_dit(files.low, preset.dit, torch_dtype)
            if not files.named:
                names = Path(files.high.source).name, Path(files.low.source).name
                high, low = identify_experts(high, low, vae, names)
        for expert in filter(None, (high, low)):
            use_attention(expert, backend)
        image_encoder = None
        if files.image_encoder is not None:
            image_encoder = load_image_encoder(files.image_encoder, preset.image_encoder)
        return cls(
            high=high,
            low=low,
            vae=vae,
            text_encoder=load_text_encoder(files.text_encoder, preset.text, text_dtype),
            tokenizer=open_tokenizer(files.tokenizer, preset.dit.text_len),
            preset=preset,
            device=device,
            image_encoder=image_encoder,
        )

    @typed_oom()
    def to(self, device: torch.device | str) -> "WanPipeline":
        """Run on this device, every part staying there after its first use."""
        device = usable_device(device)
        self.offloader.offload()
        self.offloader = ModelOffloader(device)
        return self

    @typed_oom()
    def enable_model_cpu_offload(self, device: torch.device | str | None = None) -> None:
        """Keep one part of the model on the device at a time; the low-noise expert is prefetched while the other runs.

        Args:
            device: None: the pipeline's own.
        """
        device = usable_device(self.offloader.device if device is None else device)
        self.offloader.offload()
        self.offloader = ModelOffloader(device, exclusive=True)

    def compile(self, **options) -> None:
        """Let torch.compile make each block of the experts faster; the first step of a new size takes its time.

        Done in place: parameters keep their names, so LoRAs and offload work as before.

        Args:
            options: of `torch.compile`, such as mode=.
        """
        for expert in filter(None, (self.high, self.low)):
            for block in (*expert.blocks, *getattr(expert, "vace_blocks", ())):
                block.compile(**options)

    @typed_oom()
    def load_lora(self, path: str | Path, expert: str | None = None, strength: float = 1.0) -> list[LoraReport]:
        """Put a LoRA beside the weights of one expert or both; several add up. One line a report goes to the log.

        Args:
            path: a file of any trainer; see `wan_core.lora.read_lora`.
            expert: "high", "low" or "both"; None: as the file's name or keys say, else both.
            strength: of the change; 0 does nothing, negative ones turn it around.
        Returns:
            what was applied, of each expert.
        Raises:
            CheckpointError: nothing in the file applies, or it was made for another base.
            InputError: an expert that this model does not have.
        """
        self.offloader.offload()
        return self._loras.load(path, expert, strength)

    @typed_oom()
    def unload_loras(self) -> None:
        """Leave both experts as they were loaded."""
        self.offloader.offload()
        self._loras.unload()

    def __call__(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        image=None,
        last_image=None,
        video=None,
        mask=None,
        reference_images: Sequence = (),
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        boundary_ratio: float | None = None,
        flow_shift: float | None = None,
        solver: str = "unipc",
        seed: int | Sequence[int] | None = None,
        callback: Callback | None = None,
        step_cache: float | None = None,
    ) -> WanOutput:
        """Generate a clip, or one for each prompt of a list. None means the official default of this model.

        Args:
            prompt, negative_prompt: any language that umT5 knows; cleaned as officially, cut at 512 tokens. A negative
                prompt of None is the official text, "" is empty.
            image, last_image: first (and last) frame for image-to-video models and Fun-InP; FLF2V of Wan2.1 needs both.
                `image` alone also for TI2V-5B, and as the start of Fun-Control.
            video: the control of VACE and Fun-Control, or what Bernini-R edits.
            mask: VACE models; 1 (white) = generate, 0 = keep.
            reference_images: VACE; Bernini-R, where they keep their proportions; Fun-Control, which takes one.
            height, width: pixels; multiples of 16 (14B, 1.3B) or 32 (5B). With an image or a video and neither given,
                the official size of about the default area with its proportions.
            num_frames: 4n + 1; of a longer video the first num_frames are used.
            guidance_scale, guidance_scale_2: high-noise and low-noise expert; the first alone applies to both.
                A scale of 1 skips the negative pass.
            boundary_ratio: in [0, 1]; the high-noise expert does the steps that start at t >= 1000·boundary_ratio.
            flow_shift: 0.001 to 1000.
            solver: unipc | dpmpp_2m | euler.
            seed: 0 to 2^64 − 1; sample k of several uses seed + k, or the k-th of a list. None or negative: drawn.
            callback: called with (i, t, x, x0) once a step; not to change them.
            step_cache: 0 to 1; above 0, model calls that are expected to change the velocity by less than this are left
                out, at a loss that benchmarks/cpu/step_cache.py measures. None: 0, every step is computed.
        Raises:
            InputError: an argument that this model cannot work with; nothing has been allocated yet.
            VideoError: no ffmpeg to save the clip with.
            NumericalError: the model returned NaN or infinity. OutOfMemory: the device ran out of memory.
        """
        given = locals()  # each parameter under its own name, which is that of its field in Options
        del given["self"]
        return self.generate(Options(**given))

    @typed_oom()
    def generate(self, options: Options) -> WanOutput:
        """What a call of the pipeline does, with its parameters in one object."""
        if options.callback is not None and not callable(options.callback):
            raise InputError(f"callback is {quoted(options.callback)}", "a function of (i, t, x, x0)")
        inputs = Inputs.resolve(self.preset, options)
        find_ffmpeg()  # the clip will want to be saved: better said now than after the sampling
        try:
            with typed_oom():  # here too, so that the device's memory is free when it is given back below
                request = replace(inputs.request, loras=self._loras.notes)
                return WanOutput(self, request, self._latents(inputs, options.callback))
        finally:
            self.offloader.end_run()
            del inputs  # an error's traceback would keep its images and frames

    def _latents(self, inputs: Inputs, callback: Callback | None) -> Tensor:
        positive, negative = self.encode_prompts(inputs.request)
        return self.denoise(inputs.request, positive, negative, self.condition(inputs), callback)

    @typed_oom()
    @torch.no_grad()
    def encode_prompts(self, request: Request) -> tuple[list[Tensor], list[Tensor] | None]:
        """Embeddings (1, n, text_dim) of every prompt and every negative prompt; equal texts are encoded once.

        No negative ones where no step is guided.
        """
        negatives = request.negative_prompts if request.guided() else ()
        encoder = self.offloader.load(self.text_encoder)
        embeddings: dict[str, Tensor] = {}
        for text in (*request.prompts, *negatives):
            if text not in embeddings:
                ids, mask = (x.to(self.offloader.device) for x in self.tokenizer(text))
                embeddings[text] = encoder(ids, mask)
        return [embeddings[text] for text in request.prompts], [embeddings[text] for text in negatives] or None

    @typed_oom()
    @torch.no_grad()
    def condition(self, inputs: Inputs) -> Condition:
        """The given images, frames and masks, encoded for this model's task."""
        load = Loaders(lambda: self.offloader.load(self.vae), self._loaded_image_encoder)
        return encode_condition(load, self.preset, inputs)

    @typed_oom()
    def denoise(
        self,
        request: Request,
        positive: Sequence[Tensor],
        negative: Sequence[Tensor] | None,
        condition: Condition | None = None,
        callback: Callback | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, z, T', h, w) of every sample, in one solver run across both experts.

        Each sample goes through the model by itself, so it does not depend on the others.
        """
        condition, schedule = condition or Condition(), request.schedule()
        guided = self._experts(request).velocity(
            positive,
            negative,
            y=condition.y,
            vace=condition.vace,
            context_latents=condition.context_latents,
            reference_latent=condition.reference_latent,
            image_embeds=condition.image_embeds,
            step_cache=request.step_cache,
            schedule=schedule,
            batch_cfg=request.tokens(self.preset) <= BATCHED_CFG_MAX_TOKENS,
        )

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return guided(x, condition.timesteps(t, x))

        if noise is None:
            z, frames, h, w = request.shape.latent(self.preset.vae)
            noise = draw_noise((z, frames + condition.references, h, w), request.seeds)
        x = condition.constrain(noise.to(self.offloader.device))
        latents = sample(velocity, x, schedule, request.solver, callback, pin=condition.constrain)
        return latents[:, :, condition.references :]

    def _loaded_image_encoder(self) -> ImageEncoder:
        if self.image_encoder is None:
            raise InputError(f"a pipeline of {self.preset.name} without a vision encoder", "image_encoder")
        return self.offloader.load(self.image_encoder)

    def _experts(self, request: Request) -> Experts:
        """The models as this request uses them: loaded when called, the low-noise expert prefetched."""
        low = None if self.low is None else expert_in_run(self.low, self.offloader)
        successor = self.low if "low" in request.plan() else None
        return request.experts(expert_in_run(self.high, self.offloader, successor), low)
