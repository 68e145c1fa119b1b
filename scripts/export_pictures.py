"""Draw the picture of every node for its help page, as a real browser on a real ComfyUI shows it.

make canvas                                              # in another terminal
.venv/bin/python -m scripts.export_pictures http://127.0.0.1:8188
"""

import sys
from pathlib import Path

from scripts.browser import open_canvas

PICTURES = Path(__file__).resolve().parent.parent / "web" / "docs" / "images"
ORIGIN = 240  # keeps the toolbars of the page out of the picture
SCALE, BORDER = 1.5, 12
LARGEST = 40_000  # bytes; a help page opens at once
TALLEST = 1600  # pixels of the page; what lies below it would be cut off a picture
VALUES = {
    "Wan22ExpertLoader": {
        "high_noise": "wan2.2_t2v_high_noise_14B_fp16.safetensors",
        "low_noise": "wan2.2_t2v_low_noise_14B_fp16.safetensors",
    },
    "Wan22LoraPair": {
        "lora_1": "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors",
        "strength_low_1": 0,
        "lora_2": "wan2.2_t2v_lightx2v_4steps_lora_v1.1_low_noise.safetensors",
        "strength_high_2": 0,
    },
    "Wan22VAELoader": {"vae_name": "wan_2.1_vae.safetensors"},
    "Wan22TextEncode": {"positive": "A cat walks through the snow, low camera, soft morning light"},
}
LIST = "() => Object.keys(LiteGraph.registered_node_types).filter(name => name.startsWith('Wan22'))"
DRAW = """async ([name, id, values, scale, origin, border]) => {
  app.graph.clear();
  const node = LiteGraph.createNode(name);
  node.id = id;  // the page remembers the values of an id it has seen
  app.graph.add(node);
  node.badges = [];
  for (const widget of node.widgets ?? []) widget.value = values[widget.name] ?? widget.value;
  await new Promise((done) => setTimeout(done, 400));  // the LoRA node shows the rows that are in use
  const size = node.computeSize();
  const widgets = node.widgets ?? [];
  const text = widgets.filter(widget => widget.options?.multiline || widget.type === 'customtext').length;
  const longest = Math.max(0, ...widgets.map(widget => widget.type === 'combo' ? String(widget.value).length : 0));
  node.setSize([Math.max(size[0], longest > 30 ? 520 : 360), Math.max(size[1], size[1] + 20 * text)]);
  const title = LiteGraph.NODE_TITLE_HEIGHT;
  node.pos = [0, title];
  app.canvas.deselectAll();
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [origin / scale, origin / scale];
  app.canvas.setDirty(true, true);
  return {
    x: origin - border, y: origin - border,
    width: node.size[0] * scale + 2 * border, height: (node.size[1] + title) * scale + 2 * border,
  };
}"""


def main(url: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with open_canvas(url, height=TALLEST) as canvas:
        own = {name for name in canvas.page.evaluate(LIST) if (PICTURES.parent / name).is_dir()}
        for number, name in enumerate(sorted(own), 1000):
            clip = canvas.page.evaluate(DRAW, [name, number, VALUES.get(name, {}), SCALE, ORIGIN, BORDER])
            canvas.page.wait_for_timeout(500)
            for quality in (80, 70, 60, 50, 40):
                picture = canvas.page.screenshot(type="jpeg", quality=quality, clip=clip)
                if len(picture) < LARGEST:
                    break
            (PICTURES / f"{name}.jpg").write_bytes(picture)
            print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])
