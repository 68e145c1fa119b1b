"""Prompts to conditioning."""

from comfy_api.latest import io

from ..wan_core.config import NEGATIVE_PROMPT
from .load import CATEGORY


class Wan22TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22TextEncode",
            display_name="Wan 2.2 Prompt",
            category=CATEGORY,
            description="Encodes both prompts as the official code does: cleaned, 512 tokens, brackets as plain text.",
            search_aliases=["prompt", "clip text encode", "negative prompt"],
            inputs=[
                io.Clip.Input("clip", tooltip="Any umT5 text encoder, from this pack's loader or the native one."),
                io.String.Input("positive", multiline=True, tooltip="What the clip shows."),
                io.String.Input("negative", multiline=True, default="", tooltip="What it should not show."),
                io.Boolean.Input(
                    "official_negative",
                    default=True,
                    optional=True,
                    tooltip="Use the official negative prompt where the negative text is empty.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive"),
                io.Conditioning.Output("negative", display_name="negative"),
            ],
        )

    @classmethod
    def execute(cls, clip, positive, negative, official_negative=True) -> io.NodeOutput:
        from .host.text import encode

        if official_negative and not negative.strip():
            negative = NEGATIVE_PROMPT
        return io.NodeOutput(encode(clip, positive), encode(clip, negative))


NODES = [Wan22TextEncode]
