"""A real browser on a real ComfyUI: open a workflow, read it back, look at it."""

import contextlib
import json
import shutil
from pathlib import Path

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
READY = "!!(window.app?.graph && window.LiteGraph?.registered_node_types?.Wan22MoEKSampler)"
MARGIN = 140  # keeps the toolbars of the page out of the picture
FIT = """([width, height, margin]) => {
  const boxes = app.graph.nodes.map(node => [...node.pos, ...node.size]);
  const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1] - LiteGraph.NODE_TITLE_HEIGHT));
  const right = Math.max(...boxes.map(b => b[0] + b[2])), bottom = Math.max(...boxes.map(b => b[1] + b[3]));
  const scale = Math.min(1, (width - 2 * margin) / (right - left), (height - 2 * margin) / (bottom - top));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [margin / scale - left, margin / scale - top];
  app.canvas.setDirty(true, true);
  return {x: margin - 20, y: margin - 40, width: (right - left) * scale + 40, height: (bottom - top) * scale + 60};
}"""


def find_chromium() -> str | None:
    return shutil.which("chromium")


class Canvas:
    """The page of a running ComfyUI.

    Attributes:
        errors: what scripts on the page have thrown.
    """

    def __init__(self, page, width: int, height: int):
        self.page, self.width, self.height, self.errors = page, width, height, []
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def load(self, **settings) -> None:
        """Open the page anew, with settings of the frontend such as `Comfy.Locale` (dots as two underscores)."""
        for name, value in settings.items():
            name = name.replace("__", ".")
            self.page.evaluate(
                "async ([name, value]) => { await app.extensionManager.setting.set(name, value) }", [name, value]
            )
        self.page.reload()
        self.page.wait_for_function(READY, timeout=120_000)
        self.page.wait_for_timeout(1500)

    def open(self, workflow: Path) -> None:
        self.page.evaluate("async workflow => { await app.loadGraphData(workflow) }", json.loads(workflow.read_text()))
        self.page.wait_for_timeout(300)

    def prompt(self) -> dict:
        """The API format of what is on the canvas, as the browser itself would queue it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def fit(self) -> dict:
        """Bring the whole graph into view; its place on the page."""
        clip = self.page.evaluate(FIT, [self.width, self.height, MARGIN])
        self.page.wait_for_timeout(500)
        return clip

    def picture(self, path: Path) -> None:
        """The whole graph as a JPEG."""
        clip = self.fit()
        self.page.wait_for_timeout(500)
        self.page.screenshot(path=path, type="jpeg", quality=80, clip=clip)


@contextlib.contextmanager
def open_canvas(url: str, width: int = 2000, height: int = 1000):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url)
            page.wait_for_function(READY, timeout=120_000)
            canvas = Canvas(page, width, height)
            canvas.load(Comfy__Minimap__Visible=False, Comfy__VueNodes__Enabled=False, Comfy__Locale="en")
            yield canvas
        finally:
            browser.close()
