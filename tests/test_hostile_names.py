"""Names come from models, and files are called what their authors like: none has an effect where it is shown."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from bnfold.cli import main

NAMES = {
    "terminal": "a\x1b]0;owned\x07\x1b[2J\x1b[31m",
    "one-byte control": "a\x9b31m\x7f\x00b"[:6],
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;",
    "attribute": '"\' onmouseover="alert(1)',
    "template": "{{ 7*7 }}{% raw %}",
    "lines": "a\nError: forged\r\nverified",
    "table": "a | b | c",
    "markdown": "[x](javascript:alert(1)) `code` **b** <b>",
    "direction": "a\u202etxt.exe\u2066\u200b",
    "rich markup": "[red]a[/red] [link=http://x]",
    "surrogate": "a\U0010ffff",
}


def hostile_model(name: str) -> onnx.ModelProto:
    """A site that folds, a site that stays, and everything else that a report may name, of this name."""
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.normal(size=(3, 3, 1, 1)).astype(np.float32), f"{name}w")]
    weights += [
        numpy_helper.from_array(rng.uniform(1, 2, 3).astype(np.float32), f"{name}{letter}") for letter in "gbmv"
    ]
    parameters = [f"{name}{letter}" for letter in "gbmv"]
    nodes = [
        helper.make_node("Conv", [f"{name}x", f"{name}w"], [f"{name}1"], name=f"{name}conv", doc_string=name),
        helper.make_node("BatchNormalization", [f"{name}1", *parameters], [f"{name}2"], name=f"{name}bn"),
        helper.make_node("Sigmoid", [f"{name}2"], [f"{name}3"], name=f"{name}sigmoid"),
        helper.make_node("BatchNormalization", [f"{name}3", *parameters], [f"{name}4"], name=f"{name}stays"),
        helper.make_node("Tanh", [f"{name}4"], [f"{name}y"], name=f"{name}tanh"),
    ]
    shape = [f"{name}n", 3, 4, 4]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(f"{name}x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"{name}y", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    model.producer_name = name
    model.metadata_props.add(key=name, value=name)
    return model


class Elements(HTMLParser):
    """The elements of a page with their attributes, and those whose text is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]


@pytest.mark.parametrize("kind", NAMES)
def test_names_are_shown_and_do_nothing(kind: str, tmp_path: Path) -> None:
    name = NAMES[kind]
    source = tmp_path / "m.onnx"
    onnx.save(hostile_model(name), source)
    pages = [tmp_path / f"r.{suffix}" for suffix in ("json", "md", "html")]
    arguments = ["convert", str(source), "--no-bench", *(f"--report={page}" for page in pages)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for text in (result.output, *(page.read_text("utf-8") for page in pages)):
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]", text) is None
        assert "\nError: forged" not in text
    report = json.loads(pages[0].read_bytes())
    assert {site["name"] for site in report["sites"]} == {f"{name}bn", f"{name}stays"}
    pages[0].read_bytes().decode("ascii")
    markdown = pages[1].read_text("utf-8")
    bare = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", markdown)  # code spans show what they hold as it is
    assert "<script" not in bare
    assert re.search(r"(?<!\\)\]\(javascript", bare) is None
    for table in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    page = Elements()
    page.feed(pages[2].read_text("utf-8"))
    assert page.scripts == 1
    assert page.handlers == []
    assert all(source.startswith("#") for source in page.sources)


@pytest.mark.parametrize("kind", ["terminal", "lines", "html"])
def test_files_of_such_names_end_in_one_neutral_line(kind: str, tmp_path: Path) -> None:
    name = NAMES[kind].replace("/", "_").replace("\x00", "")
    result = CliRunner().invoke(main, ["convert", str(tmp_path / f"{name}.onnx")])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.output
