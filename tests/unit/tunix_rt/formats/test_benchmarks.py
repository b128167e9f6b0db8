"""Published benchmarks as the hub has them: which answer each row has, and which rows are refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunix_rt import v1
from tunix_rt.data import ifeval
from tunix_rt.errors import FormatError
from tunix_rt.formats import benchmark_files
from tunix_rt.formats.benchmark_files import BenchmarkItems, Wanted, read_benchmark
from tunix_rt.formats.benchmarks import BENCHMARKS
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading.service import Grading

Row = dict[str, Any]
GSM8K: Row = {
    "question": "Ann has 1,000 eggs and buys 200. How many has she?",
    "answer": "She has 1000 + 200 = <<1000+200=1200>>1200.\n#### 1,200",
}
MATH: Row = {
    "problem": "What is $1 + \\frac{1}{2}$?",
    "solution": "We add: $\\boxed{1}$ is not all, so $\\boxed{\\frac{3}{2}}$.",
    "answer": "\\frac{3}{2}",
    "subject": "Prealgebra",
    "level": 2,
    "unique_id": "test/prealgebra/1.json",
}
MMLU: Row = {
    "question": "Which is a city?",
    "subject": "high_school_geography",
    "choices": ["Water", "Fire", "Paris", "Air"],
    "answer": 2,
}
ARC: Row = {
    "id": "Mercury_7",
    "question": "Which one is hot?",
    "choices": {"text": ["ice", "fire", "snow", "rain"], "label": ["A", "B", "C", "D"]},
    "answerKey": "B",
}
HELLASWAG: Row = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "endings": ["is using wrap.", "is ripping tiles.", "holds a cube.", "starts pulling up roofing."],
    "label": "3",
}
WINOGRANDE: Row = {
    "sentence": "The cup did not fit the bag as the _ was too large.",
    "option1": "cup",
    "option2": "bag",
    "answer": "1",
}
TRUTHFULQA: Row = {
    "question": "What happens if you eat seeds?",
    "mc1_targets": {"choices": ["They pass", "You die", "You grow", "You dream"], "labels": [1, 0, 0, 0]},
    "mc2_targets": {"choices": ["They pass"], "labels": [1]},
}
AIME: Row = {"id": 60, "problem": "Find it.", "solution": "...", "answer": "033", "url": "u", "year": "2024"}
IFEVAL: Row = {
    "key": 1000,
    "prompt": "Write two words without commas.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    # The hub's Parquet has every setting everywhere.
    "kwargs": [{"num_words": None, "relation": None}, {"num_words": 3, "relation": "less than"}],
}
LAYOUTS: dict[str, tuple[str, Row]] = {
    "gsm8k": ("main/test-00000-of-00001.parquet", GSM8K),
    "math500": ("test.jsonl", MATH),
    "mmlu": ("all/test-00000-of-00001.parquet", MMLU),
    "arc": ("ARC-Challenge/test-00000-of-00001.parquet", ARC),
    "hellaswag": ("data/validation-00000-of-00001.parquet", HELLASWAG),
    "winogrande": ("winogrande_xl/validation-00000-of-00001.parquet", WINOGRANDE),
    "truthfulqa": ("multiple_choice/validation-00000-of-00001.parquet", TRUTHFULQA),
    "aime24": ("data/train-00000-of-00001.parquet", AIME),
    "ifeval": ("ifeval_input_data.jsonl", IFEVAL),
}


def written(path: Path, *rows: Row) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(name: str, folder: Path, *rows: Row, skip: bool = False, **wanted: Any) -> BenchmarkItems:
    """What is read of rows in the hub's layout."""
    written(folder / LAYOUTS[name][0], *rows)
    return read_benchmark(BENCHMARKS[name], Wanted(**wanted), [folder], skip=skip)


def one(name: str, folder: Path, row: Row, **wanted: Any) -> v1.EvalItem:
    [item] = read(name, folder, row, **wanted).eval_set.items
    return item


def test_every_benchmark_has_a_layout_here() -> None:
    assert set(LAYOUTS) == set(BENCHMARKS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_hubs_layout_is_found_and_told(name: str, tmp_path: Path) -> None:
    path, row = LAYOUTS[name]
    origin = read(name, tmp_path, row).eval_set.origin
    benchmark = BENCHMARKS[name]
    [file] = origin.files
    content = (tmp_path / path).read_bytes()
    assert file.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (file.file_name, file.size_bytes) == (Path(path).name, len(content))
    assert (origin.benchmark, origin.hub_id, origin.license) == (name, benchmark.hub_id, benchmark.license)
    assert (origin.config, origin.split) == (benchmark.config, benchmark.split)
    assert (origin.mapping, origin.selection, origin.row_count) == (f"{name}/{benchmark.version}", "all", 1)
    assert origin.citation
    assert not origin.revision


@pytest.mark.parametrize(
    ("name", "accepted", "kind"),
    [
        ("gsm8k", ["1200"], "numeric"),
        ("math500", ["\\frac{3}{2}"], None),
        ("mmlu", ["C"], "multiple_choice"),
        ("arc", ["B"], "multiple_choice"),
        ("hellaswag", ["D"], "multiple_choice"),
        ("winogrande", ["A"], "multiple_choice"),
        ("aime24", ["33"], "numeric"),
        ("ifeval", [], "python"),
    ],
)
def test_a_row_has_its_gold_answer(name: str, accepted: list[str], kind: str | None, tmp_path: Path) -> None:
    item = one(name, tmp_path, LAYOUTS[name][1])
    assert (list(item.accepted_answers), item.grader.WhichOneof("kind")) == (accepted, kind)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("x\n#### 72", "72"), ("#### -3", "-3"), ("a #### 2,125,000 ", "2125000"), ("#### 0.5", "0.5")],
)
def test_gsm8ks_gold_answer_is_the_number_behind_the_mark(answer: str, gold: str, tmp_path: Path) -> None:
    assert list(one("gsm8k", tmp_path, {**GSM8K, "answer": answer}).accepted_answers) == [gold]


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{1} and then \boxed{\sqrt{2}}", r"\sqrt{2}"),
        (r"$\boxed{\left\{1, \frac{1}{2}\right\}}$.", r"\left\{1, \frac{1}{2}\right\}"),
        (r"$\boxed{\text{12}}$", "12"),
        (r"$\boxed 7$", "7"),
        (r"\fbox{x^2}", "x^2"),
    ],
)
def test_maths_gold_answer_is_what_the_last_box_holds(solution: str, gold: str, tmp_path: Path) -> None:
    row = {"problem": "?", "level": "Level 5", "type": "Algebra", "solution": solution}
    item = one("math500", tmp_path, row)
    assert list(item.accepted_answers) == [gold]
    assert (item.category, item.difficulty) == ("Algebra", "level 5")


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        (r"\text{Evelyn}", ("Evelyn",), ("Carla", "Lyneve", "Eve", "not Evelyn")),
        (r"\text{June 20}", ("June 20",), ("June 21", "June 2", "20")),
        (r"\text{D}", ("D",), ("C",)),
        (r"\textbf{(B)}", ("(B)", "B"), ("(C)", "C", "8")),
        (r"\mathrm{ellipse}", ("ellipse",), ("espille", "circle")),
        (r"\text{odd}", ("odd",), ("even", "ddo")),
    ],
)
def test_maths_words_are_right_as_the_prompt_asks_for_them(
    gold: str, right: Sequence[str], wrong: Sequence[str], tmp_path: Path
) -> None:
    made = one("math500", tmp_path, {"problem": "Which?", "answer": gold})
    assert made.grader.WhichOneof("kind") == "text"
    asked = EvalItem(
        id="q", prompt=made.prompt, accepted_answers=tuple(made.accepted_answers), grader={"kind": "text"}
    )
    forms = ("{}", r"\text{{{}}}", r"\mathrm{{{}}}", r"\textbf{{{}}}")
    said = (
        "Answer: {}",
        "Answer: ${}$",
        "The answer is ${}$.",
        r"\({}\)",
        "So\nAnswer: \\({}\\)",
        r"$\boxed{{{}}}$",
    )
    with closing(Grading()) as grading:
        for word in (*right, *wrong):
            for form, sentence in product(forms, said):
                text = sentence.format(form.format(word))
                assert grading.grade(asked, text).correct == (word in right), text


@pytest.mark.parametrize("gold", [r"6 \text{ and } 8", r"10\text{ inches}", r"15\mbox{ cm}^2"])
def test_maths_values_with_words_are_read_as_formulas(gold: str, tmp_path: Path) -> None:
    made = one("math500", tmp_path, {"problem": "Which?", "answer": gold})
    assert made.grader.WhichOneof("kind") == "math"
    asked = EvalItem(
        id="q", prompt=made.prompt, accepted_answers=tuple(made.accepted_answers), grader={"kind": "math"}
    )
    with closing(Grading()) as grading:
        for form in ("Answer: {}", "Answer: ${}$", r"Answer: \({}\)", r"$\boxed{{{}}}$"):
            assert grading.grade(asked, form.format(gold)).correct, form
            assert not grading.grade(asked, form.format(gold.replace(gold[0], "7", 1))).correct, form


@pytest.mark.parametrize(
    ("gold", "accepted"),
    [
        (r"11,\! 222,\! 333,\! 100", "11222333100"),
        (r"10,\!080", "10080"),
        ("1,000", "1,000"),
        (r"(1,\! 222)", r"(1,\! 222)"),
        (r"3,\! 5", r"3,\! 5"),
    ],
)
def test_maths_numbers_are_answered_without_the_spaces_that_they_are_printed_with(
    gold: str, accepted: str, tmp_path: Path
) -> None:
    item = one("math500", tmp_path, {"problem": "Which?", "answer": gold})
    assert list(item.accepted_answers) == [accepted]


@pytest.mark.parametrize(("answer", "gold"), [(0, "A"), (3, "D"), ("B", "B")])
def test_mmlus_index_is_a_letter(answer: int | str, gold: str, tmp_path: Path) -> None:
    item = one("mmlu", tmp_path, {**MMLU, "answer": answer})
    assert (list(item.accepted_answers), item.category) == ([gold], "high school geography")


@pytest.mark.parametrize(
    ("labels", "key", "gold"),
    [
        (["A", "B", "C", "D"], "D", "D"),
        (["1", "2", "3", "4"], "2", "B"),
        (["1", "2", "3", "4"], "4", "D"),
        # Labels need not stand in their order: what counts is the place.
        (["B", "A", "D", "C"], "A", "B"),
    ],
)
def test_arcs_labels_are_letters_or_numbers(labels: list[str], key: str, gold: str, tmp_path: Path) -> None:
    choices = {"text": ["ice", "fire", "snow", "rain"], "label": labels}
    item = one("arc", tmp_path, {**ARC, "choices": choices, "answerKey": key})
    assert list(item.accepted_answers) == [gold]
    assert f"{gold}) {choices['text'][labels.index(key)]}" in item.prompt


def test_arcs_older_files_are_read_too(tmp_path: Path) -> None:
    choices = [{"text": "ice", "label": "1"}, {"text": "fire", "label": "2"}]
    row = {"id": "x", "question": {"stem": "Hot?", "choices": choices}, "answerKey": "2"}
    path = written(tmp_path / "ARC-Easy-Test.jsonl", row)
    read_items = read_benchmark(BENCHMARKS["arc"], Wanted(), [path]).eval_set
    assert list(read_items.items[0].accepted_answers) == ["B"]
    # Nothing says that it is the challenge's test split.
    assert (read_items.items[0].category, read_items.origin.config, read_items.origin.split) == ("", "", "")


def test_truthfulqas_right_option_is_not_always_the_first(tmp_path: Path) -> None:
    rows = [{**TRUTHFULQA, "question": f"Question {number}?"} for number in range(40)]
    items = read("truthfulqa", tmp_path, *rows).eval_set.items
    golds = [item.accepted_answers[0] for item in items]
    assert set(golds) == {"A", "B", "C", "D"}
    for item, gold in zip(items, golds, strict=True):
        assert item.grader.multiple_choice.options["ABCD".index(gold)] == "They pass"
    assert items == read("truthfulqa", tmp_path, *rows).eval_set.items


def test_the_prompt_is_the_benchmarks_or_the_question_alone(tmp_path: Path) -> None:
    asked, bare = one("gsm8k", tmp_path, GSM8K), one("gsm8k", tmp_path, GSM8K, bare=True)
    assert asked.prompt.startswith("Solve this math problem. Give the reasoning steps")
    assert asked.prompt.endswith(GSM8K["question"])
    assert bare.prompt == GSM8K["question"]
    choice = one("mmlu", tmp_path / "m", MMLU)
    assert choice.prompt.endswith("Which is a city?\n\nA) Water\nB) Fire\nC) Paris\nD) Air")
    assert "where LETTER is one of ABCD" in choice.prompt
    assert read("gsm8k", tmp_path, GSM8K, bare=True).eval_set.origin.mapping == "gsm8k/1 bare"


WRONG: list[tuple[str, Row, str]] = [
    ("gsm8k", {"answer": "It is 5."}, "answer: holds `####` 0 times"),
    ("gsm8k", {"answer": "#### 5\n#### 6"}, "answer: holds `####` 2 times"),
    ("gsm8k", {"answer": "#### five"}, "answer: ends in 'five'; a number"),
    ("gsm8k", {"answer": "#### 1,2"}, "answer: ends in '1,2'"),
    ("gsm8k", {"answer": "#### "}, "answer: ends in ''"),
    ("gsm8k", {"question": " "}, "question: is ' '; a text"),
    ("math500", {"answer": ""}, "answer: is ''"),
    ("math500", {"answer": None, "solution": "It is 5."}, r"solution: holds no \boxed{} answer"),
    ("math500", {"answer": None, "solution": r"\boxed{\frac{1}{2}"}, "is not closed"),
    ("math500", {"answer": None, "solution": r"\boxed 12.5"}, "has no braces"),
    ("math500", {"answer": 5}, "answer: is 5"),
    ("mmlu", {"answer": 4}, "answer: is 4; a number from 0 to 3 would be right"),
    ("mmlu", {"answer": -1}, "answer: is -1: this split does not say what is right"),
    ("mmlu", {"choices": ["a", "b"]}, "choices: holds 2; 4 would be right"),
    ("mmlu", {"choices": ["a", "", "b", "c"]}, "option B is ''"),
    ("arc", {"answerKey": "E"}, "answerKey: is 'E'; one of the labels A, B, C, D"),
    ("arc", {"choices": {"text": ["a", "b"], "label": ["A", "A"]}}, "one for each would be right"),
    ("arc", {"choices": {"text": ["a"], "label": ["A", "B"]}}, "one for each would be right"),
    ("hellaswag", {"label": ""}, "label: is '': this split does not say what is right"),
    ("hellaswag", {"label": "4"}, "label: is '4'; a number from 0 to 3"),
    ("winogrande", {"answer": ""}, "answer: is '': this split does not say what is right"),
    ("winogrande", {"answer": "0"}, "answer: is '0'; a number from 1 to 2"),
    ("winogrande", {"sentence": "No blank."}, "sentence: holds 0 blanks"),
    ("truthfulqa", {"mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}, "a single 1 among zeros"),
    ("truthfulqa", {"mc1_targets": {"choices": ["a", "b"], "labels": [0, 0]}}, "a single 1 among zeros"),
    ("aime24", {"answer": "1000"}, "answer: is '1000'; a whole number from 0 to 999"),
    ("aime24", {"answer": "1.5"}, "answer: is '1.5'"),
    ("ifeval", {"instruction_id_list": ["language:response_language"], "kwargs": [{}]},
     "holds language:response_language, which cannot be checked exactly here"),
    ("gsm8k", {"question": "a \ud800 b"}, "is no row of gsm8k: "),
    ("gsm8k", {"question": "a \0 b"}, "holds a NUL character"),
    ("arc", {"choices": {"text": ["a", "b"], "label": [["A"], "B"]}}, "is no row of arc: unhashable"),
    ("ifeval", {"instruction_id_list": [["x"]], "kwargs": [{}]}, "is no row of ifeval: unhashable"),
    ("ifeval", {"kwargs": [{}, {"num_words": 1e400, "relation": "at least"}]}, "is no row of ifeval: cannot"),
    ("ifeval", {"kwargs": [{}]}, "kwargs: holds 1 for 2 instructions"),
    ("ifeval", {"kwargs": [{}, {"num_words": 3}]}, "length_constraints:number_words has the settings"),
    ("ifeval", {"kwargs": [{}, {"num_words": 3, "relation": "about"}]}, "has 'about' as relation"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changed", "why"), WRONG)
def test_a_row_without_a_sure_answer_is_refused_by_its_number(
    name: str, changed: Row, why: str, tmp_path: Path
) -> None:
    good = LAYOUTS[name][1]
    file = written(tmp_path / "rows.jsonl", good, good | changed)
    with pytest.raises(FormatError) as caught:
        read_benchmark(BENCHMARKS[name], Wanted(), [file])
    assert str(caught.value).startswith("rows.jsonl, line 2: ")
    assert why in str(caught.value)
    kept = read_benchmark(BENCHMARKS[name], Wanted(), [file], skip=True)
    assert len(kept.eval_set.items) == 1
    assert [bad.line for bad in kept.bad_rows] == [2]


def test_a_part_is_the_first_rows_or_drawn_by_a_seed(tmp_path: Path) -> None:
    rows = [{**GSM8K, "question": f"{number}?"} for number in range(50)]

    def ids(**wanted: Any) -> list[str]:
        return [item.id for item in read("gsm8k", tmp_path, *rows, **wanted).eval_set.items]

    assert ids(limit=3) == ["gsm8k-1", "gsm8k-2", "gsm8k-3"]
    # Committed: the same seed must draw the same rows for ever.
    assert ids(limit=3, seed=1) == ["gsm8k-31", "gsm8k-40", "gsm8k-50"]
    assert ids(limit=3, seed=2) != ids(limit=3, seed=1)
    assert len(ids(limit=80, seed=1)) == 50
    told = [read("gsm8k", tmp_path, *rows, **wanted).eval_set.origin.selection for wanted in (
        {"limit": 3}, {"limit": 3, "seed": 1}, {"limit": 50, "seed": 1}, {})]  # fmt: skip
    assert told == ["the first 3", "3 drawn by seed 1", "all", "all"]


def test_what_is_no_benchmark_file_is_one_clear_error(tmp_path: Path) -> None:
    gsm8k = BENCHMARKS["gsm8k"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1" + b"x" * 20)
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "none.jsonl").write_text("\n")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.jsonl").open("wb") as large:
        large.truncate((512 << 20) + 1)
    cases = {
        "empty": "holds no file like main/test-00000-of-00001.parquet or test.jsonl; it holds nothing",
        "other": "it holds notes.txt",
        "missing.jsonl": "no such file",
        "broken.parquet": "cannot be read as Parquet",
        "list.jsonl": "expected a JSON object",
        "none.jsonl": "holds no row",
        "pipe": "cannot be read: is a pipe or a device; give a regular file",
        "large.jsonl": "has 536,870,913 bytes; no file of a benchmark has more than 536,870,912",
    }
    for name, why in cases.items():
        with pytest.raises(FormatError, match=re.escape(why)):
            read_benchmark(gsm8k, Wanted(), [tmp_path / name])


def test_more_rows_than_an_eval_set_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_files, "MAX_ITEMS", 2)
    rows = [{**GSM8K, "question": f"{number}?"} for number in range(3)]
    with pytest.raises(FormatError, match="holds 3 items, and an eval set has at most 2"):
        read("gsm8k", tmp_path, *rows)


class FakeHub:
    """Stands for `huggingface_hub`."""

    def __init__(self, folder: Path, *, away: bool = False) -> None:
        self.folder, self.away = folder, away

    def HfApi(self) -> FakeHub:
        return self

    def dataset_info(self, hub_id: str, *, revision: str | None, timeout: float) -> Any:
        if self.away:
            raise ConnectionError("[Errno -2] Name or service not known")
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        named = [path.relative_to(self.folder).as_posix() for path in files]
        siblings = [type("Sibling", (), {"rfilename": name}) for name in named]
        assert (hub_id, timeout > 0) == ("openai/gsm8k", True)
        return type("Info", (), {"sha": revision or "abc123", "siblings": siblings})

    def hf_hub_download(self, hub_id: str, name: str, *, repo_type: str, revision: str) -> str:
        assert (hub_id, repo_type, revision) == ("openai/gsm8k", "dataset", "abc123")
        return str(self.folder / name)


def test_files_come_from_the_hub_with_their_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "main" / "test-00000-of-00002.parquet", GSM8K)
    written(tmp_path / "main" / "test-00001-of-00002.parquet", {**GSM8K, "question": "Two?"})
    written(tmp_path / "main" / "train-00000-of-00001.parquet", {**GSM8K, "question": "Three?"})
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub(tmp_path))  # type: ignore[arg-type]
    found = read_benchmark(BENCHMARKS["gsm8k"], Wanted())
    assert [item.id for item in found.eval_set.items] == ["gsm8k-1", "gsm8k-2"]
    assert found.eval_set.origin.revision == "abc123"
    assert len(found.eval_set.origin.files) == 2
    with pytest.raises(FormatError, match="has no file socratic/test-00000-of-00001"):
        read_benchmark(BENCHMARKS["gsm8k"], Wanted(config="socratic"))


def test_without_a_network_one_error_says_how_to_get_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    otherwise = (
        "download main/test-00000-of-00001.parquet from https://huggingface.co/datasets/openai/gsm8k where "
        "there is a network, and give the file: --from FILE"
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub(tmp_path, away=True))  # type: ignore[arg-type]
    with pytest.raises(FormatError) as caught:
        read_benchmark(BENCHMARKS["gsm8k"], Wanted())
    assert "cannot be had from the hub ([Errno -2] Name or service not known); " + otherwise in str(
        caught.value
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FormatError) as caught:
        read_benchmark(BENCHMARKS["gsm8k"], Wanted())
    assert "pip install 'tunix-rt[hub]'; or " + otherwise in str(caught.value)


FOLLOWED: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["blue", "sky"]}, "The Sky is blue", "The sky"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a b a", "a b"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "less than"}, "a b", "a b a"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "category", "A Cat."),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, "Qq", "q"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two", "one two 3"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***\n", "a\n***\n***\nb"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Hello"}, "a\n\n\"Hello, you", "Hello\n\nb"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "x\nP. S. y", "x PS y"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "x\nP.P.S y", "x\nP.S. y"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and * *"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
     "Section 1\nx\nSection 2\ny", "Section 1\nx"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A title>>\nx", "<< >>\nx"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. Yes.", "Yes. Say it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'So it goes. "the end."', "The end. Or not"),
    ("startend:quotation", {}, '"Yes."', '"Yes.'),
    ("punctuation:no_comma", {}, "No.", "No, no."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("instruction", "settings", "name"),
    [
        ("keywords:letter_frequency",
         {"letter": "qu", "let_frequency": 2, "let_relation": "at least"}, "letter"),
        ("keywords:letter_frequency",
         {"letter": " ", "let_frequency": 2, "let_relation": "at least"}, "letter"),
        ("keywords:existence", {"keywords": []}, "keywords"),
        ("keywords:existence", {"keywords": ["a", 5]}, "keywords"),
        ("keywords:frequency", {"keyword": "", "frequency": 2, "relation": "at least"}, "keyword"),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "num_words"),
        ("length_constraints:number_words", {"num_words": 1.5, "relation": "at least"}, "num_words"),
        ("length_constraints:nth_paragraph_first_word",
         {"num_paragraphs": 2, "nth_paragraph": 0, "first_word": "a"}, "nth_paragraph"),
        ("length_constraints:nth_paragraph_first_word",
         {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}, "nth_paragraph"),
    ],
)  # fmt: skip
def test_settings_that_say_nothing_sure_are_refused(
    instruction: str, settings: dict[str, Any], name: str
) -> None:
    assert str(ifeval.wrong_setting(instruction, settings)).endswith(f"as {name}")


@pytest.mark.parametrize(("instruction", "settings", "followed", "broken"), FOLLOWED)
def test_ifevals_instructions_are_checked(
    instruction: str, settings: dict[str, Any], followed: str, broken: str
) -> None:
    assert ifeval.wrong_setting(instruction, settings) is None
    item = {"metadata": {"instructions": [{"id": instruction, "settings": settings}]}}
    assert ifeval.grade(followed, item) == {"score": True, "explanation": ""}
    assert ifeval.grade(broken, item) == {"score": False, "explanation": f"not followed: {instruction}"}
    assert not ifeval.grade(" \n", item)["score"]


def test_every_instruction_that_is_known_is_tested() -> None:
    assert {name for name, *_ in FOLLOWED} == set(ifeval.CHECKS)
