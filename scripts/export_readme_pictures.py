"""Make the pictures of the README again: clips of the demo model, and a run in the browser shortly after the handoff.

make canvas                                              # in another terminal
.venv/bin/python -m scripts.export_readme_pictures http://127.0.0.1:8188

The captions of the clips are set by the browser and need a font with Chinese characters.
"""

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.browser import Canvas, open_canvas
from scripts.demo_model.clips import BACKGROUNDS, COLOURS, Placement, draw
from wan_core import WanPipeline
from wan_core.demo.release import DEMO_NUMBERS, demo_model

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "workflows" / "wan22_t2v_a14b.json"

FIRST_FRAME = {"shape": "square", "motion": "down", "colour": "green", "background": "black"}
CLIPS = (  # task, prompt, seed
    ("t2v-a14b", "A red circle moves to the right", 0),
    ("t2v-a14b", "青色背景上，白色的三角形向左移动", 0),
    ("t2v-a14b", "A yellow cross moves up on a navy background", 1),
    ("i2v-a14b", "一个绿色的正方形在黑色背景上向下移动", 0),
)
GIVEN = {"i2v-a14b": "first frame + "}  # what the caption says before the prompt
SIDE, GAP, CAPTION = 192, 6, 40  # pixels: of a clip, between clips, of the words below them
FRAME, PAUSE = 80, 900  # milliseconds; the last frame stays
PALETTE = 96  # colours
CAPTIONS = """<body style="margin:0;background:#1e1e1e;display:flex;gap:{gap}px">{words}</body>"""
WORDS = """<div style="width:{side}px;padding-top:4px;font:12px/16px sans-serif;color:#d8d8d8;text-align:center;
text-wrap:balance">{words}</div>"""

VALUES = {
    "width": 64,
    "height": 64,
    "length": 17,
    "positive": CLIPS[0][1],
    "seed": 2,
    "control_after_generate": "fixed",
}
SCALE, ORIGIN, BORDER = 1.25, 240, 16  # the origin keeps the toolbars of the page out of the picture
LARGEST = 150_000  # bytes
ARRANGE = """([values, scale, origin, border]) => {
  const find = type => app.graph.nodes.find(node => node.type === type);
  for (const node of app.graph.nodes.filter(node => node.type === 'MarkdownNote')) app.graph.remove(node);
  for (const node of app.graph.nodes) {
    node.badges = [];
    for (const widget of node.widgets ?? []) if (widget.name in values) widget.value = values[widget.name];
  }
  const title = LiteGraph.NODE_TITLE_HEIGHT, gap = 24, column = 340, sampler = find('Wan22MoEKSampler');
  sampler.pos = [column + 2 * gap, title];
  sampler.setSize([470, sampler.computeSize()[1] + 75]);
  const [right, bottom] = [sampler.pos[0] + sampler.size[0], sampler.pos[1] + sampler.size[1]];
  const [experts, prompt, latent] = ['Wan22ExpertLoader', 'Wan22TextEncode', 'Wan22EmptyLatent'].map(find);
  for (const node of [experts, latent]) node.setSize([column, node.computeSize()[1]]);
  experts.pos = [0, title];
  latent.pos = [0, bottom - latent.size[1]];
  prompt.pos = [0, experts.pos[1] + experts.size[1] + gap + title];
  prompt.setSize([column, latent.pos[1] - title - gap - prompt.pos[1]]);
  find('Wan22TextEncoderLoader').pos = [-800, prompt.pos[1]];  // these are outside the picture
  find('Wan22VAEDecodeToVideo').pos = [right + 200, title];
  find('Wan22VAELoader').pos = [right + 200, title + 400];
  app.canvas.deselectAll();
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [origin / scale, origin / scale];
  app.canvas.setDirty(true, true);
  return {
    x: origin - border, y: origin - border,
    width: right * scale + 2 * border, height: bottom * scale + 2 * border,
  };
}"""
FORGET = """async () => {  // else the second run of the script is answered from the server's cache
  const { api } = await import('/scripts/api.js'), body = JSON.stringify({ free_memory: true });
  await api.fetchApi('/free', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
}"""
HANDED_OVER = """() => {
  const steps = document.querySelectorAll('.wan22-high').length, image = document.querySelector('.wan22-plot img');
  const words = document.querySelector('.wan22-words')?.textContent ?? '';
  return Number(words.match(/step (\\d+) of/)?.[1]) > steps + 2 && words.includes('low-noise') && !image.hidden;
}"""


def make_clips() -> list[np.ndarray]:
    """The clips, each (T, H, W, 3) uint8."""
    clips = []
    with tempfile.TemporaryDirectory() as folder:
        for task, prompt, seed in CLIPS:
            pipe = WanPipeline.from_pretrained(demo_model(task, folder))
            image = first_frame() if task == "i2v-a14b" else None
            frames = pipe(prompt, image=image, seed=seed, **DEMO_NUMBERS).frames[0]
            clips.append((np.asarray(frames) * 255).round().astype(np.uint8))
    return clips


def first_frame() -> Image.Image:
    """What image-to-video starts from."""
    colours = COLOURS[FIRST_FRAME["colour"]][1], BACKGROUNDS[FIRST_FRAME["background"]][1]
    pixels, _ = draw(FIRST_FRAME["shape"], FIRST_FRAME["motion"], Placement(x=32.0, y=32.0, radius=13.0), *colours)
    return Image.fromarray(((pixels[:, 0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy())


def set_captions(canvas: Canvas) -> Image.Image:
    """The prompts side by side, as wide as the clips."""
    words = "".join(WORDS.format(side=SIDE, words=GIVEN.get(task, "") + prompt) for task, prompt, _ in CLIPS)
    page = canvas.page.context.browser.new_page()
    page.set_content(CAPTIONS.format(gap=GAP, words=words))
    width = len(CLIPS) * (SIDE + GAP) - GAP
    picture = page.screenshot(clip={"x": 0, "y": 0, "width": width, "height": CAPTION})
    page.close()
    return Image.open(io.BytesIO(picture)).convert("RGB")


def write_gif(clips: list[np.ndarray], captions: Image.Image, path: Path) -> None:
    """Clips side by side over their captions, playing for ever."""
    frames = []
    for images in zip(*clips, strict=True):
        frame = Image.new("RGB", (captions.width, SIDE + CAPTION), captions.getpixel((0, 0)))
        frame.paste(captions, (0, SIDE))
        for i, image in enumerate(images):
            frame.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (i * (SIDE + GAP), 0))
        frames.append(frame)
    sample = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames[:: len(frames) // 4]]))
    palette = sample.quantize(PALETTE, Image.Quantize.MEDIANCUT)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    times = [FRAME] * len(others) + [PAUSE]
    first.save(path, save_all=True, append_images=others, duration=times, loop=0, optimize=True)


def write_handoff(canvas: Canvas, path: Path) -> None:
    """The sampler in the middle of a run, with the nodes before it."""
    canvas.open(WORKFLOW)
    clip = canvas.page.evaluate(ARRANGE, [VALUES, SCALE, ORIGIN, BORDER])
    canvas.page.evaluate(FORGET)
    canvas.page.wait_for_timeout(1000)
    canvas.page.evaluate("app.queuePrompt(0)")
    canvas.page.wait_for_function(HANDED_OVER, timeout=120_000, polling=20)
    for quality in (85, 75, 65, 55):  # the run goes on in between, by a step or two
        picture = canvas.page.screenshot(type="jpeg", quality=quality, clip=clip)
        if len(picture) < LARGEST:
            break
    path.write_bytes(picture)


def main(url: str) -> None:
    with open_canvas(url, width=1700, height=1500) as canvas:
        write_handoff(canvas, ROOT / "docs" / "handoff.jpg")
        captions = set_captions(canvas)
    write_gif(make_clips(), captions, ROOT / "docs" / "demo.gif")


if __name__ == "__main__":
    main(*sys.argv[1:])
