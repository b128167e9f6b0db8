"""Published benchmarks: where they are, how rows become eval items; no unsure answer is taken."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.data import ifeval
from tunix_rt.formats.lines import struct_of

Row = Mapping[str, Any]


class BadRow(ValueError):
    """A row is not what the benchmark's rows are; the message names the field and says what is wrong."""


@dataclass(frozen=True, slots=True)
class Question:
    """A row as a question: its own text, the text with the benchmark's instruction, and what is right."""

    bare: str
    asked: str
    accepted: Sequence[str] = ()
    grader: v1.Grader | None = None
    category: str = ""
    difficulty: str = ""
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Args:
        name: what it is called here.
        hub_id: its data set on the Hugging Face hub.
        config: the configuration that is meant if none is given.
        split: the split that is meant if none is given.
        files: a pattern of the files of ``{config}`` and ``{split}`` in that data set.
        read: a row as a question; raises BadRow.
        grader: how answers are graded, in a word.
        license: its licence.
        citation: how to cite it.
        version: of ``read``; it changes whenever an item would.
        grader_source: the Python source of its grader, if it has one of its own.
        rule: what makes items of rows, if that is not this name and version.
        made_of: files that say how rows become items, beside those that hold the rows.
    """

    name: str
    hub_id: str
    config: str
    split: str
    files: str
    read: Callable[[Row, str], Question]
    grader: str
    license: str
    citation: str
    version: int = 1
    grader_source: str = ""
    rule: str = ""
    made_of: Sequence[Path] = ()

    def item(self, row: Row, number: int, config: str, *, bare: bool) -> v1.EvalItem:
        """The item of row ``number``, from 1; raises BadRow."""
        try:
            return self._item(row, number, config, bare=bare)
        except BadRow:
            raise
        except (ArithmeticError, TypeError, ValueError) as error:
            # Half of a character, a list for a label, infinity for a count: no row of it has those.
            why = " ".join(str(error).split())[:200]
            raise BadRow(f"is no row of {self.name}: {why}") from error

    def _item(self, row: Row, number: int, config: str, *, bare: bool) -> v1.EvalItem:
        question = self.read(row, config)
        item = v1.EvalItem(
            id=question.id or f"{self.name}-{number}",
            prompt=question.bare if bare else question.asked,
            accepted_answers=question.accepted,
            grader=question.grader,
            category=question.category[:64],
            difficulty=question.difficulty[:64],
            metadata=struct_of({"row": number, **question.metadata}),
        )
        if len(item.id) > 128:
            raise BadRow(f"its id {item.id[:40]!r}... has more than 128 characters")
        if any("\0" in text for text in (item.id, item.prompt, *item.accepted_answers, item.category)):
            raise BadRow("holds a NUL character")
        return item


# The wordings are those of OpenAI's simple-evals (MIT licence): of MGSM, MATH and MMLU.
_WORD_PROBLEM: Final = (
    "Solve this math problem. Give the reasoning steps before giving the final answer on the last line by "
    'itself in the format of "Answer:". Do not add anything other than the integer answer after "Answer:".'
    "\n\n{question}"
)
_MATHEMATICS: Final = (
    "Solve the following math problem step by step. The last line of your response should be of the form "
    "Answer: $ANSWER (without quotes) where $ANSWER is the answer to the problem.\n\n{question}\n\n"
    'Remember to put your answer on its own line after "Answer:", and you do not need to use a \\boxed '
    "command."
)
_CHOICE: Final = (
    "Answer the following multiple choice question. The last line of your response should be of the "
    "following format: 'Answer: $LETTER' (without quotes) where LETTER is one of {letters}. Think step by "
    "step before answering.\n\n{question}"
)
_GOLD: Final = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_APART: Final = re.compile(r"-?\d{1,3}(?:,\\!\s*\d{3})+(?:\.\d+)?")
_TEXT_COMMANDS: Final = ("text", "textbf", "mathrm", "textit", "mbox")
_TEXT: Final = re.compile(rf"\\(?:{'|'.join(_TEXT_COMMANDS)})\{{([^{{}}\\]*)\}}")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{name}: is {_shown(value)}; a text would be right")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _gsm8k(row: Row, _: str) -> Question:
    question, answer = _text(row, "question").strip(), _text(row, "answer")
    _, *golds = answer.split("####")
    if len(golds) != 1:
        raise BadRow(f"answer: holds `####` {len(golds)} times; once, before the number, would be right")
    gold = golds[0].strip()
    if not _GOLD.fullmatch(gold):
        raise BadRow(f"answer: ends in {_shown(gold)}; a number such as 1,200 would be right")
    grader = v1.Grader(numeric=v1.NumericGrader())
    asked = _WORD_PROBLEM.replace("{question}", question)
    return Question(question, asked, [gold.replace(",", "")], grader)


def _math(row: Row, _: str) -> Question:
    problem, solution = _text(row, "problem").strip(), row.get("solution")
    gold = row.get("answer")
    if gold is None:
        gold = _last_box(solution if isinstance(solution, str) else "")
    if not isinstance(gold, str) or not gold.strip():
        raise BadRow(f"answer: is {_shown(gold)}, and no other answer is boxed; a text would be right")
    if _APART.fullmatch(gold.strip()):
        # A number as it is printed, with narrowed spaces behind its commas, is answered without them.
        gold = re.sub(r",\\!\s*", "", gold)
    level = row.get("level")
    level = f"level {level}" if isinstance(level, int) else str(level or "").lower()
    given = row.get("unique_id")
    words = _TEXT.fullmatch(gold.strip())
    grader = v1.Grader(text=v1.TextGrader()) if words and not _number(words[1]) else None
    if words and not grader:
        gold = words[1]
    elif not words and _TEXT.search(gold) and re.search(r"\d", gold):
        # Values with words between or behind them, such as `6 \text{ and } 8`.
        grader = v1.Grader(math=v1.MathGrader())
    return Question(
        problem,
        _MATHEMATICS.replace("{question}", problem),
        # Without a grader the evaluator takes numeric, math or text, whichever reads the answer.
        _spellings(words[1].strip()) if words and grader and words[1].strip() else [gold.strip()],
        grader,
        category=str(row.get("subject") or row.get("type") or ""),
        difficulty=level,
        id=given if isinstance(given, str) else "",
    )


def _spellings(words: str) -> list[str]:
    """Words as an answer may write them: bare, and set as text in a formula. ``(B)`` is the letter too."""
    letter = re.fullmatch(r"\(([A-Z])\)", words)
    found = []
    for text in (words, letter[1]) if letter else (words,):
        formulas = [text, *(f"\\{command}{{{text}}}" for command in _TEXT_COMMANDS)]
        # Dollar signs around the whole are no part of an answer anyway.
        found += [*formulas, *(f"\\({formula}\\)" for formula in formulas)]
    return found


def _number(text: str) -> bool:
    return _GOLD.fullmatch(text.strip()) is not None


def _last_box(solution: str) -> str:
    r"""What stands in the last ``\boxed{}``; raises BadRow where there is none, or one that is not closed."""
    start = max(solution.rfind("\\boxed"), solution.rfind("\\fbox"))
    if start < 0:
        raise BadRow(r"solution: holds no \boxed{} answer")
    rest = solution[start:].removeprefix("\\boxed").removeprefix("\\fbox")
    if not rest.startswith("{"):
        if found := re.match(r" (\d+|[A-Za-z])(?![\w.,])", rest):
            return found[1]
        raise BadRow(r"solution: its last \boxed has no braces")
    depth = 0
    for at, sign in enumerate(rest):
        escaped = at and rest[at - 1] == "\\"
        depth += 0 if escaped else (sign == "{") - (sign == "}")
        if not depth:
            return rest[1:at]
    raise BadRow(r"solution: its last \boxed{ is not closed")


def _aime(row: Row, _: str) -> Question:
    problem, gold = _text(row, "problem").strip(), row.get("answer")
    text = str(gold).strip() if isinstance(gold, str | int) and not isinstance(gold, bool) else ""
    if not re.fullmatch(r"\d{1,3}", text):
        raise BadRow(f"answer: is {_shown(gold)}; a whole number from 0 to 999 would be right")
    year = str(row.get("year") or "")
    grader = v1.Grader(numeric=v1.NumericGrader())
    return Question(problem, _MATHEMATICS.replace("{question}", problem), [str(int(text))], grader, year)


def choice(
    question: str, options: Sequence[Any], right: int, *, category: str = "", id: str = ""
) -> Question:
    """A question with its options below it, of which the one at ``right`` is right; raises BadRow."""
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise BadRow(f"holds {len(options)} options; 2 to 26 would be right")
    for at, option in enumerate(options):
        if not isinstance(option, str) or not option.strip():
            raise BadRow(f"option {ascii_uppercase[at]} is {_shown(option)}; a text would be right")
    letters = ascii_uppercase[: len(options)]
    shown = "\n".join(f"{letter}) {option}" for letter, option in zip(letters, options, strict=True))
    bare = f"{question.strip()}\n\n{shown}"
    return Question(
        bare,
        _CHOICE.replace("{letters}", letters).replace("{question}", bare),
        [letters[right]],
        v1.Grader(multiple_choice=v1.MultipleChoiceGrader(options=options)),
        category=category,
        id=id,
    )


def _index(value: object, count: int, name: str, *, first: int = 0) -> int:
    """The place of the right one of ``count`` options, written as a number from ``first`` on."""
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if text in ("", "-1"):
        raise BadRow(f"{name}: is {_shown(value)}: this split does not say what is right")
    if not re.fullmatch(r"\d{1,2}", text) or not first <= int(text) < first + count:
        raise BadRow(
            f"{name}: is {_shown(value)}; a number from {first} to {first + count - 1} would be right"
        )
    return int(text) - first


def _options(row: Row, name: str) -> list[Any]:
    options = row.get(name)
    if not isinstance(options, list):
        raise BadRow(f"{name}: is {_shown(options)}; a list of texts would be right")
    return options


def _mmlu(row: Row, config: str) -> Question:
    options, answer = _options(row, "choices"), row.get("answer")
    if len(options) != 4:
        raise BadRow(f"choices: holds {len(options)}; 4 would be right")
    by_letter = isinstance(answer, str) and len(answer) == 1 and answer in "ABCD"
    right = "ABCD".index(str(answer)) if by_letter else _index(answer, 4, "answer")
    subject = str(row.get("subject") or ("" if config in ("all", "") else config))
    return choice(_text(row, "question"), options, right, category=subject.replace("_", " "))


def _arc(row: Row, config: str) -> Question:
    question, choices = row.get("question"), row.get("choices")
    if isinstance(question, Mapping):
        # The files of the Allen Institute, before the hub.
        choices = question.get("choices")
        question = question.get("stem")
    if isinstance(choices, list) and all(isinstance(one, Mapping) for one in choices):
        choices = {name: [one.get(name) for one in choices] for name in ("text", "label")}
    if not isinstance(choices, Mapping) or not isinstance(question, str) or not question.strip():
        raise BadRow(
            "question or choices: is missing; a text, and choices with text and label, would be right"
        )
    labels, texts = _options(choices, "label"), _options(choices, "text")
    if len(set(labels)) != len(labels) or len(labels) != len(texts):
        raise BadRow(
            f"choices: has {len(texts)} texts and the labels {_shown(labels)}; one for each would be right"
        )
    key = row.get("answerKey")
    if key not in labels:
        raise BadRow(
            f"answerKey: is {_shown(key)}; one of the labels {', '.join(map(str, labels))} would be right"
        )
    given = row.get("id")
    category = config if config.startswith("ARC") else ""
    own = given if isinstance(given, str) else ""
    return choice(question, texts, labels.index(key), category=category, id=own)


def _hellaswag(row: Row, _: str) -> Question:
    endings = [_without_marks(str(one)) if isinstance(one, str) else one for one in _options(row, "endings")]
    activity, context = str(row.get("activity_label") or ""), _text(row, "ctx")
    right = _index(row.get("label"), len(endings), "label")
    begun = _without_marks(f"{activity}: {context}" if activity else context)
    return choice(f"How does this text go on?\n\n{begun}", endings, right, category=activity)


def _without_marks(text: str) -> str:
    """As lm-eval prepares HellaSwag: without the marks of WikiHow's pages."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ").strip()


def _winogrande(row: Row, _: str) -> Question:
    sentence = _text(row, "sentence")
    if sentence.count("_") != 1:
        raise BadRow(f"sentence: holds {sentence.count('_')} blanks (_); one would be right")
    options = [_text(row, "option1"), _text(row, "option2")]
    right = _index(row.get("answer"), 2, "answer", first=1)
    return choice(f"Which option belongs into the blank (_)?\n\n{sentence}", options, right)


def _truthfulqa(row: Row, _: str) -> Question:
    question, targets = _text(row, "question"), row.get("mc1_targets")
    if not isinstance(targets, Mapping):
        raise BadRow(f"mc1_targets: is {_shown(targets)}; choices and labels would be right")
    options, labels = _options(targets, "choices"), _options(targets, "labels")
    if len(options) != len(labels) or any(label not in (0, 1) for label in labels) or sum(labels) != 1:
        raise BadRow(f"mc1_targets: has the labels {_shown(labels)}; a single 1 among zeros would be right")
    # In the files the right one is always the first: A would be right everywhere.
    order = mixed(question, options)
    return choice(question, [options[at] for at in order], order.index(labels.index(1)))


def mixed(question: str, options: Sequence[Any]) -> list[int]:
    """The places of options in an order that their digests make, the same everywhere."""

    def drawn(at: int) -> str:
        text = f"{question}\n{options[at]}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(range(len(options)), key=drawn)


def _ifeval(row: Row, _: str) -> Question:
    prompt, names, settings = (
        _text(row, "prompt"),
        _options(row, "instruction_id_list"),
        _options(row, "kwargs"),
    )
    if not names or len(names) != len(settings):
        raise BadRow(
            f"kwargs: holds {len(settings)} for {len(names)} instructions; one for each would be right"
        )
    instructions = []
    for name, given in zip(names, settings, strict=True):
        if name not in ifeval.CHECKS:
            raise BadRow(
                f"instruction_id_list: holds {name}, which cannot be checked exactly here; known are "
                + ", ".join(ifeval.CHECKS)
            )
        if not isinstance(given, Mapping):
            raise BadRow(f"kwargs: holds {_shown(given)}; an object would be right")
        used = {key: value for key, value in given.items() if value is not None}
        if why := ifeval.wrong_setting(name, used):
            raise BadRow(f"kwargs: {why}")
        instructions.append({"id": name, "settings": used})
    key = row.get("key")
    return Question(
        prompt, prompt, id=f"ifeval-{key}" if key else "", metadata={"instructions": instructions}
    )


_SHARDS: Final = r"{config}/{split}-\d+-of-\d+\.parquet"
_DATA_SHARDS: Final = r"data/{split}-\d+-of-\d+\.parquet"

_ALL: Final = (
    Benchmark(
        "gsm8k", "openai/gsm8k", "main", "test", _SHARDS, _gsm8k, "numeric", "MIT",
        "Cobbe et al., Training Verifiers to Solve Math Word Problems, arXiv:2110.14168",
    ),
    Benchmark(
        "math500", "HuggingFaceH4/MATH-500", "", "test", r"{split}\.jsonl", _math, "numeric, math or text",
        "MIT",
        "Lightman et al., Let's Verify Step by Step, arXiv:2305.20050; Hendrycks et al., Measuring "
        "Mathematical Problem Solving With the MATH Dataset, arXiv:2103.03874",
        version=3,
    ),
    Benchmark(
        "mmlu", "cais/mmlu", "all", "test", _SHARDS, _mmlu, "multiple_choice", "MIT",
        "Hendrycks et al., Measuring Massive Multitask Language Understanding, arXiv:2009.03300",
    ),
    Benchmark(
        "arc", "allenai/ai2_arc", "ARC-Challenge", "test", _SHARDS, _arc, "multiple_choice", "CC-BY-SA-4.0",
        "Clark et al., Think you have Solved Question Answering? Try ARC, arXiv:1803.05457",
    ),
    Benchmark(
        "ifeval", "google/IFEval", "", "train", r"ifeval_input_data\.jsonl", _ifeval, "python", "Apache-2.0",
        "Zhou et al., Instruction-Following Evaluation for Large Language Models, arXiv:2311.07911",
        grader_source=resources.files("tunix_rt").joinpath("data/ifeval.py").read_text("utf-8"),
    ),
    Benchmark(
        "hellaswag", "Rowan/hellaswag", "", "validation", _DATA_SHARDS, _hellaswag, "multiple_choice", "MIT",
        "Zellers et al., HellaSwag: Can a Machine Really Finish Your Sentence?, arXiv:1905.07830",
    ),
    Benchmark(
        "winogrande", "allenai/winogrande", "winogrande_xl", "validation", _SHARDS, _winogrande,
        "multiple_choice", "CC-BY",
        "Sakaguchi et al., WinoGrande: An Adversarial Winograd Schema Challenge at Scale, arXiv:1907.10641",
    ),
    Benchmark(
        "truthfulqa", "truthfulqa/truthful_qa", "multiple_choice", "validation", _SHARDS, _truthfulqa,
        "multiple_choice", "Apache-2.0",
        "Lin et al., TruthfulQA: Measuring How Models Mimic Human Falsehoods, arXiv:2109.07958",
    ),
    Benchmark(
        "aime24", "HuggingFaceH4/aime_2024", "", "train", _DATA_SHARDS, _aime, "numeric", "not stated",
        "American Invitational Mathematics Examination 2024, Mathematical Association of America",
    ),
)  # fmt: skip
BENCHMARKS: Final[Mapping[str, Benchmark]] = {benchmark.name: benchmark for benchmark in _ALL}
"""The benchmarks by name."""
