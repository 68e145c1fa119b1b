"""What both READMEs and the pages under docs state and link to is there."""

import re
from pathlib import Path

import pytest
import torch

from wan_core.config import PRESETS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "README.zh.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
CHINESE = sorted((ROOT / "docs" / "zh").glob("*.md"))
GIB = 2**30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_a_readme_is_read_in_one_sitting(name):
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= 130


PAIRS = [("README.md", "README.zh.md"), *((f"docs/{page.name}", f"docs/zh/{page.name}") for page in CHINESE)]


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_both_languages_have_the_same_parts(names):
    english, chinese = ((ROOT / name).read_text("utf-8") for name in names)
    assert "简体中文](" in english.split("\n## ")[0] and "[English](" in chinese.split("\n## ")[0]
    for pattern in (r"^#+ ", r"^\|", r"^- ", r"```", r"!\["):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern
    blocks = [re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M) for text in (english, chinese)]
    commands = [[re.sub("#.*", "", block).split() for block in found] for found in blocks]
    assert commands[0] == commands[1]


def test_chinese_pages_use_one_word_for_one_thing():
    words = {"示例模型": "演示模型", "潜变量": "Latent", "潜空间": "Latent", "噪声表": "调度", "调度器": "调度"}
    for page in [ROOT / "README.zh.md", *CHINESE, *(ROOT / "web" / "docs").glob("*/zh.md")]:
        text = page.read_text("utf-8")
        assert {word: better for word, better in words.items() if word in text} == {}, page


def test_no_line_breaks_within_chinese_paragraphs():
    for page in [ROOT / "README.zh.md", *CHINESE]:
        prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.S | re.M)
        assert not re.search(r"^[^\s#|!`-].*\n[^\s#|!`-]", prose, re.M), page


def test_one_place_says_where_the_project_is():
    """The address of the repository and the name in the registry are those of pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    address = re.search(r'^Repository = "(.+)"$', project, re.M)[1]
    name = re.search(r'^name = "(.+)"$', project, re.M)[1]
    for readme in ("README.md", "README.zh.md"):
        text = (ROOT / readme).read_text("utf-8")
        assert f"git clone {address}\n" in text and f"comfy node install {name}`" in text
    for page in PAGES:
        assert set(re.findall(r"git clone (\S+)", page.read_text("utf-8"))) <= {address}, page


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_table_of_models_is_the_plan(name):
    rows = [line for line in (ROOT / name).read_text("utf-8").splitlines() if line.startswith("| `")]
    rows = {row.split("`")[1]: row for row in rows if row.split("`")[1] in PRESETS}
    assert len(rows) >= 4
    for preset, row in rows.items():
        assert row == model_row(preset)


def model_row(name: str) -> str:
    from wan_core.pipeline import Options, Request
    from wan_core.pipeline.estimate import estimate_memory

    preset = PRESETS[name]
    request = Request.resolve(preset, Options())
    memory = estimate_memory(preset, request.shape, torch.bfloat16)
    high = request.plan().count("high")
    steps = f"{high} + {request.steps - high}" if preset.two_experts else f"{request.steps}"
    text, expert, sampling, decoding, peak = (
        f"{size / GIB:.1f}"
        for size in (memory.text_encoder, memory.expert, memory.sampling, memory.decoding, memory.peak)
    )
    shape, boundary = request.shape, f"{preset.boundary:g}" if preset.two_experts else "–"
    return (
        f"| `{name}` | {shape.width}×{shape.height} × {shape.frames} | {steps} | {boundary} | {preset.shift:g} | "
        f"{text} | {expert} | + {sampling} | {decoding} | {peak} |"
    )
