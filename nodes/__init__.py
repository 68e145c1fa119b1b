"""The nodes, one file per stage of a graph."""

from comfy_api.latest import ComfyExtension, io

from ..wan_core import errors
from . import conditioning, decode, load, lora, sample, text

# ComfyUI's page writes an error's module before its message, here the path of this pack. Of these: the name alone.
for error in vars(errors).values():
    if isinstance(error, type) and issubclass(error, errors.WanError):
        error.__module__ = "builtins"


class Extension(ComfyExtension):
    async def get_node_list(self):
        stages = (load, lora, text, conditioning, sample, decode)
        return [checked(node) for stage in stages for node in stage.NODES]


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, which looks at what its sockets were given before it runs."""

    class Checked(node):
        @classmethod
        def execute(cls, **inputs) -> io.NodeOutput:
            from .host.sockets import check_sockets

            sockets = (entry for entry in cls.SCHEMA.inputs if not isinstance(entry, io.WidgetInput))
            check_sockets(sockets, inputs)
            return super().execute(**inputs)

    return Checked
