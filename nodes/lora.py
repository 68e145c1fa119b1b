"""LoRAs for both experts."""

from comfy_api.latest import io, ui

from .load import CATEGORY, check_names, choices, full_path

NONE = "none"
ROWS = 8


def row_inputs(number: int, files: list[str]):
    strength = dict(default=1.0, min=-100.0, max=100.0, step=0.05, round=0.001, optional=True)
    return [
        io.Combo.Input(
            f"lora_{number}",
            options=[NONE, *files],
            default=NONE,
            optional=True,
            tooltip="A file in models/loras, or none; the next row appears below it.",
        ),
        io.Float.Input(
            f"strength_high_{number}",
            **strength,
            tooltip=(
                "Its effect on the high-noise expert, or on the only model; "
                "0 leaves it as it is, a negative value turns the effect around."
            ),
        ),
        io.Float.Input(
            f"strength_low_{number}",
            **strength,
            tooltip="Its effect on the low-noise expert; 0 leaves it as it is. Not used for a single model.",
        ),
    ]


class Wan22LoraPair(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        files = choices("loras")
        return io.Schema(
            node_id="Wan22LoraPair",
            display_name="Wan 2.2 LoRA Pair",
            category=CATEGORY,
            description="LoRAs for both experts, a row each, and how many tensors of each apply.",
            search_aliases=["lora loader", "load lora", "lora stack", "power lora loader", "lightx2v", "high low lora"],
            inputs=[
                io.Model.Input("high_noise", tooltip="The high-noise expert, or the only model, from any loader."),
                io.Model.Input(
                    "low_noise", optional=True, tooltip="The low-noise expert; leave it out for a single model."
                ),
                *(each for number in range(1, ROWS + 1) for each in row_inputs(number, files)),
            ],
            outputs=[
                io.Model.Output(
                    "high_noise",
                    display_name="high_noise",
                    tooltip="The MODEL with the LoRAs, or as it was where none is for it.",
                ),
                io.Model.Output(
                    "low_noise",
                    display_name="low_noise",
                    tooltip="The same of the low-noise expert; empty without one.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, lora_1=NONE, lora_2=NONE, lora_3=NONE, lora_4=NONE, lora_5=NONE, lora_6=NONE, lora_7=NONE, lora_8=NONE
    ):
        names = (lora_1, lora_2, lora_3, lora_4, lora_5, lora_6, lora_7, lora_8)
        return check_names("loras", *(None if name == NONE else name for name in names))

    @classmethod
    def execute(cls, high_noise, low_noise=None, **rows) -> io.NodeOutput:
        from .host.lora import Row, apply_loras

        chosen = [
            Row(
                full_path("loras", rows[f"lora_{n}"]),
                rows.get(f"strength_high_{n}", 1.0),
                rows.get(f"strength_low_{n}", 1.0),
            )
            for n in range(1, ROWS + 1)
            if rows.get(f"lora_{n}", NONE) != NONE
        ]
        high, low, lines = apply_loras(high_noise, low_noise, chosen)
        return io.NodeOutput(high, low, ui=ui.PreviewText("\n".join(lines)))


NODES = [Wan22LoraPair]
