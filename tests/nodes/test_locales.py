"""What the pages say in English and Chinese, against the schemas of a running server."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from scripts.browser import READY, find_chromium, open_canvas

ROOT = Path(__file__).parent.parent.parent
LANGUAGES = ("en", "zh")
FILES = ("nodeDefs", "main", "settings")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SAME = {"CLIP", "VAE", "clip", "vae"}  # words that Chinese users write as they are
FURTHER = re.compile(r"(lora|strength_high|strength_low)_[2-8]")  # rows that are like the first one
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


def leaves(tree: dict, *path: str):
    """(path, text) of everything in a translation file."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, *path, key)
        else:
            yield (*path, key), value


@pytest.fixture(scope="module")
def schemas(server) -> dict:
    """The nodes of this pack, as the server describes them."""
    info = server.get("/object_info")
    return {name: schema for name, schema in info.items() if schema["python_module"] == "custom_nodes.wan22-moe"}


def inputs_of(schema: dict) -> dict[str, dict]:
    return {name: spec[1] for kind in ("required", "optional") for name, spec in schema["input"].get(kind, {}).items()}


def documented(schema: dict) -> list[str]:
    """The inputs that have a line on the help page."""
    return [name for name in inputs_of(schema) if not FURTHER.fullmatch(name)]


def expected(schema: dict) -> dict:
    """The translation that says exactly what the schema says."""
    inputs = {}
    for name, options in inputs_of(schema).items():
        inputs[name] = {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
        if options.get("control_after_generate"):
            inputs["control_after_generate"] = {"name": "control after generate"}  # ComfyUI's own words
    outputs = {}
    for i, (name, tooltip) in enumerate(zip(schema["output_name"], schema["output_tooltips"])):
        outputs[str(i)] = {"name": name} | ({"tooltip": tooltip} if tooltip else {})
    names = {"display_name": schema["display_name"], "description": schema["description"]}
    return names | {"inputs": inputs, "outputs": outputs}


def test_english_is_the_schema(schemas):
    assert len(schemas) == 17
    assert read("en", "nodeDefs") == {name: expected(schema) for name, schema in schemas.items()}


@pytest.mark.parametrize("file", FILES)
def test_both_languages_say_the_same_things(file):
    english, chinese = (dict(leaves(read(language, file))) for language in LANGUAGES)
    assert set(english) == set(chinese) and all(english.values())
    for path, text in chinese.items():
        if text in SAME | NAMES:
            continue
        assert text != english[path] and CHINESE.search(text), path
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
            assert not set("<>{}|@") & set(plain), path
            assert not [key for key in path if "." in key], path


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_choice_that_can_be_translated_is(schemas, language):
    labels = read(language, "main")["wan22"]["combos"]
    own = set()
    for schema in schemas.values():
        for name, spec in (
            (n, s) for kind in ("required", "optional") for n, s in schema["input"].get(kind, {}).items()
        ):
            options = spec[1].get("options") if spec[0] == "COMBO" else spec[0] if isinstance(spec[0], list) else None
            options = [o for o in options or () if not o.endswith(".safetensors") and "/" not in o]
            own |= set(options if len(options) < 10 else [o for o in options if o.startswith("official")])
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
    for name, schema in schemas.items():
        address = f"{server.url}/extensions/wan22-moe/docs"
        with urllib.request.urlopen(f"{address}/{name}/{language}.md") as answer:
            page = answer.read().decode()
        title = read(language, "nodeDefs")[name]["display_name"]
        assert page.startswith(f"# {title}\n")
        rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ") and "`" in line]
        assert [re.search("`(.+)`", row)[1] for row in rows] == documented(schema), name
        for output in schema["output_name"]:
            assert f"`{output}`" in page, f"{name}: {output}"
        (picture,) = re.findall(r"!\[.+\]\((.+)\)", page)
        assert picture == f"images/{name}.jpg"  # relative to docs, which is where the page resolves it
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


def test_ranges_on_the_pages_are_those_of_the_schemas(schemas):
    for name, schema in schemas.items():
        english, chinese = ((ROOT / "web" / "docs" / name / f"{lang}.md").read_text("utf-8") for lang in LANGUAGES)
        for key, options in inputs_of(schema).items():
            if "min" in options and key != "seed" and not FURTHER.fullmatch(key):
                low, high = f"{options['min']:g}", str(options["max"]).removesuffix(".0")
                assert re.search(rf"\| `{key}` \|.*\*{low} to {high}\b.*default {options['default']:g}\b", english), key
                assert re.search(rf"`{key}` \|.*\*{low} 至 {high}\b.*默认 {options['default']:g}\b", chinese), key


def test_the_readmes_link_to_each_other_and_have_the_same_parts():
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh.md"))
    assert "(README.zh.md)" in english.split("\n## ")[0] and "(README.md)" in chinese.split("\n## ")[0]
    for pattern in (r"^#+ ", r"^\|", r"^- \*\*", r"```", r"!\["):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern
    blocks = [re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M) for text in (english, chinese)]
    commands = [[re.sub("#.*", "", block).split() for block in found if "─" not in block] for found in blocks]
    assert len(commands[0]) == 6 and commands[0] == commands[1]


SHOWN = """names => Object.fromEntries(names.map(name => {
  const node = LiteGraph.createNode(name);
  const word = slot => slot.label ?? slot.localized_name ?? slot.name;
  const inputs = [...node.inputs ?? [], ...node.widgets ?? []].filter(input => !input.name.startsWith('wan22_')).map(input => [input.name, word(input)]);
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
                for i, (word, kind) in enumerate(zip(outputs, schemas[name]["output"])):
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
