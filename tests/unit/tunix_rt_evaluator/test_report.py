"""Reports as documents."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from support.comparison import answered, finished, sampled, some_comparison, some_items
from tunix_rt_evaluator.comparisons.model import ComparisonContent, ComparisonReport, Run
from tunix_rt_evaluator.comparisons.pairing import compared
from tunix_rt_evaluator.convert import report_message
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.evaluations.model import Decoding, ItemResult
from tunix_rt_evaluator.grading.graders.numeric import NumericGrader
from tunix_rt_evaluator.report import words
from tunix_rt_evaluator.report.html import accuracy_chart, category_chart, length_chart, loss_chart
from tunix_rt_evaluator.report.repository import DOCUMENTS

NAME, DIGEST = "comparisonReports/abc", "sha256:content"
TESTS = Path(__file__).parents[2]
FIRST_REVISION = {"base", "candidate", "verdict", "overall", "categories", "flips", "training"}


@pytest.fixture(scope="module")
def content() -> ComparisonContent:
    return some_comparison(count=30)


def render(kind: str, content: ComparisonContent) -> str:
    return DOCUMENTS[kind].render(NAME, DIGEST, content)


def run(name: str, results: list[ItemResult]) -> Run:
    return Run.of(finished(name, results), results)


def hostile() -> ComparisonContent:
    """Prompts, ids and outputs that try to break out of every document."""
    item = EvalItem(
        id="a|b `c`",
        prompt="What is <b>2</b> + 2 | 3?\n```\n# no heading",
        accepted_answers=("4",),
        grader=NumericGrader(),
        category='x"><script>alert(1)</script>',
    )
    before = answered(item, 0, right=False, style="plain")
    after = answered(item, 0, right=True, style="tuned")
    text = "</pre><script>alert(2)</script>\n````\nAnswer: 4"
    after = after.model_copy(update={"generation": after.generation.model_copy(update={"output": text})})
    others = [answered(other, 1, right=True, style="plain") for other in some_items(2)]
    return compared([run("a", [before, *others])], [run("b", [after, *others])])


class Balance(HTMLParser):
    """Fails on a tag that is closed without having been opened; collects ids and what is loaded."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.loaded += [str(values[name]) for name in ("src", "href") if values.get(name)]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("make", [some_comparison, hostile])
def test_html_is_one_file_that_loads_nothing(make: type[ComparisonContent]) -> None:
    text = render("html", make())
    page = Balance()
    page.feed(text)
    assert not page.open
    # Its own script, and none that an item brought.
    assert text.count("<script") == text.count("</script") == 1
    assert not page.loaded
    assert len(page.ids) == len(set(page.ids))
    outside = re.sub(r'xmlns(:\w+)?="[^"]+"', "", text)
    assert "http" not in outside.replace("http-equiv", "")
    assert "@import" not in text


@pytest.mark.parametrize("make", [some_comparison, hostile])
def test_a_browser_is_told_to_run_that_one_script_and_to_load_nothing(make: type[ComparisonContent]) -> None:
    text = render("html", make())
    script = re.findall("<script>(.*?)</script>", text, re.DOTALL)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.findall('Content-Security-Policy" content="([^"]*)"', text)[0]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    # What came before the policy is not held to it.
    assert text.index("Content-Security-Policy") < min(text.index("<style"), text.index("<script"))


def test_each_cell_of_an_item_says_on_a_phone_what_it_is(content: ComparisonContent) -> None:
    row = re.findall(r"<tr>(<td data-label.*?)</tr>", render("html", content))[0]
    labels = ["Category", "Question", "Accepted", "Base", "Candidate", "Item"]
    assert re.findall('<td data-label="([^"]*)">', row) == labels
    assert row.count("<td") == len(labels)


def test_a_long_category_leaves_the_chart_its_room(content: ComparisonContent) -> None:
    long, short = (
        entry.model_copy(update={"category": name * 16})
        for entry, name in zip(content.categories[:2], ("long", "a"), strict=True)
    )
    labels = "".join(ET.fromstring(category_chart([long, short])).itertext())
    assert f"{'long' * 5}lon\u2026 (" in labels and "long" * 6 not in labels
    assert f"{'a' * 16} (" in labels


def test_html_holds_the_findings_every_flip_and_every_digest(content: ComparisonContent) -> None:
    text = render("html", content)
    assert text.count("<svg") == 4
    assert words.headline(content) in html.unescape(text)
    plain = html.unescape(re.sub(r"</?mark>", "", text))
    for flip in content.flips:
        assert html.escape(flip.base.prompt) in text
        for result in (flip.base, flip.candidate):
            assert result.generation.output in plain
    for digest in digests(content):
        assert digest in text
    assert "prefers-color-scheme: dark" in text


def test_markdown_holds_the_findings_every_flip_and_every_digest(content: ComparisonContent) -> None:
    text = render("markdown", content)
    assert words.headline(content) in text
    for flip in content.flips:
        assert flip.base.generation.output in text
        assert flip.candidate.generation.output in text
    for digest in digests(content):
        assert digest in text
    gained, lost = content.overall.gained_count, content.overall.lost_count
    assert f"## Went right ({gained})" in text
    assert f"## Went wrong ({lost})" in text


def test_nothing_breaks_out_of_the_markdown() -> None:
    text = render("markdown", hostile())
    lines = text.splitlines()
    assert "# no heading" in lines
    opened: str | None = None
    outside = []
    for line in lines:
        fence = re.fullmatch(r"(`{3,})(text)?", line)
        if opened is None and fence:
            opened = fence[1]
        elif opened == line:
            opened = None
        elif opened is None:
            outside.append(line)
    assert opened is None
    assert "# no heading" not in outside
    assert not any("<script>" in line for line in outside if not line.startswith("|"))
    rows = [line for line in outside if line.startswith("|")]
    header = next(line for line in rows if line.startswith("| Category"))
    body = next(line for line in rows if "alert(1)" in line)
    assert len(re.split(r"(?<!\\)\|", body)) == len(re.split(r"(?<!\\)\|", header))


@pytest.mark.parametrize("kind", ["html", "markdown", "json"])
def test_a_report_shows_escape_sequences_and_orders_of_reading_as_text(kind: str) -> None:
    attack = "\x1b[2J\x9b31m \u202egnp.exe\u2066 \x7f"
    item = EvalItem(
        id=f"i{attack}", prompt=attack, accepted_answers=("4",), grader=NumericGrader(), category=attack
    )
    before, after = (answered(item, 0, right=right, style=attack) for right in (False, True))
    other = answered(some_items(1)[0], 1, right=True, style="plain")
    text = render(kind, compared([run("a", [before, other])], [run("b", [after, other])]))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert ("\\u001b" if kind == "json" else "\\x1b") in text
    assert "\\u202egnp.exe" in text


def test_json_is_the_whole_content(content: ComparisonContent) -> None:
    values = json.loads(render("json", content))
    assert (values.pop("name"), values.pop("digest")) == (NAME, DIGEST)
    assert values.pop("parts").keys() == {flip.base.item_id for flip in content.flips}
    assert ComparisonContent.model_validate(values) == content


def test_another_process_writes_the_same_bytes(content: ComparisonContent) -> None:
    code = (
        "import json; from support.comparison import some_comparison; "
        "from tunix_rt_evaluator.report.repository import DOCUMENTS; content = some_comparison(count=30); "
        f"print(json.dumps({{k: d.render({NAME!r}, {DIGEST!r}, content) for k, d in DOCUMENTS.items()}}))"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r}); {code}"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert json.loads(done.stdout) == {kind: render(kind, content) for kind in DOCUMENTS}


def test_charts_are_svg_in_the_colours_of_the_page(content: ComparisonContent) -> None:
    drawn = [
        accuracy_chart(content),
        category_chart(content.categories),
        loss_chart(content.training),
        length_chart(content.base_output_tokens, content.candidate_output_tokens),
    ]
    for svg in drawn:
        root = ET.fromstring(svg)
        assert root.tag.endswith("svg")
        assert root.get("role") == "img"
        assert root.get("width") is None
        assert "var(--candidate)" in svg
        assert "#0102" not in svg
    texts = "".join(ET.fromstring(drawn[0]).itertext())
    assert words.percent(content.overall.candidate.accuracy) in texts


def test_a_comparison_of_two_base_models_has_no_training_and_one_category_no_table() -> None:
    items = [item.model_copy(update={"category": ""}) for item in some_items(5)]
    results: list[ItemResult] = [answered(item, 0, right=True, style="plain") for item in items]
    same = compared([run("a", results)], [run("b", results)])
    text = render("html", same)
    assert text.count("<svg") == 2
    assert "Training of the candidate" not in text
    assert "By category" not in text
    assert "No item went right or wrong." in text
    assert "<script" not in text
    assert "p = 1" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.217, "+21.7"),
        (-0.05, "\u22125.0"),
        (0.0, "0.0"),
        (-0.0001, "0.0"),
        (0.0001, "0.0"),
        (1.0, "+100.0"),
    ],
)
def test_points_have_a_sign(value: float, text: str) -> None:
    assert words.points(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00001, "< 0.0001"), (0.00016, "= 0.00016"), (0.05, "= 0.05"), (0.4321, "= 0.43"), (1.0, "= 1")],
)
def test_p_values_have_two_digits(value: float, text: str) -> None:
    assert words.p_relation(value) == text


def test_a_report_of_the_first_revision_can_still_be_read(content: ComparisonContent) -> None:
    old = content.model_dump(mode="json", include=FIRST_REVISION)
    for entry in (old["overall"], *(category["difference"] for category in old["categories"])):
        for field in ("test", "interval_method", "detectable", "cluster_count"):
            del entry[field]
    for category in old["categories"]:
        del category["adjusted_p_value"]
    read = ComparisonContent.model_validate(old)
    assert read.overall.test == "exact McNemar"
    assert len(read.flips) == len(content.flips)
    made = datetime(2026, 1, 1, tzinfo=UTC)
    message = report_message(ComparisonReport(id="r", digest=DIGEST, create_time=made, content=read))
    assert len(message.flips) == len(content.flips)
    assert not message.HasField("contamination")
    assert not message.categories[0].HasField("adjusted_p_value")
    assert "<svg" in render("html", read)


def test_a_flip_that_fits_no_message_keeps_no_other_out_of_it(content: ComparisonContent) -> None:
    long, *others = content.flips
    base = long.base.model_copy(update={"prompt": "x" * (7 << 19)})
    flips = (long.model_copy(update={"base": base}), *others)
    made = datetime(2026, 1, 1, tzinfo=UTC)
    held = content.model_copy(update={"flips": flips})
    message = report_message(ComparisonReport(id="r", digest=DIGEST, create_time=made, content=held))
    assert [flip.base.item_id for flip in message.flips] == [flip.base.item_id for flip in others]
    assert others


def digests(content: ComparisonContent) -> set[str]:
    found = {DIGEST}
    for evaluation in (content.base, content.candidate):
        assert evaluation.manifest is not None
        values = evaluation.manifest.model_dump()
        found |= {value for name, value in values.items() if name.endswith("_digest") and value}
    return found


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_a_report_on_samples_says_how_they_were_sampled_and_shows_one_that_stands_for_its_item(
    kind: str,
) -> None:
    decoding = Decoding(temperature=0.7, top_p=0.95, samples=4, seed=3)
    sides = [
        [sampled(item, number, right=right, samples=4) for number, item in enumerate(some_items(8))]
        for right in (1, 3)
    ]
    base, candidate = (
        Run.of(finished(name, results, decoding=decoding), results)
        for name, results in zip(("a", "b"), sides, strict=True)
    )
    content = compared([base], [candidate])
    text = html.unescape(re.sub(r"</?mark>", "", render(kind, content)))
    assert "4 samples of each item at temperature 0.7, top-p 0.95, seed 3" in text
    assert "24 of 32 answers of the candidate are right, 8 of 32 of the base's" in text
    assert "1 of 4 samples right" in text
    assert "3 of 4 samples right" in text
    assert "Wilson" not in text
    assert "on average" in text
    # The first sample of the candidate is wrong; shown is the first that is right, as the item is.
    assert sides[1][5].verdicts[0].correct is False
    assert sides[1][5].generation.more[0].output in text


def test_a_report_on_greedy_answers_says_nothing_of_samples(content: ComparisonContent) -> None:
    for kind in ("markdown", "html"):
        text = render(kind, content)
        assert "sample" not in text
        assert "temperature" not in text
        assert "batch_size 16, max_new_tokens 128" in text
