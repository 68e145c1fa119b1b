"""Graphs in API format over the tiny models."""


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def models(family, pair=True):
    """Loaders and prompts of a family, under fixed ids."""
    low = f"{family}/wan2.2_low_noise_14B_fp16.safetensors" if pair else "none"
    high = f"{family}/wan2.2_high_noise_14B_fp16.safetensors" if pair else f"{family}/wan2.2_5B_fp16.safetensors"
    return {
        "experts": node("Wan22ExpertLoader", high_noise=high, low_noise=low),
        "clip": node("Wan22TextEncoderLoader", text_encoder=f"{family}/umt5_xxl_fp16.safetensors"),
        "vae": node("Wan22VAELoader", vae_name=f"{family}/wan_{'2.1' if pair else '2.2'}_vae.safetensors"),
        "text": node("Wan22TextEncode", clip=["clip", 0], positive="a red circle", negative="", official_negative=True),
    }


def sampler(latent, positive=("text", 0), negative=("text", 1), pair=True, **changes):
    inputs = {
        "high_noise": ["experts", 0],
        "positive": list(positive),
        "negative": list(negative),
        "latent_image": latent,
        "seed": 3,
        "steps": 4,
        "cfg_high": 4.0,
        "cfg_low": 3.0,
        "boundary": 0.875,
        "shift": 12.0,
        "solver": "official unipc",
        "schedule": "official",
        "denoise": 1.0,
    }
    if pair:
        inputs["low_noise"] = ["experts", 1]
    return node("Wan22MoEKSampler", **inputs | changes)


def save(prefix, samples=("sample", 0), fps=16):
    return node("Wan22VAEDecodeToVideo", samples=list(samples), vae=["vae", 0], fps=fps, filename_prefix=prefix)


def t2v(prefix="t2v", **changes):
    return models("t2v-a14b") | {
        "latent": node("Wan22EmptyLatent", width=48, height=32, length=9, batch_size=1, family="A14B"),
        "sample": sampler(["latent", 0], **changes),
        "save": save(prefix),
    }
