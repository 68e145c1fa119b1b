"""Wan 2.2 nodes for ComfyUI."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import Extension

    return Extension()
