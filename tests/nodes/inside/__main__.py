"""Run by ComfyUI's own python: measures the pack inside ComfyUI and prints one JSON object.

python tests/nodes/inside GROUP COMFYUI PACK MODELS GOLDEN STORED
"""

import json
import os
import sys
from pathlib import Path

from places import COMFYUI, GROUP, PACK


def main():
    """ComfyUI reads its command line and its folder while it is imported, so both come first."""
    sys.argv = ["main", "--cpu"]
    sys.path.insert(0, COMFYUI)
    sys.path.append(str(Path(PACK, "tests", "support")))
    os.chdir(COMFYUI)
    from comfy.options import enable_args_parsing

    enable_args_parsing()
    from checks import measure

    sys.stdout.write("RESULT " + json.dumps(measure(GROUP)) + "\n")


main()
