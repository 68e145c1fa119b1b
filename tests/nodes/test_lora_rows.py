"""The LoRA pair node on a real canvas, in both renderers: its rows, what a choice brings, what is sent and kept."""

import os
from pathlib import Path

import pytest

from scripts.canvas import PACK

PICTURES = Path(os.environ.get("WAN22_SCREENSHOTS", PACK / ".canvas" / "screenshots"))
HIGH, LOW = (f"wan2.2_t2v_lightx2v_4steps_lora_v1.1_{word}_noise.safetensors" for word in ("high", "low"))
NODE = "app.graph.nodes.find(node => node.comfyClass === 'Wan22LoraPair')"
PLACE = """() => {
  const node = NODE, widget = node.widgets.find(w => w.name === 'lora_1');
  const box = app.canvas.canvas.getBoundingClientRect();
  const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10];
  const [x, y] = app.canvas.ds.convertOffsetToCanvas(middle);
  return [x + box.left, y + box.top] }""".replace("NODE", NODE)
SHOWN = """() => NODE.widgets.filter(widget => !widget.hidden && !widget.name.startsWith('wan22_'))
  .map(widget => [widget.name, widget.value])""".replace("NODE", NODE)
ON_PAGE = """() => [...document.querySelectorAll('[data-testid=node-widgets] [aria-label]')]
  .map(element => element.getAttribute('aria-label')).filter(name => /_[1-8]$/.test(name))"""
CAPTURE = "app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes2"])
def page(request, canvas):
    canvas.load(Comfy__VueNodes__Enabled=request.param, Comfy__Locale="en")
    canvas.vue = request.param
    return canvas


@pytest.fixture
def rows(page):
    """An experts loader, the node, and something that runs it."""
    page.page.evaluate("""() => { app.graph.clear();
        window.lastId = (window.lastId ?? 1000) + 10;  // the page remembers the values of an id it has seen
        const make = (type, x) => {
            const node = LiteGraph.createNode(type); node.id = window.lastId++; node.pos = [x, 0];
            app.graph.add(node); return node };
        const experts = make('Wan22ExpertLoader', 0), loras = make('Wan22LoraPair', 500);
        const shown = make('PreviewAny', 1100);
        ['high', 'low'].forEach((word, i) => {
            experts.widgets[i].value = `wan2.2_t2v_${word}_noise_14B_fp16.safetensors`;
            experts.connect(i, loras, i) });
        loras.connect(0, shown, 0); loras.setSize([480, loras.size[1]]); }""")
    page.page.wait_for_timeout(500)
    page.fit()
    page.errors.clear()
    yield page
    assert page.errors == []


def shown(page):
    return dict(page.page.evaluate(SHOWN))


def wait_for(page, names):
    """Rows show a moment after a value has changed; Nodes 2.0 has to show the same ones."""
    page.page.wait_for_function(
        f"names => JSON.stringify(({SHOWN})().map(([name]) => name)) === JSON.stringify(names)", arg=names, timeout=5000
    )
    if page.vue:
        page.page.wait_for_function(
            f"""names => {{ const there = new Set(({ON_PAGE})());
                return there.size === names.length && names.every(name => there.has(name)) }}""",
            arg=names,
            timeout=5000,
        )


def row(number):
    return [f"lora_{number}", f"strength_high_{number}", f"strength_low_{number}"]


def choose(page, file):
    """A file in the first row, with the mouse."""
    if page.vue:
        page.page.get_by_role("combobox", name="lora_1").click()
        page.page.get_by_role("option", name=file).click()
    else:
        page.page.mouse.click(*page.page.evaluate(PLACE))
        page.page.locator(".litemenu-entry", has_text=file).click()


def put(page, name, value):
    page.page.evaluate(
        f"([name, value]) => {{ {NODE}.widgets.find(widget => widget.name === name).value = value }}", [name, value]
    )


def sent(page):
    return next(node["inputs"] for node in page.prompt().values() if node["class_type"] == "Wan22LoraPair")


def test_choosing_half_of_a_pair_brings_the_other_half(rows):
    wait_for(rows, ["lora_1"])
    height = rows.page.evaluate(f"{NODE}.size[1]")
    choose(rows, HIGH)
    wait_for(rows, [*row(1), *row(2), "lora_3"])
    assert rows.page.evaluate(f"{NODE}.size[1]") > height
    values = shown(rows)
    assert [values[name] for name in (*row(1), *row(2))] == [HIGH, 1, 0, LOW, 0, 1]
    choose(rows, LOW)  # the two change places
    rows.page.wait_for_timeout(400)
    values = shown(rows)
    assert [values[name] for name in (*row(1), *row(2))] == [LOW, 0, 1, HIGH, 1, 0]
    put(rows, "lora_2", "none")
    wait_for(rows, [*row(1), "lora_2"])
    put(rows, "lora_1", "none")
    wait_for(rows, ["lora_1"])


def test_rows_that_are_not_used_are_not_sent_but_kept(rows):
    links = {"high_noise": sent(rows)["high_noise"], "low_noise": sent(rows)["low_noise"]}
    assert sent(rows) == links
    put(rows, "lora_3", HIGH)
    put(rows, "strength_high_3", -0.25)
    wait_for(rows, ["lora_1", "lora_2", *row(3), "lora_4"])
    assert sent(rows) == links | {"lora_3": HIGH, "strength_high_3": -0.25, "strength_low_3": 1}
    saved = rows.page.evaluate("app.graph.serialize()")
    (values,) = (node["widgets_values"] for node in saved["nodes"] if node["type"] == "Wan22LoraPair")
    assert len(values) == 24 and values[6:9] == [HIGH, -0.25, 1]
    before = rows.prompt()
    rows.page.evaluate("async workflow => { await app.loadGraphData(workflow) }", saved)
    wait_for(rows, ["lora_1", "lora_2", *row(3), "lora_4"])
    assert rows.prompt() == before


def test_a_linked_strength_keeps_its_row(rows):
    rows.page.evaluate(f"""() => {{ const value = LiteGraph.createNode('PrimitiveFloat'); app.graph.add(value);
        value.connect(0, {NODE}, {NODE}.inputs.findIndex(input => input.name === 'strength_low_2')) }}""")
    wait_for(rows, ["lora_1", *row(2), "lora_3"])
    assert isinstance(sent(rows)["strength_low_2"], list)
    rows.page.evaluate(f"{NODE}.disconnectInput({NODE}.inputs.findIndex(input => input.name === 'strength_low_2'))")
    wait_for(rows, ["lora_1"])


def test_a_node_that_takes_the_id_of_another(page):
    """Nodes 2.0 remembers the widgets of an id, so that a new node may begin with the rows of an old one."""
    for value in (HIGH, "none"):
        page.page.evaluate("""() => { app.graph.clear(); const node = LiteGraph.createNode('Wan22LoraPair');
            node.id = 77; app.graph.add(node) }""")
        page.fit()
        page.page.wait_for_timeout(600)
        put(page, "lora_1", value)
        wait_for(page, [*row(1), "lora_2"] if value == HIGH else ["lora_1"])


def test_undo_and_redo(rows):
    rows.page.evaluate(CAPTURE)
    put(rows, "lora_1", HIGH)
    rows.page.evaluate(CAPTURE)
    wait_for(rows, [*row(1), "lora_2"])
    for step, names in (("undo", ["lora_1"]), ("redo", [*row(1), "lora_2"])):
        rows.page.evaluate(f"app.extensionManager.workflow.activeWorkflow.changeTracker.{step}()")
        wait_for(rows, names)


def test_a_run_is_reported_in_the_node(rows):
    put(rows, "lora_1", HIGH)
    put(rows, "strength_high_1", 0.5 + 0.1 * rows.vue)  # another prompt for each renderer: what is cached says nothing
    rows.page.evaluate("app.queuePrompt(0)")
    rows.page.wait_for_function(
        "document.querySelector('.wan22-report')?.textContent.includes('tensors applied')", timeout=60_000
    )
    lines = rows.page.locator(".wan22-report > div").all_text_contents()
    assert len(lines) == 3 and lines[0].startswith(f"Warning: {HIGH} says that it is for the high-noise expert")
    rows.page.wait_for_timeout(500)
    hidden = rows.page.evaluate("""() => { const panel = document.querySelector('.wan22-report');
        return panel.scrollHeight - panel.clientHeight }""")
    assert hidden < 20
    assert set(sent(rows)) == {"high_noise", "low_noise", *row(1)}
    PICTURES.mkdir(parents=True, exist_ok=True)
    rows.picture(PICTURES / f"loras-{'nodes2' if rows.vue else 'classic'}.jpg")


def test_what_a_report_says_is_text(rows):
    rows.page.evaluate(f"{NODE}.onExecuted({{text: ['<img src=x onerror=window.hacked=1>', 7, null]}})")
    rows.page.wait_for_timeout(300)
    assert rows.page.locator(".wan22-report img").count() == 0 and rows.page.evaluate("window.hacked") is None
    rows.page.evaluate(f"{NODE}.onExecuted({{}})")
    assert rows.page.locator(".wan22-report > div").count() == 0


def test_the_plan_is_shown_in_its_node(page):
    page.page.evaluate("() => { app.graph.clear(); app.graph.add(LiteGraph.createNode('Wan22Plan')) }")
    page.page.evaluate("app.queuePrompt(0)")
    page.page.wait_for_function(
        "document.querySelector('.wan22-report')?.textContent.includes('26 high-noise + 14 low-noise steps')",
        timeout=60_000,
    )
