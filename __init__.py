"""Wan 2.2 nodes for ComfyUI."""


async def comfy_entrypoint():
    from .nodes import Extension

    return Extension()
