"""Task files of lm-eval: what they make of rows, how answers are graded, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.formats.benchmark_files import BenchmarkItems, Wanted, read_benchmark
from tunix_rt.formats.task_files import TaskChoice, read_task

# In the layouts of lm-eval's own task files.
GENERATE: dict[str, Any] = {
    "task": "sums",
    "dataset_path": "someone/sums",
    "output_type": "generate_until",
    "test_split": "test",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer}}",
}
CHOOSE: dict[str, Any] = {
    "task": "cities",
    "output_type": "multiple_choice",
    "validation_split": "validation",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices.text}}",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm"},
    ],
}
SUM = {"question": "Ann has 1,000 eggs and buys 200?", "answer": "1000 + 200\n#### 1,200"}
CITY = {
    "question": "Which is a city?",
    "choices": {"text": ["Water", "Paris", "Air"], "label": ["A", "B", "C"]},
    "answerKey": "B",
}


def made(folder: Path, task: Mapping[str, Any], *rows: Any, **choice: Any) -> BenchmarkItems:
    (folder / "task.yaml").write_text(yaml.safe_dump(dict(task)))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_task(folder / "task.yaml", TaskChoice(**choice))
    return read_benchmark(found.benchmark, Wanted(), [folder / "rows.jsonl"])


def one(folder: Path, task: Mapping[str, Any], row: Any) -> v1.EvalItem:
    [item] = made(folder, task, row).eval_set.items
    return item


def grades(items: BenchmarkItems) -> Callable[[str], bool]:
    """How answers to the first item are graded by the source code that comes with the set."""
    module: dict[str, Any] = {}
    exec(items.eval_set.python_sources[0], module)
    item = {"accepted_answers": list(items.eval_set.items[0].accepted_answers)}
    return lambda output: bool(module["grade"](output, item)["score"])


def test_a_template_makes_the_prompt_and_the_target(tmp_path: Path) -> None:
    item = one(tmp_path, GENERATE, SUM)
    assert item.prompt == "Question: Ann has 1,000 eggs and buys 200?\nAnswer:"
    assert list(item.accepted_answers) == [SUM["answer"]]
    assert (item.id, item.grader.WhichOneof("kind")) == ("sums-1", "python")


def test_a_column_stands_for_itself_and_the_description_comes_first(tmp_path: Path) -> None:
    task = GENERATE | {"doc_to_text": "question", "doc_to_target": "n", "description": "Sums.\n\n"}
    item = one(tmp_path, task, {"question": "1+1{{no}}", "n": 2})
    assert (item.prompt, list(item.accepted_answers)) == ("Sums.\n\n1+1{{no}}", ["2"])


def test_a_template_may_compute(tmp_path: Path) -> None:
    task = GENERATE | {
        "doc_to_target": "{{ n * 2000 }} {{ n ** 2 }} {{ n % 7 }} {{ '%.1f' % n }} {{ 'ab' * 2 }}"
    }
    item = one(tmp_path, task, {"question": "?", "n": 1_000_001})
    assert list(item.accepted_answers) == ["2000002000 1000002000001 2 1000001.0 abab"]


def test_the_files_rule_and_licence_are_kept(tmp_path: Path) -> None:
    origin = made(tmp_path, GENERATE, SUM, license="MIT").eval_set.origin
    assert (origin.benchmark, origin.hub_id, origin.license) == ("sums", "someone/sums", "MIT")
    assert origin.mapping == "lm-eval task file/1"
    assert [file.file_name for file in origin.files] == ["rows.jsonl", "task.yaml"]
    assert all(file.digest.startswith("sha256:") for file in origin.files)
    assert made(tmp_path, GENERATE, SUM).eval_set.origin.license == "not stated"


def test_options_are_shown_and_letters_accepted(tmp_path: Path) -> None:
    item = one(tmp_path, CHOOSE, CITY)
    assert item.prompt.endswith("Question: Which is a city?\nAnswer:\n\nA) Water\nB) Paris\nC) Air")
    assert list(item.accepted_answers) == ["B"]
    assert list(item.grader.multiple_choice.options) == ["Water", "Paris", "Air"]


def test_labels_are_no_options_to_be_shown(tmp_path: Path) -> None:
    task = CHOOSE | {
        "doc_to_text": "{{q}}\nA. {{c[0]}}\nB. {{c[1]}}\nAnswer:",
        "doc_to_choice": ["A", "B"],
        "doc_to_target": "answer",
    }
    item = one(tmp_path, task, {"q": "A city?", "c": ["Air", "Rome"], "answer": 1})
    assert item.prompt == "A city?\nA. Air\nB. Rome\nAnswer:"
    assert (list(item.accepted_answers), list(item.grader.multiple_choice.options)) == (["B"], ["A", "B"])


@pytest.mark.parametrize("target", [0, "0"])
def test_where_the_first_option_is_always_right_they_are_mixed(target: Any, tmp_path: Path) -> None:
    task = CHOOSE | {"doc_to_choice": "options", "doc_to_target": target}
    rows = [{"question": f"{n}?", "options": ["yes", "no", "never"]} for n in range(12)]
    items = made(tmp_path, task, *rows).eval_set.items
    for item in items:
        place = "ABC".index(item.accepted_answers[0])
        assert item.grader.multiple_choice.options[place] == "yes"
    assert len({item.accepted_answers[0] for item in items}) == 3


def test_an_include_is_read_and_overridden(tmp_path: Path) -> None:
    (tmp_path / "base").write_text(
        "doc_to_text: !function utils.text\n" + yaml.safe_dump({"output_type": "x"})
    )
    item = one(tmp_path, GENERATE | {"include": "base"}, SUM)
    assert item.prompt.startswith("Question:")
    (tmp_path / "base").write_text("include: task.yaml\n")
    with pytest.raises(FormatError, match="is included by itself"):
        read_task(tmp_path / "task.yaml")


def filters(*steps: dict[str, Any], **rules: Any) -> dict[str, Any]:
    listed = [{"name": "only", "filter": [*steps, {"function": "take_first"}]}]
    return GENERATE | {"filter_list": listed, "metric_list": [{"metric": "exact_match", **rules}]}


REGEX = {"function": "regex", "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1}
RULES = {"ignore_case": True, "regexes_to_ignore": [",", r"\$", "(?s).*#### ", r"\.$"]}


# What lm-eval 0.4.13 says of the same answers.
@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        (GENERATE, [SUM["answer"]], ["1,200", SUM["answer"] + " ", ""]),
        (filters(REGEX, **RULES), ["It is 1200.", "1 and $1,200", "1200\n\n7"], ["1200 or 7", "", "12"]),
        (filters(REGEX | {"group_select": 0}, **RULES), ["1200 or 7"], ["7 or 1200"]),
        (filters(REGEX | {"group_select": 3}, **RULES), ["1 2 3 1200"], ["1200", "1200 1200"]),
        (filters({"function": "remove_whitespace"}, **RULES), [" 1,200. "], ["is 1200"]),
        (filters({"function": "map", "mapping_dict": {"b": "1200"}}, **RULES), ["b"], ["B", "1200"]),
        (filters(**RULES, ignore_punctuation=True), ["12.00", "(1200)"], ["120"]),
        (filters(**RULES, ignore_numbers=True), ["7", ""], ["seven"]),
        (filters(REGEX) | {"generation_kwargs": {"until": ["Q:"]}}, [], ["7 Q: 1200"]),
        (filters(REGEX, **RULES) | {"generation_kwargs": {"until": ["Q:"]}}, ["1200 Q: 7"], []),
    ],
)  # fmt: skip
def test_answers_are_graded_as_lm_eval_does(
    task: dict[str, Any], right: list[str], wrong: list[str], tmp_path: Path
) -> None:
    grade = grades(made(tmp_path, task, SUM))
    assert [text for text in right if not grade(text)] == []
    assert [text for text in wrong if grade(text)] == []


def test_any_of_several_targets_is_right(tmp_path: Path) -> None:
    found = made(
        tmp_path, GENERATE | {"doc_to_target": "aliases"}, {"question": "Who?", "aliases": ["Al", "Bo"]}
    )
    assert [grades(found)(text) for text in ("Al", "Bo", "Al Bo")] == [True, True, False]
    rendered = GENERATE | {"doc_to_target": "{{aliases}}"}
    assert list(one(tmp_path, rendered, {"question": "Who?", "aliases": ["Al"]}).accepted_answers) == ["Al"]


def test_of_several_filters_and_metrics_one_is_taken_by_name(tmp_path: Path) -> None:
    task = filters(REGEX, **RULES)
    task["filter_list"] = [*task["filter_list"], {"name": "strict", "filter": [{"function": "take_first"}]}]
    task["metric_list"] = [*task["metric_list"], {"metric": "bleu"}]
    with pytest.raises(FormatError, match="filter_list: has only, strict; take one: --filter only") as raised:
        made(tmp_path, task, SUM)
    assert "metric_list: has bleu; known here are exact_match; --metric exact_match leaves it out" in str(
        raised.value
    )
    found = made(tmp_path, task, SUM, filter="only", metric="exact_match")
    assert found.eval_set.origin.mapping == "lm-eval task file/1 filter only"
    assert grades(found)("It is 1200")


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"num_fewshot": 5}, "num_fewshot: is 5: no examples .* --num-fewshot 0"),
        ({"output_type": "loglikelihood"}, "output_type: is 'loglikelihood'"),
        ({"gen_prefix": "So"}, "gen_prefix: is 'So', which cannot be done here"),
        ({"doc_to_image": ["image"]}, "doc_to_image: "),
        ({"brand_new": 1}, "brand_new: is 1, which cannot be done here"),
        ({"task": 5}, "task: is 5; a text would be right"),
        ({"test_split": ["test"]}, r"test_split: is \['test'\]; a text would be right"),
        ({"dataset_path": "\ud800"}, "dataset_path: is .*; a text would be right"),
        ({"repeats": 4}, "repeats: is 4; `evaluate --samples` repeats"),
        ({"doc_to_text": "{{ question"}, "doc_to_text: is no template"),
        ({"doc_to_text": None}, "doc_to_text: is missing"),
        ({"generation_kwargs": {"top_k": 5}}, "generation_kwargs: has top_k"),
        (filters(higher_is_better=False), "exact_match has higher_is_better False"),
        (filters(ignore_more=True), "exact_match has ignore_more True"),
        ({"metric_list": "exact_match"}, "metric_list: is 'exact_match'; a list"),
        ({"filter_list": [{"name": "a", "filter": [{"function": "vote"}]}]}, "does not end in take_first"),
        (filters({"function": "multi_choice_regex"}), "has the filter multi_choice_regex; known"),
        (filters(REGEX | {"regex_pattern": "("}), "regex has the pattern"),
        (filters(REGEX | {"flags": 2}), "regex has flags, which is not known"),
        ({"group": "all", "task": ["a", "b"]}, "is a group of tasks; give the file of one of them"),
        ({"include": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(extra: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=why):
        made(tmp_path, GENERATE | extra, SUM)


def test_a_python_function_is_named_and_not_called(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("raise SystemExit\n")
    path = tmp_path / "task.yaml"
    lines = [f"{key}: !function utils.{key}" for key in ("process_docs", "doc_to_text", "process_results")]
    path.write_text(
        "\n".join([*lines, "doc_to_target: answer", "fewshot_config: {samples: !function utils.few}"])
    )
    with pytest.raises(FormatError) as raised:
        read_task(path)
    for key in ("process_docs", "doc_to_text", "process_results"):
        assert f"{key}: is the Python function utils.{key}, which is not called here" in str(raised.value)
    assert "few" not in str(raised.value)


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "1: 2\n", "\x00", "a: !!python/name:os.system\n", ""])
def test_what_is_no_task_file_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"task\.yaml: is no (?:YAML|task file)"):
        read_task(tmp_path / "task.yaml")


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"doc_to_text": "{{nothing}}"}, "doc_to_text: fails for it: 'nothing' is undefined"),
        ({"doc_to_target": "{{answer.split('@')[1]}}"}, "doc_to_target: fails for it"),
        ({"doc_to_text": "{{ ''.__class__.__mro__ }}"}, "doc_to_text: fails for it"),
        ({"doc_to_text": "{{ 'a' * 999999999 }}"}, "doc_to_text: fails for it: . makes too much"),
        ({"doc_to_text": "{{ 9 ** 999999999 }}"}, "doc_to_text: fails for it: .. makes too much"),
        ({"doc_to_text": "{{ '%999999999d' % 3 }}"}, "doc_to_text: fails for it: % makes too much"),
        ({"doc_to_text": "{{ 'a'.ljust(999999999) }}"}, "doc_to_text: fails for it: a call makes too much"),
        ({"doc_to_target": "[1, 2]"}, "doc_to_target: is .1, 2. for it; a text would be right"),
        ({"doc_to_target": "{{''}}"}, "doc_to_target: is '' for it"),
    ],
)
def test_a_row_that_a_template_cannot_read_is_named(extra: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"rows\.jsonl, line 1: {why}"):
        made(tmp_path, GENERATE | extra, SUM)


@pytest.mark.parametrize("target", ["3", "-1", "Rome", "{{no}}", "{{[]}}", "[0, 9]", "{{true}}"])
def test_a_target_that_is_no_option_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"rows\.jsonl, line 1: doc_to_target"):
        made(tmp_path, CHOOSE | {"doc_to_target": target}, CITY)


def test_a_few_lines_that_stand_for_very_much_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "task.yaml").write_text("\n".join(lines))
    with pytest.raises(FormatError, match=r"a11: is .* which cannot be done here") as raised:
        read_task(tmp_path / "task.yaml")
    assert len(str(raised.value)) < 10_000


def test_a_template_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunix_rt.formats.task_rows._SECONDS", 0.1)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(FormatError, match=r"line 1: doc_to_text: fails for it: it is not done after 0\.1 s"):
        made(tmp_path, GENERATE | {"doc_to_text": loop}, SUM)


def test_decoding_that_a_task_says_is_told(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    kwargs = {"until": [], "max_gen_toks": 1280, "do_sample": True, "temperature": 0.7}
    path.write_text(yaml.safe_dump(GENERATE | {"generation_kwargs": kwargs}))
    told = " ".join(read_task(path).notes)
    assert "--max-new-tokens 1280" in told
    assert "samples at temperature 0.7" in told
