"""The nodes, one file per stage of a graph."""

from comfy_api.latest import ComfyExtension

from . import conditioning, decode, load, lora, sample, text


class Extension(ComfyExtension):
    async def get_node_list(self):
        return [*load.NODES, *lora.NODES, *text.NODES, *conditioning.NODES, *sample.NODES, *decode.NODES]
