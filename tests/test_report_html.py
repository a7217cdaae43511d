"""The HTML page, read as text: what it says, that names stay text, and that it asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from test_report import CONVERTED, DIFFERENT, FASTER, FOLDED, INSPECTED, OUTPUT, SAME_SPEED, VERIFIED, kept

from bnfold.report import as_html, charts, drawing, measures
from bnfold.results import (
    Border,
    BorderOutput,
    Certificate,
    Comparison,
    Counts,
    Culprit,
    Environment,
    Explanation,
    Latency,
    Operator,
    OutputDifference,
    Quantiles,
    Report,
    Site,
    Verification,
)

BORDER = Border(
    False,
    "PyTorch in float64",
    ("PyTorch", "ONNX model", "folded model"),
    (BorderOutput("y", False, 1e-4, 0.25, 1e-6, 0.25, 0.25),),
)
VOID = {"meta", "input", "br", "link", "img", "path", "rect", "use"}
DRAWN = replace(
    FOLDED,
    through=("Transpose",),
    operators=(
        Operator("conv1", "Conv", "absorbs", (), 1),
        Operator("t", "Transpose", "crossed", (0,)),
        Operator("bn1", "BatchNormalization", "site", (1,), 0, 1),
    ),
)
QUANTILES = tuple(1.0 + at / 100 for at in range(101))
SHOWN = replace(
    CONVERTED,
    sites=(DRAWN, *CONVERTED.sites[1:]),
    reasons=(Explanation("shared-value", "Somebody else reads it.", "Nothing helps."),),
    latency=(replace(FASTER, before_quantiles_ms=QUANTILES, after_quantiles_ms=QUANTILES), SAME_SPEED),
    environment=Environment("Linux", "a processor", 2, 0.5, "3.11", "2.0", "1.20"),
)


class Page(HTMLParser):
    """A page taken apart; every element that is opened must be closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and all(attrs.get(key.rstrip("_")) == value for key, value in wanted.items())
        ]


def page_of(result: Report | Comparison) -> Page:
    return Page(as_html.dumps(result))


def test_a_conversion_says_its_verdicts_first() -> None:
    text = page_of(SHOWN).text
    answers = ("1 of 4", "Yes", "No measurable difference", "CPU, not optimised: 1.30 times the speed")
    places = [text.index(answer) for answer in answers]
    assert places == sorted(places)
    assert places[-1] < text.index("What the model holds")
    assert "3 stay" not in text
    assert "2 stay: shared-value" in text


def test_every_part_of_a_conversion_is_there() -> None:
    page = page_of(SHOWN)
    expected = (
        "40 36 −4",  # noqa: RUF001
        "2.35 MB 2.30 MB −1.9 %",  # noqa: RUF001
        "12.35 ms 9.50 ms −23.0 %",  # noqa: RUF001
        "200 timed runs of each model",
        "Verified: the folded model is the same function",
        "Noise floor 1.0e-06",
        "the file x.npy",
        "The weights are in another file.",
        "Somebody else reads it. What to do: Nothing helps.",
        "a processor, 2 cores",
        "ab" * 32,
        "models/net.folded.onnx",
    )
    for text in expected:
        assert text in page.text
    # The distribution of one row, the ratios of both, the errors of the output.
    assert len(page.all("svg", class_="chart")) == 4
    assert [attrs["data-status"] for attrs in page.all("details", class_="site")] == [
        site.status for site in SHOWN.sites
    ]
    assert page.all("a", href="#reason-shared-value")
    assert page.all("div", id="reason-shared-value")


@pytest.mark.parametrize(
    ("result", "present", "absent"),
    [
        (INSPECTED, ("1 of 4", "BatchNorms that would fold", "would fold"), ("Faster?", "Same function?", "after")),
        (
            replace(INSPECTED, sites=(), before=Counts(0, 3, 1, 40)),
            ("None found", "No BatchNorm found"),
            ("Every BatchNorm", "Why BatchNorms stay"),
        ),
        (replace(CONVERTED, verification=None, latency=()), ("Not checked", "Not measured"), ("NOT verified",)),
        (
            replace(CONVERTED, output_path=None, verification=DIFFERENT, latency=()),
            ("Nothing was written.", "1 of 2 outputs beyond the tolerance", "NaN in other places", "bn7, bn8"),
            ("> Yes <",),
        ),
        (
            replace(CONVERTED, verification=Verification(True, "the output is the input", ()), latency=()),
            ("Yes", "the output is the input"),
            ("Largest error",),
        ),
        (Comparison("1", "dir/a.onnx", "b.onnx", VERIFIED), ("a.onnx and b.onnx", "Yes"), ("Faster?", "Every Batch")),
        (Comparison("1", "a.onnx", "b.onnx", None, (FASTER,)), ("1.30 times the speed",), ("Same function?",)),
        (
            replace(CONVERTED, verification=replace(VERIFIED, depth=(("/conv/out", 1e-7), ("/relu/out", 2e-7)))),
            ("Error on the way through the model", "The 2 values", "/relu/out 2.0e-07"),
            ("From PyTorch",),
        ),
        (
            replace(CONVERTED, verification=replace(VERIFIED, border=BORDER)),
            (
                "The ONNX model does NOT compute what PyTorch does",
                "Largest errors, against PyTorch in float64",
                "2.5e-01",
            ),
            ("> No <",),
        ),
        (
            replace(CONVERTED, latency=(replace(SAME_SPEED, minimum_effect=0.5, disturbed_segments=3, segments=4),)),
            ("Not measured well", "3 of 4 segments dropped", "Differences of 50.0 % and more are found"),
            ("No measurable difference of",),
        ),
        (
            replace(CONVERTED, latency=(replace(FASTER, ratio=0.5, ci95=(0.4, 0.6), verdict="slower"),)),
            ("0.50 times the speed",),
            ("No measurable",),
        ),
    ],
    ids=[
        "plan",
        "no BatchNorm",
        "no checks",
        "failed",
        "a copy",
        "verify",
        "bench",
        "depth",
        "border",
        "disturbed",
        "slower",
    ],
)
def test_what_is_there_is_said_and_what_is_not_is_left_out(
    result: Report | Comparison, present: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    text = page_of(result).text
    for words in present:
        assert words in text
    for words in absent:
        assert words not in text


HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}$x^2$\x1b[31m\u202e\n--><!--</svg></style>"


def hostile(value: Any) -> Any:
    """The same result with every text in it that a model or a user may have chosen made hostile."""
    if isinstance(
        value, (Site, Operator, OutputDifference, Border, BorderOutput, Culprit, Verification, Report, Explanation)
    ):
        kept_as_is = {"op", "status", "direction", "role", "reason", "version"} - (
            {"op"} if isinstance(value, Operator) else set()
        )
        changes = {
            field.name: hostile(getattr(value, field.name)) for field in fields(value) if field.name not in kept_as_is
        }
        return replace(value, **changes)
    if isinstance(value, tuple):
        return tuple(map(hostile, value))
    return HOSTILE if isinstance(value, str) else value


def test_no_name_becomes_markup() -> None:
    verification = replace(
        VERIFIED, culprits=(Culprit("s", 0.1, (("a", 0.1), ("b", 0.2))),), taken_back=("t",), border=BORDER
    )
    result = hostile(replace(SHOWN, verification=verification))
    page = page_of(result)
    assert len(page.all("script")) == 1
    assert page.text.count("<script>alert(1)</script>\"'&{{ 7*7 }}$x^2$\\x1b[31m\\u202e\\n--><!--") > 20
    assert not {"\x1b", "\u202e"} & set(page.source)
    plain = page_of(replace(SHOWN, verification=verification))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]


def test_a_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    page = page_of(SHOWN)
    for _, attrs in page.tags:
        assert not {"src", "srcset", "data", "action", "onclick", "onload"} & attrs.keys()
        for key in ("href", "xlink:href"):
            assert (attrs.get(key) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)", page.source)
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for attrs in page.all("meta", **{"http-equiv": "Content-Security-Policy"})]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert f"'sha256-{digest}'" in policy


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = page_of(SHOWN)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(attrs[key])[1:] for _, attrs in page.tags for key in ("href", "xlink:href") if key in attrs}
    assert targets | set(re.findall(r"url\(#([^)]*)\)", page.source)) <= set(ids)


def test_the_same_result_gives_the_same_page() -> None:
    assert as_html.dumps(SHOWN) == as_html.dumps(SHOWN)


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (
            Certificate("proven", 1e-16, 5e-8),
            "is equal to what was there (relative error 1.0e-16, its constants rounded",
        ),
        (Certificate("failed", 0.5), "is NOT equal to what was there (relative error 5.0e-01)."),
        (Certificate("not run", detail="Loop is not read"), "was not run in float64: Loop is not read."),
    ],
)
def test_certificates_stand_with_their_sites(proof: Certificate, words: str) -> None:
    assert words in page_of(replace(SHOWN, sites=(replace(DRAWN, certificate=proof),))).text


def test_drawings_of_one_shape_stand_in_the_page_once_and_large_accounts_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = replace(SHOWN, sites=tuple(replace(DRAWN, name=f"bn{i}") for i in range(30)))
    page = page_of(many)
    assert len(page.all("symbol")) == 2
    assert len(page.all("use", href="#g0")) == len(page.all("use", href="#g1")) == 30
    monkeypatch.setattr(as_html, "MOST_DRAWN", 10)
    assert len(page_of(many).all("use", href="#g0")) == 10


# Drawings


def shape(vertices: tuple[drawing.Vertex, ...]) -> str:
    return " ".join(
        f"{'>' * vertex.from_outside}{vertex.number}:{vertex.style}({','.join(map(str, vertex.reads))})"
        f"{'>' * vertex.to_outside}"
        for vertex in vertices
    )


def test_after_a_fold_the_readers_of_the_site_read_what_it_read() -> None:
    assert shape(drawing.before(DRAWN)) == ">1:plain() 2:crossed(0) 3:goes(1)>"
    assert shape(drawing.after(DRAWN)) == ">1:absorbs() 2:crossed(0)>"


def test_a_fold_downward_and_one_that_needs_an_addition() -> None:
    site = replace(
        FOLDED,
        operators=(
            Operator("bn", "BatchNormalization", "site", (), 1),
            Operator("m", "MatMul", "absorbs", (0,), 0, 1, gains_bias=True),
            Operator("c", "Conv", "absorbs", (0,), 0, 1),
        ),
    )
    assert shape(drawing.before(site)) == ">1:goes() 2:plain(0)> 3:plain(0)>"
    assert shape(drawing.after(site)) == ">2:absorbs() +:new(0)> >3:absorbs()>"


def test_a_site_that_stays_is_drawn_with_what_is_in_its_way() -> None:
    site = replace(
        kept("bn", "shared-value", "pool", "x"),
        operators=(
            Operator("pool", "MaxPool", "blocks", (), 1, 2),
            Operator("bn", "BatchNormalization", "site", (0,), 0, 1),
        ),
    )
    assert shape(drawing.before(site)) == ">1:blocks()> 2:stays(0)>"


def vertex(label: str, *reads: int) -> drawing.Vertex:
    return drawing.Vertex("1", label, "plain", reads, False, False)


@pytest.mark.parametrize(
    "vertices",
    [
        [vertex("Conv")],
        [vertex("Conv"), vertex("Relu", 0), vertex("Add", 0, 1)],
        [vertex("A"), vertex("B", 0), vertex("C", 1), vertex("D", 0, 2), vertex("E", 0), vertex("F", 3, 4)],
        [vertex("Concat"), *(vertex("BatchNormalization", 0) for _ in range(12))],
        [*(vertex("Conv") for _ in range(5)), vertex("Sum", 0, 1, 2, 3, 4)],
    ],
    ids=["one", "skip", "two ways", "fan out", "fan in"],
)
def test_boxes_stand_apart_inside_the_drawing_below_what_they_read(vertices: list[drawing.Vertex]) -> None:
    drawn = drawing.draw(vertices)
    assert [box.vertex for box in drawn.boxes] == vertices
    for box in drawn.boxes:
        assert box.width / 2 <= box.x <= drawn.width - box.width / 2
        assert drawing.BOX_HEIGHT / 2 <= box.y <= drawn.height - drawing.BOX_HEIGHT / 2
        for read in box.vertex.reads:
            assert drawn.boxes[read].y + drawing.BOX_HEIGHT < box.y
        for other in drawn.boxes:
            apart = abs(box.x - other.x) >= (box.width + other.width) / 2 or box.y != other.y
            assert other is box or apart
    assert len(drawn.edges) == sum(len(item.reads) for item in vertices)


# Charts


@pytest.mark.parametrize(
    "row",
    [
        replace(FASTER, before_quantiles_ms=(5.0,) * 101, after_quantiles_ms=(5.0,) * 101),
        replace(FASTER, before_quantiles_ms=(0.0,) * 101, after_quantiles_ms=(0.0,) * 101),
        replace(FASTER, before_quantiles_ms=QUANTILES, after_quantiles_ms=tuple(1e6 * q for q in QUANTILES)),
    ],
    ids=["constant", "zero", "far apart"],
)
def test_every_distribution_can_be_drawn(row: Latency) -> None:
    assert charts.distribution(row).startswith("<svg")


@pytest.mark.parametrize(
    ("low", "high"), [(0.0200, 0.0220), (0.00514, 0.00515), (0.0286, 0.0307), (11.4967, 11.5084), (20725.1, 20745.1)]
)
def test_every_tick_of_a_narrow_distribution_has_a_label_of_its_own(low: float, high: float) -> None:
    """No two alike, none that is to be added to another number, and all of them side by side on the axis."""
    narrow = tuple(low + (high - low) * at / 100 for at in range(101))
    chart = charts.distribution(replace(FASTER, before_quantiles_ms=narrow, after_quantiles_ms=narrow))
    *labels, axis = re.findall(r"<text [^>]*>([^<]*)</text>", chart)
    assert axis == "time of one run [ms]"
    assert len(labels) > 2
    assert len({float(label) for label in labels}) == len(labels)
    assert all(low - 0.1 * (high - low) <= float(label) <= high + 0.1 * (high - low) for label in labels)
    at = [float(x) for x in re.findall(r'<text [^>]*?(?:x="|translate\()([\d.]+)[^>]*>[\d.]+</text>', chart)]
    assert len(at) == len(labels)
    width = 0.6 * 10 * max(map(len, labels))  # digits of a sans-serif face are about 0.56 of its 10 px wide
    assert all(right - left > width for left, right in pairwise(at))


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (10.0, 9.0, "−10.0 %"),  # noqa: RUF001
        (10.0, 10.001, "0.0 %"),
        (10.0, 15.0, "+50.0 %"),
        (0.05, 12.5, "250 times"),
        (0.0, 1.0, ""),
    ],
)
def test_a_change_is_told_as_people_tell_it(before: float, after: float, change: str) -> None:
    rows = measures.of_latency(replace(FASTER, before_p99_ms=before, after_p99_ms=after))
    assert [row.change for row in rows if row.label.startswith("99 %")] == [change]


@pytest.mark.parametrize("values", [[1e-6, 1e-6], [1e-38, 1e38], [0.0, 1e-7, 2e-7]])
def test_errors_down_the_graph_are_drawn_with_powers_of_ten_on_both_sides(values: list[float]) -> None:
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", charts.growth(values))
    assert sum(bool(re.fullmatch(r"1e[+-]\d+", label)) for label in labels) >= 2
    assert not [label for label in labels if "." in label]  # places are whole numbers


def test_what_cannot_be_drawn_is_left_out() -> None:
    assert charts.distribution(FASTER) == ""
    seldom = replace(FASTER, runs=3, before_quantiles_ms=QUANTILES, after_quantiles_ms=QUANTILES)
    assert charts.distribution(seldom) == ""
    assert charts.ratio(replace(FASTER, ci95=(float("nan"), 1.0))) == ""
    assert charts.growth([0.0, 1e-3]) == ""
    assert charts.growth([1e-300, 1e300, float("inf")]) == ""
    assert charts.error_limits([replace(OUTPUT, max_abs=0.0, tolerance=0.0, noise_floor=0.0)]) is None


@pytest.mark.parametrize(
    "output",
    [
        OUTPUT,
        replace(OUTPUT, max_abs=float("inf"), passed=False),
        replace(OUTPUT, max_abs=0.0, noise_floor=None),
        replace(OUTPUT, abs_error=Quantiles(0.0, 1e-9, 1e-7, 1e-6)),
    ],
)
def test_errors_of_every_size_can_be_drawn(output: OutputDifference) -> None:
    limits = charts.error_limits([output])
    assert limits is not None
    assert limits[0] < OUTPUT.tolerance < limits[1]
    assert charts.errors(output, limits).startswith("<svg")


def test_charts_leave_the_settings_of_other_figures_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    charts.ratio(FASTER)
    assert dict(matplotlib.rcParams) == before
