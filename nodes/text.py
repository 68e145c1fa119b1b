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
                io.String.Input(
                    "positive", multiline=True, tooltip="What the clip shows: subject, motion, scene, light, camera."
                ),
                io.String.Input(
                    "negative", multiline=True, default="", tooltip="What it should not show. May be left empty."
                ),
                io.Boolean.Input(
                    "official_negative",
                    default=True,
                    optional=True,
                    tooltip=(
                        "Where the negative text is empty, use the official (Chinese) negative prompt of Wan 2.2. "
                        "Off: an empty text stays empty."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive", tooltip="The encoded prompt."),
                io.Conditioning.Output("negative", display_name="negative", tooltip="The encoded negative prompt."),
            ],
        )

    @classmethod
    def execute(cls, clip, positive, negative, official_negative=True) -> io.NodeOutput:
        from .host.text import encode

        if official_negative and not negative.strip():
            negative = NEGATIVE_PROMPT
        return io.NodeOutput(encode(clip, positive), encode(clip, negative))


NODES = [Wan22TextEncode]
