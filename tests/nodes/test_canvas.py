"""The plot on a real canvas: in both renderers, in both languages, by mouse and by key."""

import os
from pathlib import Path

import pytest

from scripts.canvas import PACK

T2V = PACK / "workflows" / "wan22_t2v_a14b.json"
PICTURES = Path(os.environ.get("WAN22_SCREENSHOTS", PACK / ".canvas" / "screenshots"))
COUNTS = {"en": "{high} high · {low} low", "zh": "高噪 {high} 步 · 低噪 {low} 步"}
SAMPLER = "app.graph.nodes.find(node => node.comfyClass === 'Wan22MoEKSampler')"


@pytest.fixture(
    scope="module",
    params=[(vue, language) for vue in (False, True) for language in ("en", "zh")],
    ids=lambda p: f"{'nodes2' if p[0] else 'classic'}-{p[1]}",
)
def page(request, canvas):
    vue, language = request.param
    canvas.load(Comfy__VueNodes__Enabled=vue, Comfy__Locale=language)
    canvas.language, canvas.name = language, f"{'nodes2' if vue else 'classic'}-{language}"
    return canvas


@pytest.fixture
def plot(page):
    page.open(T2V)
    page.fit()
    page.page.wait_for_function("document.querySelector('.wan22-boundary')")
    page.errors.clear()
    yield page
    assert page.errors == []


def boundary(canvas):
    return next(
        node["inputs"]["boundary"] for node in canvas.prompt().values() if node["class_type"] == "Wan22MoEKSampler"
    )


def shows(canvas, high, low):
    words = COUNTS[canvas.language].format(high=high, low=low)
    canvas.page.wait_for_function(
        "words => document.querySelector('.wan22-words')?.textContent.startsWith(words)", arg=words, timeout=5000
    )


def put(canvas, name, value):
    canvas.page.evaluate(
        f"([name, value]) => {{ {SAMPLER}.widgets.find(w => w.name === name).value = value }}", [name, value]
    )


def tell(canvas, event):
    """An event as the server sends it about the sampler's run; ID stands for the node."""
    canvas.page.evaluate(f"""async () => {{ const {{api}} = await import('/scripts/api.js');
        const ID = String({SAMPLER}.id); api.dispatchCustomEvent('wan22.sampling', {event}) }}""")


def test_the_boundary_is_dragged_moved_by_key_and_undone(plot):
    shows(plot, 26, 14)
    box = plot.page.locator(".wan22-boundary rect").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    plot.page.mouse.move(x, y)
    plot.page.mouse.down()
    plot.page.mouse.move(x - 40, y, steps=5)
    plot.page.mouse.up()
    dragged = boundary(plot)
    assert 0.875 < dragged < 0.97
    plot.page.wait_for_timeout(600)
    plot.page.keyboard.press("ArrowRight")
    moved = boundary(plot)
    assert moved < dragged
    plot.page.wait_for_timeout(600)
    for expected in (dragged, 0.875):
        plot.page.keyboard.press("Control+z")
        plot.page.wait_for_function(
            f"value => {SAMPLER}.widgets.find(w => w.name === 'boundary').value === value", arg=expected, timeout=5000
        )
    shows(plot, 26, 14)


def test_choosing_a_high_noise_file_chooses_its_low_noise_file(page):
    """By hand; what was chosen by hand for the low-noise slot stays until another high-noise file is chosen."""
    page.open(T2V)
    chosen = page.page.evaluate("""async () => {
        const node = app.graph.nodes.find(node => node.comfyClass === 'Wan22ExpertLoader');
        const [high, low] = node.widgets, seen = [];
        const choose = (widget, value) => { widget.value = value; widget.callback?.(value); seen.push(low.value) };
        choose(high, 'wan2.2_i2v_high_noise_14B_fp16.safetensors');
        choose(low, 'none');
        await new Promise(done => setTimeout(done, 600));
        seen.push(low.value);
        choose(high, 'wan2.2_ti2v_5B_fp16.safetensors');
        choose(high, 'wan2.2_t2v_high_noise_14B_fp16.safetensors');
        choose(low, 'wan2.2_i2v_low_noise_14B_fp16.safetensors');
        const graph = app.graph.serialize();
        await app.loadGraphData(graph);
        seen.push(app.graph.nodes.find(node => node.comfyClass === 'Wan22ExpertLoader').widgets[1].value);
        const made = LiteGraph.createNode('Wan22ExpertLoader');
        return [...seen, made.widgets[0].value, made.widgets[1].value] }""")
    i2v, t2v = (f"wan2.2_{task}_low_noise_14B_fp16.safetensors" for task in ("i2v", "t2v"))
    assert chosen[:-2] == [i2v, "none", "none", "none", t2v, i2v, i2v]
    assert chosen[-1] == chosen[-2].replace("high", "low") or chosen[-1] == "none" != "high" in chosen[-2]


def test_a_pair_of_which_only_one_is_loaded_is_drawn_as_one_model(plot):
    plot.page.evaluate("""() => { app.graph.nodes.find(node => node.comfyClass === 'Wan22ExpertLoader')
        .widgets[1].value = 'none' }""")
    plot.page.wait_for_function("!document.querySelector('.wan22-boundary')", timeout=5000)
    words = plot.page.locator(".wan22-words").first.text_content()
    assert words == {"en": "40 steps", "zh": "40 步"}[plot.language]
    unused = f"{SAMPLER}.widgets.filter(widget => widget.disabled).map(widget => widget.name)"
    assert plot.page.evaluate(unused) == ["cfg_low", "boundary"]
    plot.open(T2V)
    plot.page.wait_for_function(f"{unused}.length === 0", timeout=5000)


def test_an_error_is_said_in_its_node_and_gone_with_the_next_run(page):
    page.open(T2V)
    set_low = """name => {
        app.graph.nodes.find(node => node.comfyClass === 'Wan22ExpertLoader').widgets[1].value = name;
        const small = {width: 48, height: 32, length: 5, steps: 2, seed: Math.floor(Math.random() * 1e9)};
        for (const widget of app.graph.nodes.flatMap(node => node.widgets ?? []))
            if (widget.name in small) widget.value = small[widget.name];
        app.queuePrompt(0) }"""
    height = "app.graph.nodes.find(node => node.comfyClass === 'Wan22ExpertLoader').size[1]"
    before = page.page.evaluate(height)
    page.page.evaluate(set_low, "wan2.2_i2v_low_noise_14B_fp16.safetensors")
    alert = page.page.locator(".wan22-error[role=alert] div")
    alert.first.wait_for(timeout=60_000)
    found, needed = alert.all_text_contents()
    assert found.startswith("wan2.2_t2v_high_noise_14B_fp16.safetensors is ") and found.endswith("different sizes.")
    assert needed.startswith("Needed: two experts of one model. Use the high-noise and the low-noise file of the same")
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.picture(PICTURES / f"error-{page.name}.jpg")
    page.page.evaluate(set_low, "wan2.2_t2v_low_noise_14B_fp16.safetensors")
    alert.first.wait_for(state="detached", timeout=60_000)
    assert abs(page.page.evaluate(height) - before) < 2
    page.page.wait_for_function("document.querySelector('video')?.readyState >= 2", timeout=60_000)


def test_a_hidden_plot_leaves_no_hole(plot):
    height = f"{SAMPLER}.computeSize()[1]"
    before = plot.page.evaluate(height)
    show = "async shown => { await app.extensionManager.setting.set('Wan22.Plot.Show', shown) }"
    try:
        plot.page.evaluate(show, False)
        plot.page.wait_for_function(f"before => {height} < before - 150", arg=before, timeout=5000)
        assert not plot.page.locator(".wan22-plot").is_visible()
    finally:
        plot.page.evaluate(show, True)
    plot.page.wait_for_function(f"before => {height} === before", arg=before, timeout=5000)
    plot.page.wait_for_selector(".wan22-boundary", timeout=5000)


def test_it_follows_the_inputs_and_warns(plot):
    put(plot, "shift", 5)
    put(plot, "boundary", 0.9)
    shows(plot, 15, 25)
    put(plot, "steps", 4)
    shows(plot, 2, 2)
    put(plot, "boundary", 0)
    shows(plot, 4, 0)
    warning = {"en": "the low-noise expert gets no step", "zh": "低噪专家没有分到任何一步"}[plot.language]
    assert warning in plot.page.locator(".wan22-words").all_text_contents()


def test_a_run_is_seen_live_and_its_clip_in_the_node(plot, server):
    for name, value in {"steps": 24, "seed": 1000 + hash(plot.name) % 1000}.items():
        put(plot, name, value)
    plot.page.evaluate("""() => { const small = {width: 96, height: 64, length: 17};
        for (const widget of app.graph.nodes.flatMap(node => node.widgets ?? []))
            if (widget.name in small) widget.value = small[widget.name]; }""")
    plot.page.evaluate("""() => { window.seen = []; new MutationObserver(() => {
        const words = document.querySelector('.wan22-words')?.textContent;
        const mark = document.querySelector('.wan22-now') !== null;
        if (words !== seen.at(-1)?.[0]) seen.push([words, mark]);
    }).observe(document.body, {subtree: true, childList: true}) }""")
    plot.page.evaluate("app.queuePrompt(0)")
    plot.page.wait_for_function("document.querySelector('video')?.readyState >= 2", timeout=60_000)
    plot.page.wait_for_timeout(500)
    seen = plot.page.evaluate("seen")
    words = "\n".join(text for text, _ in seen)
    high, low = {"en": ("layout and motion", "texture and detail"), "zh": ("构图与运动", "纹理与细节")}[plot.language]
    assert 0 < words.index(high) < words.index(low) and any(mark for _, mark in seen)
    loading = {"en": "loading the {}-noise expert", "zh": "正在加载{}噪专家"}[plot.language]
    for word, expert in zip({"en": ("high", "low"), "zh": ("高", "低")}[plot.language], (high, low), strict=True):
        assert words.index(loading.format(word)) < words.index(expert)
    assert not seen[-1][1], "the mark of the last step stays after the end"
    texts = plot.page.locator("[data-node-id], .wan22-plot").all_text_contents()
    assert not any(expert in text for expert in (high, low) for text in texts), "an expert is at work after the end"
    assert seen[-1][0].count(" s") == 2  # seconds of each expert
    clip = plot.page.locator(".wan22-clip")
    assert clip.evaluate("clip => [clip.width, clip.height]") == [12, 8]  # a pixel a latent, shown as wide as the node
    assert clip.bounding_box()["width"] > 0.85 * plot.page.locator(".wan22-plot").bounding_box()["width"]
    assert _pictures(plot, 1500) > 2, "the clip does not move after the end"
    clip.click()
    plot.page.wait_for_timeout(100)
    assert _pictures(plot, 1500) == 1, "a click does not pause it"
    PICTURES.mkdir(parents=True, exist_ok=True)
    plot.picture(PICTURES / f"run-{plot.name}.jpg")


def _pictures(canvas, milliseconds):
    """How many pictures the clip preview shows in some time."""
    return canvas.page.evaluate(
        """async milliseconds => { const clip = document.querySelector('.wan22-clip'), seen = new Set();
            for (const end = Date.now() + milliseconds; Date.now() < end;) {
                seen.add(clip.toDataURL()); await new Promise(done => setTimeout(done, 50)) }
            return seen.size }""",
        milliseconds,
    )


def test_the_schedule_of_a_guider_comes_through_its_sigmas_link(page):
    page.page.evaluate("""() => { app.graph.clear();
        const make = (type, x, y) => {
            const node = LiteGraph.createNode(type); node.pos = [x, y]; app.graph.add(node); return node };
        const experts = make('Wan22ExpertLoader', 0, 0), guider = make('Wan22MoEGuider', 400, 0);
        const schedule = make('Wan22FlowSchedule', 400, 500);
        const sampler = make('SamplerCustomAdvanced', 800, 0), plan = make('Wan22Plan', 1100, 0);
        const slot = (node, name) => node.inputs.findIndex(input => input.name === name);
        schedule.title = '<img src=x onerror=window.hacked=1>';
        experts.connect(0, guider, slot(guider, 'high_noise'));
        experts.connect(1, guider, slot(guider, 'low_noise'));
        guider.connect(0, sampler, slot(sampler, 'guider'));
        schedule.connect(0, sampler, slot(sampler, 'sigmas')); }""")
    page.page.wait_for_function(
        "document.querySelectorAll('.wan22-plot').length === 2 && document.querySelectorAll('.wan22-path').length === 2"
    )
    words = page.page.locator(".wan22-words").all_text_contents()
    assert any("SIGMAS" in text and "<img" in text for text in words)
    page.fit()
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.picture(PICTURES / f"guider-{page.name}.jpg")
    assert page.page.evaluate("window.hacked") is None


def test_a_schedule_that_only_the_server_knows_is_drawn_when_it_has_told_it(plot):
    unknown = {"en": "known when the run starts", "zh": "运行开始"}[plot.language]
    put(plot, "schedule", "karras")
    plot.page.wait_for_function(
        "words => document.querySelector('.wan22-plot text')?.textContent.includes(words)", arg=unknown, timeout=5000
    )
    tell(plot, "{node: ID, sigmas: [1, 0.9, 0.8, 0.4, 0], plan: ['high', 'high', 'low', 'low']}")
    shows(plot, 2, 2)
    put(plot, "boundary", 0.5)  # the levels stay those of the run; which expert does a step follows the line
    shows(plot, 3, 1)
    put(plot, "steps", 30)
    plot.page.wait_for_function(
        "words => document.querySelector('.wan22-plot text')?.textContent.includes(words)", arg=unknown, timeout=5000
    )


def test_a_run_shows_its_own_plan(plot):
    """Not what the boundary says of the levels that are drawn before a run."""
    tell(plot, "{node: ID, sigmas: [1, 0.9, 0.8, 0.4, 0], plan: ['high', 'high', 'high', 'low']}")
    shows(plot, 3, 1)
    put(plot, "steps", 39)
    shows(plot, 25, 14)


def test_the_shift_of_the_model_is_left_to_the_server_or_said_to_be_ignored(plot):
    unknown, ignored = {
        "en": ("known when the run starts", "shift 5 of the MODEL is not used"),
        "zh": ("运行开始", "模型自带的偏移 5 未采用"),
    }[plot.language]
    put(plot, "shift", 0)
    plot.page.wait_for_function(
        "words => document.querySelector('.wan22-plot text')?.textContent.includes(words)", arg=unknown, timeout=5000
    )
    tell(plot, "{node: ID, sigmas: [1, 0.9, 0.8, 0.4, 0], plan: ['high', 'high', 'low', 'low'], ignored_shift: null}")
    shows(plot, 2, 2)
    put(plot, "shift", 12)
    shows(plot, 26, 14)
    tell(plot, "{node: ID, sigmas: [1, 0.9, 0.8, 0.4, 0], plan: ['high', 'high', 'low', 'low'], ignored_shift: 5}")
    shows(plot, 2, 2)
    words = plot.page.locator(".wan22-words")
    assert "wan22-warning" in words.filter(has_text=ignored).get_attribute("class")
    put(plot, "shift", 11)
    shows(plot, 25, 15)
    assert not any(ignored in text for text in words.all_text_contents())


HOSTILE = [
    "null",
    "7",
    "{}",
    "{node: {}}",
    "{node: '__proto__'}",
    "{node: ID, sigmas: 'x', plan: []}",
    "{node: ID, sigmas: [NaN, 1], plan: []}",
    "{node: ID, sigmas: Array(1e6).fill(1), plan: []}",
    "{node: ID, step: 1e9, expert: 'high'}",
    "{node: ID, step: 1, expert: '<b>'}",
    "{node: ID, sigmas: [1, 0.5, 0], plan: ['high', 'low']}",
    "{node: ID, step: 1, expert: 'high', clip: 'data:image/jpeg;base64,AAAA'}",
    *(
        f"{{node: ID, step: 1, expert: 'high', clip: {{{clip}}}}}"
        for clip in (
            "picture: 'javascript:alert(1)', frames: 1, columns: 1, fps: 4",
            "picture: 'data:image/svg+xml;base64,AAAA', frames: 1, columns: 1, fps: 4",
            "picture: 'data:image/jpeg;base64,AAAA', frames: 1, columns: 1, fps: 4",
            "picture: 'data:image/jpeg;base64,AAAA', frames: 1e9, columns: 1, fps: 4",
            "picture: 'data:image/jpeg;base64,AAAA', frames: 1, columns: 0, fps: 4",
            "picture: 'data:image/jpeg;base64,AAAA', frames: 1, columns: 1, fps: Infinity",
        )
    ),
    "{node: ID, sigmas: [1, 0.5, 0], plan: ['high', 'low'], ignored_shift: '<b>'}",
    "{node: ID, begun: 1, expert: '<b>', loading: '<b>'}",
    "{node: ID, begun: 1e9, expert: 'low', loading: true}",
    "{node: ID, begun: 1, expert: 'low', loading: true}",
    "{node: ID, step: 1, expert: 'low', pace: '<b>', left: NaN}",
    "{node: ID, seconds: {high: '<b>', low: Infinity}}",
]


def test_hostile_events_are_inert(plot):
    for event in HOSTILE:
        tell(plot, event)
    plot.page.wait_for_timeout(600)
    assert plot.page.evaluate(
        "document.querySelector('.wan22-clip').hidden && !document.querySelector('.wan22-plot b')"
    )
    put(plot, "steps", 20)
    put(plot, "shift", 8)
    shows(plot, 11, 9)


PALETTES = ("dark", "light", "solarized", "arc", "nord", "github")
CONTRASTS = """() => {
  const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const contrast = (...colours) => {
    const [dark, light] = colours.map(luminance).sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  const text = [], lines = [];
  for (const panel of document.querySelectorAll('.wan22-panel')) {
    const ground = getComputedStyle(panel).backgroundColor;
    for (const element of panel.querySelectorAll('text, div')) {
      const { fill, color } = getComputedStyle(element);
      if (element.textContent) text.push(contrast(element.tagName === 'text' ? fill : color, ground));
    }
    for (const element of panel.querySelectorAll('line, path, circle')) {
      const { stroke, fill } = getComputedStyle(element);
      lines.push(contrast(stroke === 'none' ? fill : stroke, ground));
    }
  }
  return [Math.min(...text), Math.min(...lines), text.length, lines.length];
}"""
REPORT = """async () => {
  const node = LiteGraph.createNode('Wan22Plan'); app.graph.add(node); node.pos = [0, 900];
  node.onExecuted({text: ['Plan', 'Warning: something is off']});
}"""


def test_every_palette_keeps_words_and_lines_readable(canvas):
    """WCAG 2.2: 4.5 for text, 3 for what is drawn."""
    canvas.load(Comfy__VueNodes__Enabled=False, Comfy__Locale="en")
    canvas.open(T2V)
    canvas.page.evaluate(REPORT)
    canvas.page.wait_for_function("document.querySelectorAll('.wan22-plot').length === 2")
    tell(canvas, "{node: ID, sigmas: [1, 0.9, 0.8, 0], plan: ['high', 'high', 'low']}")
    tell(canvas, "{node: ID, step: 1, expert: 'high'}")
    canvas.page.evaluate(f"{SAMPLER}.widgets.find(w => w.name === 'boundary').value = 0")
    PICTURES.mkdir(parents=True, exist_ok=True)
    try:
        for palette in PALETTES:
            canvas.page.evaluate(
                "async name => { await app.extensionManager.setting.set('Comfy.ColorPalette', name) }", palette
            )
            canvas.page.wait_for_timeout(400)
            text, line, texts, lines = canvas.page.evaluate(CONTRASTS)
            assert texts > 10 and lines > 20
            assert text >= 4.5 and line >= 3, f"{palette}: text {text:.2f}, lines {line:.2f}"
            canvas.picture(PICTURES / f"palette-{palette}.jpg")
    finally:
        canvas.page.evaluate("async () => { await app.extensionManager.setting.set('Comfy.ColorPalette', 'dark') }")


def test_words_are_as_large_as_those_of_the_widgets(canvas):
    """Whatever the width of the node."""
    canvas.load(Comfy__VueNodes__Enabled=False, Comfy__Locale="en")
    canvas.open(T2V)
    canvas.page.evaluate("() => { app.canvas.ds.scale = 1 }")
    for width in (320, 900):
        canvas.page.evaluate(f"width => {{ {SAMPLER}.setSize([width, {SAMPLER}.size[1]]) }}", width)
        canvas.page.wait_for_timeout(400)
        heights = canvas.page.evaluate(
            "() => [...document.querySelectorAll('.wan22-plot text')].map(text => text.getBoundingClientRect().height)"
        )
        assert heights and all(11 <= height <= 18 for height in heights)
        axes, plot = (canvas.page.locator(name).bounding_box() for name in (".wan22-plot path", ".wan22-plot"))
        assert axes["width"] > plot["width"] - 60
