"""The shipped model: where its files are, and a folder of each task that a pipeline opens."""

import shutil
from pathlib import Path

from ..errors import InputError

FOLDER = Path(__file__).parent / "model"
VAE, TEXT, TOKENIZER = "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google"
EXPERTS = ("high_noise_model", "low_noise_model")
TASKS = ("t2v-a14b", "i2v-a14b")

# The clips that the model was trained on, and enough steps for them.
DEMO_NUMBERS = {"width": 64, "height": 64, "num_frames": 17, "num_inference_steps": 20}


def shared_folder() -> Path:
    """The text-to-video model, a whole release folder; image-to-video shares its VAE, text encoder and tokenizer."""
    return FOLDER / TASKS[0]


def demo_model(task: str, folder: str | Path | None = None) -> Path:
    """A folder that `WanPipeline.from_pretrained` opens.

    Args:
        task: "t2v-a14b", shipped whole; or "i2v-a14b", which is put together in `folder` (about 5 MB of copies).
    Raises:
        InputError: another task, or no folder for image-to-video.
    """
    if task == TASKS[0]:
        return shared_folder()
    if task != TASKS[1] or folder is None:
        raise InputError(
            f"the demo model {task!r} in {folder}", "t2v-a14b, or i2v-a14b with a folder to put it together in"
        )
    folder = Path(folder)
    for name in EXPERTS:
        shutil.copytree(FOLDER / task / name, folder / name, dirs_exist_ok=True)
    for name in (VAE, TEXT):
        shutil.copy(shared_folder() / name, folder / name)
    shutil.copytree(shared_folder() / TOKENIZER, folder / TOKENIZER, dirs_exist_ok=True)
    return folder
