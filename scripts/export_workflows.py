"""Write the API format and the picture of every shipped workflow, as a real browser on a real ComfyUI makes them.

make canvas                                              # in another terminal
.venv/bin/python -m scripts.export_workflows http://127.0.0.1:8188
"""

import json
import sys
from pathlib import Path

from scripts.browser import open_canvas

WORKFLOWS = Path(__file__).resolve().parent.parent / "workflows"


def main(url: str) -> None:
    (WORKFLOWS / "api").mkdir(exist_ok=True)
    with open_canvas(url) as canvas:
        for workflow in sorted(WORKFLOWS.glob("*.json")):
            canvas.open(workflow)
            api = json.dumps(canvas.prompt(), indent=2, ensure_ascii=False)
            (WORKFLOWS / "api" / workflow.name).write_text(api + "\n", encoding="utf-8")
            canvas.picture(workflow.with_suffix(".jpg"))
            print(workflow.stem)


if __name__ == "__main__":
    main(*sys.argv[1:])
