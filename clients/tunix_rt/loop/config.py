"""The settings of a loop. What is left out takes the server's default, which stands in the contract.

Names and meanings are those of ``tunix_rt.v1``; ``examples/loop.yaml`` shows every one of them.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from tunix_rt import v1
from tunix_rt.errors import FieldViolation, InvalidArgumentError
from tunix_rt.files import read_text
from tunix_rt.formats import GraderName, TraceFormat, read_grader_file, read_marks
from tunix_rt.loop.settings import DecodingSettings
from tunix_rt.loop.settings import EarlyStoppingSettings as EarlyStoppingSettings
from tunix_rt.loop.settings import LoraSettings as LoraSettings
from tunix_rt.loop.settings import MeshSettings as MeshSettings
from tunix_rt.loop.settings import OptimizerSettings as OptimizerSettings
from tunix_rt.loop.settings import TrainingConfig as TrainingConfig
from tunix_rt.redaction import Redactor
from tunix_rt.schema import Int64, Section, Seed, one_line, violations_of

DEFAULT_SPLITS: Final = ("train", "validation", "test")
_MAX_FILE_BYTES: Final = 256 << 10
_MAX_DEPTH: Final = 64

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Similarity = Annotated[float, Field(ge=0.5, le=0.95)]
# One ASCII character that is no quote and no line break.
Delimiter = Annotated[str, Field(pattern=r'^[^"\r\n\x80-\U0010ffff]$')]
Dtype = Literal["auto", "bfloat16", "float32"]


# The contract's limits of tags and notes, so that a wrong one is refused before the work.
MAX_TAG: Final = 64
MAX_TAGS: Final = 50
MAX_NOTE: Final = 2_000


def _controls(text: str, allowed: str) -> bool:
    kinds = (unicodedata.category(character) for character in text if character not in allowed)
    return any(kind in ("Cc", "Cs", "Zl", "Zp") for kind in kinds)


def _shows_nothing(text: str) -> bool:
    """Whether a text is made of characters that cannot be seen, as services tell it."""
    invisible = ("Cf", "Zs", "Mn", "Me")
    return all(unicodedata.category(c) in invisible or c in "\u115f\u1160\u2800\u3164\uffa0" for c in text)


def _count(section: Section, *names: str) -> int:
    return sum(getattr(section, name) is not None for name in names)


class GenerateConfig(Section):
    """Traces out of the generator: of problems, or of conversations with tools where ``families`` names
    them."""

    count: Positive
    seed: Seed = 0
    families: list[str] | None = None
    difficulty: Literal["easy", "medium", "hard"] = "easy"


class GenerateItemsConfig(GenerateConfig):
    """Questions out of the generator, behind the first ``start`` of the sequence that the rest names."""

    count: Annotated[int, Field(ge=1, le=10_000)]
    start: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class TracesConfig(Section):
    """Which traces are stored first: those of a file, or generated ones.

    ``columns``, ``delimiter`` and ``answers_only`` are as in ``tunix_rt.formats.read_traces``. With
    ``redact``, personal data and secrets become placeholders before anything is sent, but for kinds of
    ``redact_skip``.
    """

    file: Path | None = None
    format: TraceFormat = "auto"
    columns: dict[str, str] = Field({})
    delimiter: Delimiter | None = None
    answers_only: bool = False
    redact: bool = False
    redact_skip: list[str] = Field([])
    generate: GenerateConfig | None = None
    duplicates: Literal["skip", "keep"] = "skip"

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if _count(self, "file", "generate") != 1:
            raise ValueError("give either file or generate (leave traces out to use the store as it is)")
        return self

    @model_validator(mode="after")
    def _check_redaction(self) -> Self:
        if self.redact_skip and not self.redact:
            raise ValueError("redact_skip goes with redact: true")
        if self.redact and self.file is None:
            raise ValueError("redact goes with file")
        self.redactor()
        return self

    def redactor(self) -> Redactor | None:
        """What redacts traces; None if nothing does. Raises ValueError for an unknown kind."""
        return Redactor([kind.upper() for kind in self.redact_skip]) if self.redact else None


class FilterConfig(Section):
    """Which of the stored traces are meant; conditions are joined by AND."""

    sources: list[str] = Field([])
    prompt_contains: str = ""
    metadata_equals: dict[str, JsonValue] = Field({})
    metadata_exists: dict[str, bool] = Field({})
    created_from: datetime | None = None
    created_before: datetime | None = None
    scores: dict[str, float] = Field({})
    is_conversation: bool | None = None
    has_tool_calls: bool | None = None
    min_assistant_turns: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    max_assistant_turns: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class DatasetConfig(Section):
    """What the dataset is made of.

    ``chat_template: model`` is the base model's own; then traces that hold one of its special tokens are left
    out too.
    """

    id: str
    version: str = ""
    filter: FilterConfig | None = None
    as_of: Int64 = 0
    latest: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    random: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    splits: dict[str, float] | None = None
    seed: Seed = 0
    chat_template: Literal["gemma-it", "chatml", "llama-3", "model"] = "model"
    system_instruction: str = ""
    reasoning_style: Literal["numbered", "answer-only"] = "numbered"
    eval_sets: list[str] = Field([])
    ngram_words: Annotated[int, Field(ge=0, le=64)] | None = None
    duplicates: Literal["exact", "near", "identical"] = "exact"
    similarity: Similarity | None = None
    group_by: str = ""
    keep_apart: Similarity | None = None
    parent: str = ""
    unwritable_rows: Literal["drop", "refuse"] = "drop"
    train_on: Literal["all_assistants", "last_assistant", "marked"] = "all_assistants"
    changed_history: Literal["each_turn", "refuse"] = "each_turn"
    model_answers: bool = False

    @model_validator(mode="after")
    def _check_selection(self) -> Self:
        if _count(self, "latest", "random") > 1:
            raise ValueError("latest and random exclude each other")
        if self.similarity is not None and self.duplicates != "near":
            raise ValueError("similarity goes with duplicates: near")
        return self


class EvalSetConfig(Section):
    """The questions: a held-out split of the dataset, a file of eval items, a built-in set, or generated.

    ``columns``, ``delimiter`` and ``answer_separator`` are as in ``tunix_rt.formats.ItemReading``. A
    ``grader_file``, such as ``my.py:grade``, grades every item in place of what else would.
    """

    split: str | None = None
    file: Path | None = None
    generate: GenerateItemsConfig | None = None
    builtin: Literal["eval_v1"] | None = None
    id: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] | None = None
    grader: GraderName = "auto"
    grader_file: str | None = None
    columns: dict[str, str] = Field({})
    delimiter: Delimiter | None = None
    answer_separator: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if _count(self, "split", "file", "generate", "builtin") > 1:
            raise ValueError("split, file, generate and builtin exclude each other")
        return self

    def own_grader(self) -> v1.Grader | None:
        """The grader of ``grader_file``, if there is one; raises InvalidArgumentError(CONFIG_INVALID)."""
        try:
            return None if self.grader_file is None else read_grader_file(self.grader_file)
        except ValueError as error:
            raise InvalidArgumentError(f"eval_set.grader_file: {error}", reason="CONFIG_INVALID") from None

    @property
    def held_out_split(self) -> str | None:
        """The split whose rows are the questions; None where they come from elsewhere."""
        return None if self.file or self.generate or self.builtin else (self.split or "test")


class EvaluationConfig(DecodingSettings):
    """How answers are generated, of base and candidate alike."""

    dtype: Dtype | None = None
    reasoning_marks: str | dict[str, JsonValue] | None = None
    fresh: bool = False

    @field_validator("reasoning_marks")
    @classmethod
    def _check_marks(cls, marks: object) -> object:
        if marks is not None:
            read_marks(marks)
        return marks


class LoopConfig(Section):
    """A whole loop: traces, dataset, eval set, base evaluation, training, candidate evaluation, comparison.

    ``name`` tells loops apart: the same name and settings continue with what is there, another name starts
    afresh. Jobs, evaluations and the report are called by it. ``tags`` and ``note`` are given to all that the
    loop makes, and change no result: tags that are missing are added, a name or a note that is there stays.
    Relative paths of input files start at the YAML file's folder, ``output_dir`` at the current folder.
    """

    name: Annotated[str, Field(min_length=1, max_length=64)]
    tags: list[str] = Field([])
    note: str = ""
    traces: TracesConfig | None = None
    dataset: DatasetConfig
    eval_set: EvalSetConfig = EvalSetConfig()
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    output_dir: Path = Path("loop-output")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if _shows_nothing(name):
            raise ValueError(f"{name!a} holds no character that can be seen")
        return name

    @field_validator("tags")
    @classmethod
    def _check_tags(cls, tags: list[str]) -> list[str]:
        for index, tag in enumerate(tags):
            odd = "," in tag or tag != tag.strip() or _controls(tag, "") or _shows_nothing(tag)
            if odd or not 1 <= len(tag) <= MAX_TAG:
                raise ValueError(
                    f"{tag[:80]!r} is no tag; 1-{MAX_TAG} characters of one line without a comma"
                )
            if tag in tags[:index]:
                raise ValueError(f"{tag!r} stands twice")
        if len(tags) > MAX_TAGS:
            raise ValueError(f"holds {len(tags):,} tags; at most {MAX_TAGS} would be right")
        return tags

    @field_validator("note")
    @classmethod
    def _check_note(cls, note: str) -> str:
        if len(note) > MAX_NOTE:
            raise ValueError(f"has {len(note):,} characters; at most {MAX_NOTE:,} would be right")
        if _controls(note, "\n\r\t"):
            raise ValueError("holds a control character")
        return note

    @model_validator(mode="after")
    def _check_splits(self) -> Self:
        splits = list(self.dataset.splits or DEFAULT_SPLITS)
        if "train" not in splits:
            raise ValueError(f"dataset.splits has no train, only {', '.join(splits)}")
        split = self.eval_set.held_out_split
        if split is not None and split not in splits:
            raise ValueError(f"eval_set.split {split!r} is not a split of the dataset ({', '.join(splits)})")
        if split == "train":
            raise ValueError("eval_set.split is train: a model would be asked what it has learned")
        return self

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> LoopConfig:
        """Read a YAML file.

        Raises:
            InvalidArgumentError: the file cannot be read, is no YAML, or a setting is unknown, missing or
                wrong (reason ``CONFIG_INVALID``); ``field_violations`` names each.
        """
        file = Path(path)
        try:
            document = yaml.load(read_text(file, _MAX_FILE_BYTES), Loader=_Loader)
        except FileNotFoundError:
            raise _invalid(file, "no such file") from None
        except OSError as error:
            raise _invalid(file, f"cannot be read: {error.strerror or error}") from error
        except RecursionError:
            raise _invalid(file, "not YAML: it nests too deep") from None
        except Exception as error:
            # Whatever its constructors make of a value that is none of its type.
            raise _invalid(file, f"not YAML: {_where(error)}") from error
        if not isinstance(document, Mapping):
            raise _invalid(file, "expected settings, such as `name: my-loop`")
        try:
            config = cls.model_validate(document)
        except ValidationError as error:
            violations = violations_of(error, cls)
            raise _invalid(file, one_line(violations), violations) from None
        config = config.with_inputs_from(file.parent)
        try:
            config.eval_set.own_grader()
        except InvalidArgumentError as error:
            raise _invalid(file, error.message) from None
        return config

    def called(
        self, name: str | None = None, tags: Sequence[str] = (), note: str | None = None
    ) -> LoopConfig:
        """This config under another name, with these tags besides its own, and with another note.

        Raises InvalidArgumentError(CONFIG_INVALID) for what cannot be one.
        """
        changes = {"tags": list(dict.fromkeys([*self.tags, *tags]))}
        given = {"name": name, "note": note}
        try:
            return LoopConfig.model_validate(
                dict(self) | changes | {key: value for key, value in given.items() if value is not None}
            )
        except ValidationError as error:
            violations = violations_of(error, LoopConfig)
            raise InvalidArgumentError(
                one_line(violations), reason="CONFIG_INVALID", field_violations=violations
            ) from None

    def with_inputs_from(self, folder: Path) -> LoopConfig:
        """This config with relative input files taken from ``folder``."""
        changes: dict[str, Any] = {}
        if self.traces is not None and self.traces.file is not None:
            changes["traces"] = self.traces.model_copy(update={"file": folder / self.traces.file})
        inputs: dict[str, Any] = {}
        if self.eval_set.file is not None:
            inputs["file"] = folder / self.eval_set.file
        if self.eval_set.grader_file is not None:
            inputs["grader_file"] = str(folder / self.eval_set.grader_file)
        if inputs:
            changes["eval_set"] = self.eval_set.model_copy(update=inputs)
        return self.model_copy(update=changes)


class _Loader(yaml.SafeLoader):
    """YAML without objects, without the second of two equal keys silently winning, and without what makes
    much work of a small file: aliases of aliases, and brackets within brackets."""

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        super().fetch_flow_collection_start(TokenClass)
        if self.flow_level > _MAX_DEPTH:
            raise RecursionError

    def construct_document(self, node: yaml.Node) -> Any:
        self._check_size(node, {})
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def _check_size(self, node: yaml.Node, sizes: dict[int, int]) -> int:
        """The characters of a node, those of an alias each time that it stands."""
        if isinstance(node, yaml.ScalarNode):
            return len(node.value) + 1
        if id(node) not in sizes:
            # Of an alias within what it stands for there is no end.
            sizes[id(node)] = _MAX_FILE_BYTES
            inner = (
                [part for pair in node.value for part in pair]
                if isinstance(node, yaml.MappingNode)
                else node.value
            )
            sizes[id(node)] = 1 + sum(self._check_size(part, sizes) for part in inner)
        if sizes[id(node)] > _MAX_FILE_BYTES:
            raise yaml.constructor.ConstructorError(
                None, None, f"its aliases stand for more than {_MAX_FILE_BYTES:,} characters", node.start_mark
            )
        return sizes[id(node)]


def _where(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else str(error)


def _invalid(file: Path, why: str, violations: list[FieldViolation] | None = None) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{file}: {why}",
        reason="CONFIG_INVALID",
        metadata={"file": str(file)},
        field_violations=violations or [],
    )
