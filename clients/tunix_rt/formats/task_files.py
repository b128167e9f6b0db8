"""Task files of lm-eval, EleutherAI's Language Model Evaluation Harness.

They are understood as far as they can be followed exactly; all else in them is refused by name.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from tunix_rt.errors import FormatError
from tunix_rt.files import open_regular
from tunix_rt.formats.benchmarks import Benchmark
from tunix_rt.formats.lines import read_failures
from tunix_rt.formats.task_rows import Templates, choice_question, target_question

_MAX_BYTES: Final = 1 << 20
_MAX_INCLUDES: Final = 16
_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60
_REPR.maxlevel = 2
# What says nothing about the items: names, other splits, and how examples are put before a question.
_NO_MATTER: Final = frozenset(
    {
        "task", "task_alias", "tag", "metadata", "dataset_path", "dataset_name", "training_split",
        "fewshot_split", "fewshot_config", "should_decontaminate", "doc_to_decontamination_query",
        "target_delimiter", "tag_alias", "version",
    }
)  # fmt: skip
_READ: Final = frozenset(
    {
        "test_split", "validation_split", "doc_to_text", "doc_to_target", "doc_to_choice", "description",
        "output_type", "generation_kwargs", "metric_list", "filter_list", "repeats", "num_fewshot",
        "fewshot_delimiter", "dataset_kwargs",
    }
)  # fmt: skip
_NAMES: Final = ("task", "dataset_path", "dataset_name", "test_split", "validation_split")
_GROUP: Final = ("group", "task_list")
_GENERATION: Final = frozenset({"until", "do_sample", "temperature", "max_gen_toks", "max_new_tokens"})
_RULES: Final = ("regexes_to_ignore", "ignore_case", "ignore_punctuation", "ignore_numbers")
_FILTERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "regex": {"regex_pattern": r"#### (\-?[0-9\.\,]+)", "group_select": 0, "fallback": "[invalid]"},
    "map": {"mapping_dict": {}, "default_value": None},
    "remove_whitespace": {},
    "lowercase": {},
    "uppercase": {},
}
_CHOICE_METRICS: Final = ("acc", "acc_norm")


class _Function:
    """A Python function that a task file names, which is not called here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"the Python function {self.name}"


class _Loader(yaml.SafeLoader):
    """YAML with lm-eval's tag for Python functions."""


_Loader.add_constructor(
    "!function",
    lambda loader, node: _Function(str(loader.construct_scalar(node))),  # type: ignore[arg-type]
)


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """What is wanted of a task file that leaves a choice.

    Args:
        filter: the name of one of its filters; empty for its only one.
        metric: one of its metrics; empty for its only one.
        num_fewshot: 0 to ask without the examples that the task puts before each question; None for what it
            says itself.
        license: the licence of its data, which a task file does not tell.
    """

    filter: str = ""
    metric: str = ""
    num_fewshot: int | None = None
    license: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as a benchmark, and what its user should know of it."""

    benchmark: Benchmark
    notes: Sequence[str]


def read_task(path: Path, choice: TaskChoice = TaskChoice()) -> Task:
    """The task of a file.

    Raises:
        FormatError: it is no task file, or says what cannot be done in the same way here; all of it is named.
    """
    fields, files = _merged(path, [])
    return _Reader(path, fields, files, choice).task()


def _merged(path: Path, files: list[Path]) -> tuple[dict[str, Any], list[Path]]:
    """The keys of a file and of those that it includes, and the files."""
    with read_failures(str(path)), open_regular(path) as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise FormatError(0, f"has more than {_MAX_BYTES:,} bytes; no task file has", file=str(path))
    if path.resolve() in files or len(files) >= _MAX_INCLUDES:
        raise FormatError(0, "is included by itself, or there are too many includes", file=str(path))
    files.append(path.resolve())
    try:
        # The loader is SafeLoader, which makes plain values, with one more tag.
        fields = yaml.load(data, Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise FormatError(0, f"is no YAML: {' '.join(str(error).split())[:200]}", file=str(path)) from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise FormatError(0, "is no task file of lm-eval: a mapping would be right", file=str(path))
    includes = fields.pop("include", None) or []
    merged: dict[str, Any] = {}
    for name in includes if isinstance(includes, list) else [includes]:
        if not _is_text(name):
            raise FormatError(0, f"include: is {_shown(name)}; a file's name would be right", file=str(path))
        merged |= _merged(path.parent / name, files)[0]
    return merged | fields, files


def _shown(value: object) -> str:
    # A few lines of YAML can stand for more than the memory holds.
    return _REPR.repr(value)


def _is_text(value: object) -> bool:
    """Whether a value is a text that can be stored: YAML can write half of a character."""
    return isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value)


def _empty(value: object) -> bool:
    return value is None or value is False or value in ("", [], {})


class _Reader:
    """Makes a task of its keys, and collects what cannot be done here."""

    def __init__(self, path: Path, fields: dict[str, Any], files: Sequence[Path], choice: TaskChoice) -> None:
        self._path = path
        self._fields = fields
        self._files = files
        self._choice = choice
        self._wrong: list[str] = []
        self._notes: list[str] = []

    def task(self) -> Task:
        if isinstance(self._fields.get("task"), list) or any(key in self._fields for key in _GROUP):
            raise FormatError(0, "is a group of tasks; give the file of one of them", file=str(self._path))
        kind = self._fields.get("output_type") or "generate_until"
        self._look_at_keys()
        self._look_at_examples()
        source, by = "", "multiple_choice"
        if kind == "multiple_choice":
            self._choose_metric(_CHOICE_METRICS, list(_CHOICE_METRICS))
            self._notes.append(
                "lm-eval compares the probabilities of the options; here the model is asked to name one, so "
                "figures differ"
            )
        elif kind == "generate_until":
            source, by = self._exact_match(), "python"
        else:
            self._refuse(
                "output_type", f"is {_shown(kind)}; generate_until or multiple_choice would be right"
            )
        templates = self._templates(needs_choices=kind == "multiple_choice")
        names = {key: self._text(key) for key in _NAMES}
        if self._wrong:
            raise FormatError(0, "; ".join(self._wrong), file=str(self._path))
        read: Callable[..., Any] = choice_question if kind == "multiple_choice" else target_question
        chosen = f" filter {self._filter_name}" if kind != "multiple_choice" and self._filter_name else ""
        benchmark = Benchmark(
            name=names["task"] or self._path.stem,
            hub_id=names["dataset_path"],
            config=names["dataset_name"],
            split=names["test_split"] or names["validation_split"] or "test",
            files=r"(?:{config}/|data/)?{split}(?:-\d+-of-\d+)?\.(?:parquet|jsonl)",
            read=lambda row, _: read(templates, row),
            grader=by,
            license=self._choice.license or "not stated",
            citation="",
            grader_source=source,
            rule=f"lm-eval task file/1{chosen}"[:64],
            made_of=tuple(self._files),
        )
        return Task(benchmark, self._notes)

    def _refuse(self, key: str, why: str) -> None:
        self._wrong.append(f"{key}: {why}")

    def _text(self, key: str) -> str:
        value = self._fields.get(key)
        if value is None:
            return ""
        if not _is_text(value):
            self._refuse(key, f"is {_shown(value)}; a text would be right")
            return ""
        return str(value)

    def _look_at_keys(self) -> None:
        for key, value in self._fields.items():
            if isinstance(value, _Function) and key not in _NO_MATTER:
                self._refuse(key, f"is {value!r}, which is not called here")
            elif key not in _NO_MATTER | _READ and not _empty(value):
                self._refuse(key, f"is {_shown(value)}, which cannot be done here")
        if self._fields.get("repeats") not in (None, 1):
            self._refuse("repeats", f"is {_shown(self._fields['repeats'])}; `evaluate --samples` repeats")

    def _look_at_examples(self) -> None:
        given = self._choice.num_fewshot
        count = self._fields.get("num_fewshot") if given is None else given
        if count in (None, 0):
            return
        self._refuse(
            "num_fewshot",
            f"is {_shown(count)}: no examples are put before questions here; --num-fewshot 0 asks without",
        )

    def _templates(self, *, needs_choices: bool) -> Templates:
        choices = self._fields.get("doc_to_choice")
        if isinstance(choices, dict):
            choices = list(choices.values())
        if needs_choices and choices is None:
            self._refuse("doc_to_choice", "is missing")
        if isinstance(choices, list) and not all(isinstance(one, str) for one in choices):
            self._refuse("doc_to_choice", f"is {_shown(choices)}; texts would be right")
        for key in ("doc_to_text", "doc_to_target"):
            if self._fields.get(key) is None:
                self._refuse(key, "is missing")
        text, target = self._fields.get("doc_to_text"), self._fields.get("doc_to_target")
        if not isinstance(text, str | _Function | None):
            self._refuse("doc_to_text", f"is {_shown(text)}; a template or a column would be right")
        if isinstance(target, bool | float | dict):
            self._refuse("doc_to_target", f"is {_shown(target)}; a template or a column would be right")
        description = self._fields.get("description") or ""
        if self._wrong:
            return Templates("", "", None, "")
        try:
            return Templates(text, target, choices, description)
        except ValueError as error:
            self._wrong.append(str(error))
            return Templates("", "", None, "")

    # What follows is about answers that are compared as texts.

    def _exact_match(self) -> str:
        metric = self._choose_metric(("exact_match",), ["exact_match"])
        settings = {
            "until": self._stops(),
            "filters": self._filters(),
            "rules": {
                "regexes_to_ignore": _texts(metric.get("regexes_to_ignore")),
                **{name: metric.get(name) is True for name in _RULES[1:]},
            },
        }
        source = resources.files("tunix_rt").joinpath("data/lm_eval_match.py").read_text("utf-8")
        return f"{source}\n# What the task file says.\nSETTINGS = {settings!r}\n"

    def _choose_metric(self, known: Sequence[str], default: Sequence[str]) -> Mapping[str, Any]:
        """The metric that counts."""
        listed = self._fields.get("metric_list")
        found = [{"metric": name} for name in default] if listed is None else listed
        if not isinstance(found, list) or not all(isinstance(one, dict) and "metric" in one for one in found):
            self._refuse("metric_list", f"is {_shown(found)}; a list of metrics would be right")
            return {}
        if self._choice.metric:
            found = [one for one in found if one["metric"] == self._choice.metric]
            if not found:
                self._refuse("metric_list", f"has no {self._choice.metric}")
                return {}
        for one in found:
            self._look_at_metric(one, known)
        return found[0] if found else {}

    def _look_at_metric(self, metric: Mapping[str, Any], known: Sequence[str]) -> None:
        name = metric["metric"]
        if name not in known:
            others = [one for one in known if any(m["metric"] == one for m in self._fields["metric_list"])]
            hint = f"; --metric {others[0]} leaves it out" if others and not self._choice.metric else ""
            shown = repr(name) if isinstance(name, _Function) else str(name)
            self._refuse("metric_list", f"has {shown}; known here are {', '.join(known)}{hint}")
            return
        for key, value in metric.items():
            right = key == "metric" or _right_setting(key, value, rules="exact_match" in known)
            if not right:
                self._refuse("metric_list", f"{name} has {key} {_shown(value)}, which cannot be done here")

    def _stops(self) -> list[str]:
        given = self._fields.get("generation_kwargs") or {}
        if not isinstance(given, dict):
            self._refuse("generation_kwargs", f"is {_shown(given)}; a mapping would be right")
            return []
        for key in sorted(given.keys() - _GENERATION, key=str):
            self._refuse("generation_kwargs", f"has {key}, which cannot be done here")
        if given.get("do_sample") or given.get("temperature"):
            self._notes.append(
                f"the task samples at temperature {given.get('temperature', 1)}, which is no part of an eval "
                "set: `evaluate --temperature` says it"
            )
        if most := given.get("max_gen_toks") or given.get("max_new_tokens"):
            self._notes.append(
                f"the task lets answers have {most} tokens: `evaluate --max-new-tokens {most}`"
            )
        stops = given.get("until", self._fields.get("fewshot_delimiter") or "\n\n")
        stops = [stops] if isinstance(stops, str) else stops
        if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
            self._refuse("generation_kwargs", f"has until {_shown(stops)}; texts would be right")
            return []
        return [stop for stop in stops if stop]

    @property
    def _filter_name(self) -> str:
        listed = self._fields.get("filter_list") or []
        return self._choice.filter or (str(listed[0].get("name") or "") if len(listed) == 1 else "")

    def _filters(self) -> list[dict[str, Any]]:
        listed = self._fields.get("filter_list") or []
        if not isinstance(listed, list) or not all(
            isinstance(one, dict) and isinstance(one.get("filter"), list) for one in listed
        ):
            self._refuse("filter_list", f"is {_shown(listed)}; a list of named filters would be right")
            return []
        names = [str(one.get("name")) for one in listed]
        if self._choice.filter:
            listed = [one for one in listed if one.get("name") == self._choice.filter]
        if not listed and self._choice.filter:
            there = ", ".join(names) or "none"
            self._refuse("filter_list", f"has no {self._choice.filter}; it has {there}")
        if len(listed) > 1:
            self._refuse("filter_list", f"has {', '.join(names)}; take one: --filter {names[0]}")
            return []
        return [made for one in listed for made in self._steps(one["filter"])]

    def _steps(self, steps: Sequence[Any]) -> list[dict[str, Any]]:
        """The steps of a filter but the last, which takes the first of several answers: there is one."""
        if not steps or not isinstance(steps[-1], dict) or steps[-1].get("function") != "take_first":
            self._refuse("filter_list", "does not end in take_first")
            return []
        made = []
        for step in steps[:-1]:
            name = step.get("function") if isinstance(step, dict) else step
            known = _FILTERS.get(name) if isinstance(name, str) else None
            if known is None:
                self._refuse(
                    "filter_list", f"has the filter {name}; known here are {', '.join(_FILTERS)}, take_first"
                )
                continue
            if wrong := [key for key in step if key != "function" and key not in known]:
                self._refuse("filter_list", f"{name} has {', '.join(map(str, wrong))}, which is not known")
            one = {"function": name, **known, **{k: step[k] for k in step if k in known}}
            if why := _wrong_step(one):
                self._refuse("filter_list", f"{name} has {why}")
            made.append(one)
        return made


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _right_setting(key: str, value: object, *, rules: bool) -> bool:
    """Whether a metric's setting is one that can be followed."""
    if key == "aggregation":
        return value == "mean"
    if key == "higher_is_better":
        return value is True
    if key == "hf_evaluate":
        return value is False
    if not rules or key not in _RULES:
        return False
    if key == "regexes_to_ignore":
        return value is None or (isinstance(value, list) and all(map(_is_pattern, value)))
    return isinstance(value, bool)


def _is_pattern(value: object) -> bool:
    try:
        re.compile(value if isinstance(value, str) else "(")
    except re.error:
        return False
    return True


def _wrong_step(step: Mapping[str, Any]) -> str:
    """What is wrong with the settings of a filter, "" if nothing is."""
    if step["function"] == "regex":
        if not _is_pattern(step["regex_pattern"]):
            return f"the pattern {_shown(step['regex_pattern'])}"
        if type(step["group_select"]) is not int or not isinstance(step["fallback"], str):
            return "a group_select that is no whole number, or a fallback that is no text"
    if step["function"] == "map":
        values = [*step["mapping_dict"].values()] if isinstance(step["mapping_dict"], dict) else [None]
        if not all(isinstance(one, str) for one in values) or not isinstance(
            step["default_value"], str | None
        ):
            return "a mapping_dict or a default_value that does not map to texts"
    return ""
