"""What the pages say in English and Chinese, against the schemas of a running server."""

import copy
import json
import re
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from scripts.browser import READY, find_chromium, open_canvas
from scripts.export_locales import derived_files, inputs_of, leaves, own_schemas
from wan_core.config import PRESETS

ROOT = Path(__file__).parent.parent.parent
LANGUAGES = ("en", "zh")
FILES = ("nodeDefs", "main", "settings")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SAME = {"CLIP", "VAE", "clip", "vae", "Latent", "Sigmas"}  # words that Chinese users write as they are
LONGEST = 200  # letters of a tooltip
NAMES = {  # of models, samplers and files
    "5B",
    "VACE-A14B",
    "DPM++ 2M",
    "Euler",
    "Wan 2.1 VACE-14B",
    "Wan 2.1 VACE-1.3B",
    "Wan 2.2",
}


def read(language: str, name: str) -> dict:
    return json.loads((ROOT / "locales" / language / f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def schemas(server) -> dict:
    """The nodes of this pack, as the server describes them."""
    return own_schemas(server.get("/object_info"))


def test_files_are_what_the_schemas_say(schemas):
    assert len(schemas) == 17
    for path, text in derived_files(schemas).items():
        assert path.read_text("utf-8") == text, "python -m scripts.export_locales has not been run"


def test_a_changed_input_changes_the_files(schemas):
    changed = copy.deepcopy(schemas)
    changed["Wan22MoEKSampler"]["input"]["required"]["steps"][1].update(max=7, tooltip="Other words.")
    before, after = derived_files(schemas), derived_files(changed)
    new = {str(path.relative_to(ROOT)): text for path, text in after.items() if text != before[path]}
    pages = {language: f"web/docs/Wan22MoEKSampler/{language}.md" for language in LANGUAGES}
    assert set(new) == {"locales/en/nodeDefs.json", *pages.values()}
    assert "| `steps` | Other words.<br>*1 to 7; default 40* |\n" in new[pages["en"]]
    assert "*1 至 7；默认 40* |\n" in new[pages["zh"]] and "Other words" not in new[pages["zh"]]


def test_an_input_without_chinese_words_is_named(schemas):
    changed = copy.deepcopy(schemas)
    changed["Wan22Solver"]["input"]["required"]["order"] = [
        "INT",
        {"min": 1, "max": 3, "default": 2, "tooltip": "Order."},
    ]
    with pytest.raises(ValueError, match=re.escape("zh/nodeDefs.json lacks Wan22Solver.inputs.order.name")):
        derived_files(changed)


@pytest.mark.parametrize("file", FILES)
def test_both_languages_say_the_same_things(file):
    english, chinese = (dict(leaves(read(language, file))) for language in LANGUAGES)
    assert set(english) == set(chinese) and all(english.values())
    for path, text in chinese.items():
        if text in SAME | NAMES:
            continue
        assert text != english[path] and CHINESE.search(text), (
            f"{path}: not translated; names of files, models and methods go into NAMES"
        )
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", english[path])), path


def test_one_word_for_one_thing():
    """An input of one name has one Chinese name throughout, but for what differs between nodes."""
    differ = {"positive", "negative", "samples", "latent_image"}  # texts in the prompt node, conditions elsewhere
    names: dict[str, set[str]] = {}
    for node in read("zh", "nodeDefs").values():
        for key, entry in node["inputs"].items():
            names.setdefault(key, set()).add(entry["name"])
    assert {key: found for key, found in names.items() if len(found) > 1 and key not in differ} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_are_safe_for_the_page(language):
    """No markup, and no sign that the message format would read as its own."""
    for file in FILES:
        for path, text in leaves(read(language, file)):
            plain = re.sub(r"\{\w+\}", "", text) if path[:2] == ("wan22", "plot") else text
            assert not set("<>{}|@`") & set(plain), path
            assert path[-1] != "tooltip" or len(text) <= LONGEST, path
            assert not [key for key in path if "." in key], path


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_choice_that_can_be_translated_is(schemas, language):
    labels = read(language, "main")["wan22"]["combos"]
    own = set()
    for schema in schemas.values():
        for _, spec, _ in inputs_of(schema).values():
            options = [o for o in spec.get("options", ()) if not o.endswith(".safetensors") and "/" not in o]
            ours = len(options) < 10 or set(options) <= set(
                PRESETS
            )  # longer lists are ComfyUI's samplers and schedulers
            own |= set(options if ours else [o for o in options if o.startswith("official")])
    assert {option.replace(".", "_") for option in own} == set(labels)


def test_settings_are_keyed_by_their_id():
    for language in LANGUAGES:
        settings = read(language, "settings")
        assert set(settings) == {"Wan22_Plot_Show", "Wan22_Preview_Clip"}
        assert all(set(entry) == {"name", "tooltip"} for entry in settings.values())


def test_the_server_hands_them_out(server):
    given = server.get("/i18n")
    for language in LANGUAGES:
        for file in ("nodeDefs", "settings"):
            assert given[language][file].items() >= read(language, file).items()
        assert given[language].items() >= read(language, "main").items()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_with_its_picture(server, schemas, language):
    address = f"{server.url}/extensions/wan22-moe/docs"
    titles = {texts["display_name"] for texts in read(language, "nodeDefs").values()}
    for name in schemas:
        with urllib.request.urlopen(f"{address}/{name}/{language}.md") as answer:
            page = answer.read().decode()
        (picture,) = re.findall(r"!\[.+\]\((.+)\)", page)  # relative to docs, which is where the page resolves it
        assert set(re.findall(r"\*((?:Load |加载 )?Wan 2\.2 [^*]+)\*", page)) <= titles
        with urllib.request.urlopen(f"{address}/{picture}") as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"
            body = answer.read()
        assert len(body) < 40_000
    pages = {path.parent.name for path in (ROOT / "web" / "docs").glob("*/*.md")}
    pictures = {path.stem for path in (ROOT / "web" / "docs" / "images").iterdir()}
    assert pages == pictures == set(schemas)


def test_pictures_are_what_they_seem():
    for path in (ROOT / "web" / "docs" / "images").glob("*.jpg"):
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and 300 < picture.width < 1000 and picture.height < 1600
            # The border below the node is the page: a picture that was cut off ends inside the node.
            middle = [picture.convert("L").getpixel((picture.width // 2, picture.height - y)) for y in (2, 20)]
            assert middle[0] < middle[1], path.name


SHOWN = """names => Object.fromEntries(names.map(name => {
  const node = LiteGraph.createNode(name);
  const word = slot => slot.label ?? slot.localized_name ?? slot.name;
  const inputs = [...node.inputs ?? [], ...node.widgets ?? []].filter(input => !input.name.startsWith('wan22_'))
    .map(input => [input.name, word(input)]);
  return [name, [node.title, Object.fromEntries(inputs), (node.outputs ?? []).map(word)]];
}))"""
OPEN = """name => {  // a page that is still starting up may put another graph in place
  const info = document.querySelector('[data-testid=info-button]');
  let node = app.graph.nodes.find(node => node.type === name);
  if (info && node?.selected) { info.click(); return true; }
  if (!node) { node = LiteGraph.createNode(name); node.pos = [200, 300]; app.graph.add(node); }
  app.canvas.selectNode(node);
  app.canvas.setDirty(true, true);
  return false;
}"""
TRANSLATE = "([key, values]) => document.getElementById('vue-app').__vue_app__.config.globalProperties.$t(key, values)"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_them(server, schemas, language):
    if find_chromium() is None:
        pytest.skip("NO CHROMIUM FOUND: the texts are not looked at on a page. Install the package chromium.")
    texts, plot = read(language, "nodeDefs"), read(language, "main")["wan22"]["plot"]
    with open_canvas(server.url) as canvas:
        page = canvas.page
        page.evaluate(
            "async language => { await app.extensionManager.setting.set('Comfy.Locale', language) }", language
        )
        try:
            page.reload()
            page.wait_for_function(READY, timeout=120_000)
            for name, (title, inputs, outputs) in page.evaluate(SHOWN, list(schemas)).items():
                assert title == texts[name]["display_name"]
                assert inputs == {key: entry["name"] for key, entry in texts[name]["inputs"].items()}
                for i, (word, kind) in enumerate(zip(outputs, schemas[name]["output"], strict=True)):
                    own = schemas[name]["output_name"][i] != kind  # the page has its own words for types
                    assert not own or word == texts[name]["outputs"][str(i)]["name"]
            said = page.evaluate(TRANSLATE, ["wan22.plot.counts", {"high": 26, "low": 14}])
            assert said == plot["counts"].format(high=26, low=14)
            page.wait_for_function(OPEN, arg="Wan22MoEKSampler", polling=300)
            page.wait_for_function(
                "document.querySelector('.node-help-content img')?.naturalWidth > 300", timeout=10_000
            )
            assert page.inner_text(".node-help-content h1") == texts["Wan22MoEKSampler"]["display_name"]
            assert page.locator(".node-help-content tbody tr").count() == len(inputs_of(schemas["Wan22MoEKSampler"]))
        finally:
            page.evaluate("async () => { await app.extensionManager.setting.set('Comfy.Locale', 'en') }")
