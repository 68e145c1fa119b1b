"""Write what follows from the schemas of the nodes: the English locale, and parts of every help page in both languages.

make canvas                                              # in another terminal
.venv/bin/python -m scripts.export_locales http://127.0.0.1:8188

English texts are those of the schemas; the Chinese ones stand in locales/zh/nodeDefs.json and are written by hand, as
is the prose of a help page around its title, its picture, the table of inputs and the list of outputs.
"""

import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULE = "custom_nodes.wan22-moe"
MOST_CHOICES = 10  # a help page lists fewer than these
WORDS = {
    "en": {
        "inputs": "Inputs",
        "outputs": "Outputs",
        "head": "| input | meaning and range |",
        "range": "{} to {}",
        "step": ", step {}",
        "default": "; default {}",
        "optional": ", optional",
        "file": "a file",
        "list": "by the list",
        "text": "text",
        "switch": "on or off",
        "states": ("off", "on"),
        "colon": ": ",
    },
    "zh": {
        "inputs": "输入",
        "outputs": "输出",
        "head": "| 输入 | 含义和取值 |",
        "range": "{} 至 {}",
        "step": "，步长 {}",
        "default": "；默认 {}",
        "optional": "，可选",
        "file": "文件",
        "list": "见列表",
        "text": "文本",
        "switch": "开或关",
        "states": ("关", "开"),
        "colon": "：",
    },
}


def own_schemas(object_info: dict) -> dict:
    """The nodes of this pack in a server's /object_info: id → schema."""
    return {name: schema for name, schema in object_info.items() if schema["python_module"] == MODULE}


def inputs_of(schema: dict) -> dict[str, tuple[str, dict, bool]]:
    """Name → (type, options, optional), in the order of the node."""
    kinds = ("required", "optional")
    return {
        name: (spec[0], spec[1], kind == "optional")
        for kind in kinds
        for name, spec in schema["input"].get(kind, {}).items()
    }


def is_file_choice(options: list[str]) -> bool:
    return all(option == "none" for option in options) or any(
        option.endswith((".safetensors", ".gguf")) for option in options
    )


def english(schemas: dict) -> dict:
    """`nodeDefs.json` in the words of the schemas."""
    texts = {}
    for node, schema in schemas.items():
        inputs = {}
        for name, (_, options, _) in inputs_of(schema).items():
            inputs[name] = {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
            if options.get("control_after_generate"):
                inputs["control_after_generate"] = {"name": "control after generate"}  # ComfyUI's own words
        outputs = {
            str(i): {"name": name, "tooltip": tooltip}
            for i, (name, tooltip) in enumerate(zip(schema["output_name"], schema["output_tooltips"], strict=True))
        }
        names = {"display_name": schema["display_name"], "description": schema["description"]}
        texts[node] = names | {"inputs": inputs, "outputs": outputs}
    return texts


def leaves(tree: dict, *path: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, text) of everything in a translation file."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, *path, key)
        else:
            yield (*path, key), value


def value_text(kind: str, options: dict, optional: bool, words: dict) -> str:
    """What an input takes: its range, choices or type, its default, and whether it may be left out."""
    default = options.get("default")
    if kind == "COMBO":
        choices = options["options"]
        named = ", ".join(f"`{choice}`" for choice in choices) if len(choices) < MOST_CHOICES else words["list"]
        text = words["file"] if is_file_choice(choices) else named
        default = f"`{default}`" if default is not None else None
    elif kind in ("INT", "FLOAT"):
        text = words["range"].format(number_text(options["min"]), number_text(options["max"]))
        text += words["step"].format(number_text(options["step"])) if options.get("step", 1) != 1 else ""
        default = number_text(default)
    elif kind == "BOOLEAN":
        text, default = words["switch"], words["states"][default]
    elif kind == "STRING":
        text, default = words["text"], f"`{default}`" if default else None
    else:
        text, default = kind, None
    text += words["default"].format(default) if default is not None else ""
    return text + (words["optional"] if optional else "")


def number_text(value: float) -> str:
    return "2⁶⁴ − 1" if value == 2**64 - 1 else f"{value:.10g}"


def is_further_row(name: str, inputs: dict) -> bool:
    """lora_2 where there is a lora_1: the help page has one line for rows alike."""
    first = re.sub(r"_[2-9]$", "_1", name)
    return first != name and first in inputs


def help_page(page: str, node: str, schema: dict, texts: dict, language: str) -> str:
    """A help page with the parts that follow from the schema written anew.

    Args:
        page: the whole page as it is.
        texts: the node's entry in the language's nodeDefs.json.
    """
    words, title = WORDS[language], texts["display_name"]

    def name_text(name: str, shown: str) -> str:
        return f"`{name}`" if shown in (name, "") else f"{shown} `{name}`"

    rows = [words["head"], "|---|---|"]
    inputs = inputs_of(schema)
    for name in (name for name in inputs if not is_further_row(name, inputs)):
        entry, value = texts["inputs"][name], value_text(*inputs[name], words)
        rows.append(f"| {name_text(name, entry['name'])} | {entry['tooltip']}<br>*{value}* |")
    outputs = []
    for i, (name, kind) in enumerate(zip(schema["output_name"], schema["output"], strict=True)):
        entry = texts["outputs"][str(i)]
        outputs.append(f"- {name_text(name, '' if name == kind else entry['name'])}{words['colon']}{entry['tooltip']}")
    for pattern, new in (
        (r"\A# .*\n", f"# {title}\n"),
        (r"^!\[.*\n", f"![{title}](images/{node}.jpg)\n"),
        (rf"^## {words['inputs']}\n\n(\|.*\n)+", "\n".join([f"## {words['inputs']}\n", *rows, ""])),
        (rf"^## {words['outputs']}\n\n(- .*\n)+", "\n".join([f"## {words['outputs']}\n", *outputs, ""])),
    ):
        page, count = re.subn(pattern, lambda _, new=new: new, page, flags=re.M)
        if count != 1:
            raise ValueError(f"the {language} help page of {node} has {count} parts like {pattern!r}; it needs one")
    return page


def derived_files(schemas: dict, root: Path = ROOT) -> dict[Path, str]:
    """Every file that follows from the schemas, wholly or in part, with the text that it should have."""
    texts = {"en": english(schemas), "zh": json.loads((root / "locales/zh/nodeDefs.json").read_text("utf-8"))}
    if lacking := dict(leaves(texts["en"])).keys() - dict(leaves(texts["zh"])).keys():
        raise ValueError("locales/zh/nodeDefs.json lacks " + ", ".join(sorted(".".join(path) for path in lacking)))
    files = {root / "locales/en/nodeDefs.json": json.dumps(texts["en"], indent=2, ensure_ascii=False) + "\n"}
    for node, schema in schemas.items():
        for language in WORDS:
            path = root / "web/docs" / node / f"{language}.md"
            files[path] = help_page(path.read_text("utf-8"), node, schema, texts[language][node], language)
    return files


def main(url: str) -> None:
    with urllib.request.urlopen(f"{url}/object_info") as answer:
        schemas = own_schemas(json.load(answer))
    try:
        files = derived_files(schemas)
    except ValueError as error:
        sys.exit(str(error))
    for path, text in files.items():
        if path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(*sys.argv[1:])
