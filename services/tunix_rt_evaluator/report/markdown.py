"""A report as Markdown in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tunix_rt.escapes import visible
from tunix_rt_evaluator.comparisons.model import ComparisonContent, Contamination, Flip
from tunix_rt_evaluator.comparisons.policy import POLICY
from tunix_rt_evaluator.evaluations.model import ItemResult
from tunix_rt_evaluator.grading.model import Parts
from tunix_rt_evaluator.report import words

_FENCE = re.compile(r"`{3,}")


def render_markdown(name: str, digest: str, content: ComparisonContent) -> str:
    """The report as one Markdown text."""
    parts = [
        f"# Comparison report: {words.VERDICTS[content.verdict].lower()}",
        words.headline(content),
        *filter(None, [words.sampling(content)]),
        *words.reasons(content),
        *(f"> {_escaped(notice)}" for notice in words.notices(content)),
        f"Base: `{words.model_name(content.base)}`. Candidate: `{words.model_name(content.candidate)}`.",
        "## Accuracy",
        _accuracy(content),
    ]
    if content.scores is not None:
        parts += ["## Scores", words.score_sentence(content.scores)]
    if content.seeds is not None:
        rows = words.seed_rows(content.seeds)
        parts += ["## Training seeds", _table(("", "Accuracies", "Mean", "Standard deviation"), rows)]
        parts.append(words.seed_test(content.seeds))
    if len(content.categories) > 1:
        parts += ["## By category", words.HOLM, _categories(content)]
    if content.contamination is not None and content.contamination.items:
        parts += ["## Items that the training data gives away", _leaked(content.contamination)]
    if content.training:
        parts += ["## Training", _training(content)]
    gained = [flip for flip in content.flips if flip.candidate.verdict.correct]
    lost = [flip for flip in content.flips if not flip.candidate.verdict.correct]
    if content.seeds is not None:
        parts.append("The items below are those of the first evaluation of each side.")
    parts += _flips(f"## Went right ({len(gained)})", gained)
    parts += _flips(f"## Went wrong ({len(lost)})", lost)
    parts += ["## Provenance", f"Report `{name}`, content `{digest}`.", _provenance(content)]
    parts += ["## How the verdict is reached", _escaped(POLICY)]
    return visible("\n\n".join(parts)) + "\n"


def _accuracy(content: ComparisonContent) -> str:
    overall = content.overall
    rows = [
        ("Right", words.fraction(overall.base), words.fraction(overall.candidate)),
        ("Accuracy", words.percent(overall.base.accuracy), words.percent(overall.candidate.accuracy)),
        (
            f"95% interval ({words.accuracy_interval(content)})",
            words.share_range(overall.base.interval),
            words.share_range(overall.candidate.interval),
        ),
        *words.counted(content),
    ]
    parts = [
        _table(("", "Base", "Candidate"), rows),
        f"Difference: {words.points(overall.difference)} points, 95% interval "
        f"({words.interval_name(overall)}) {words.point_range(overall.interval)}. "
        f"{words.changed(content)}; {words.tested(overall)}. "
        f"Least true difference that would be shown four times in five: {words.detectable(overall)}.",
    ]
    parts += filter(None, [words.unmarked(content)])
    bounds = words.bounds(content)
    if bounds:
        header = ("Answers that are not settled", "Items", "Difference at worst to at best, points")
        parts.append(_table(header, bounds))
    return "\n\n".join(parts)


def _leaked(contamination: Contamination) -> str:
    rows = [
        (f"`{_inline(entry.item_id)}`", f"`{entry.dataset}`", f"`{_inline(entry.row_id)}`", entry.match)
        for entry in contamination.items
    ]
    return _table(("Item", "Dataset", "Row", "Match"), rows)


def _categories(content: ComparisonContent) -> str:
    rows = [
        (
            words.category_name(entry.category),
            str(entry.difference.base.item_count),
            words.percent(entry.difference.base.accuracy),
            words.percent(entry.difference.candidate.accuracy),
            words.points(entry.difference.difference),
            f"{entry.difference.gained_count} / {entry.difference.lost_count}",
            words.p_value(entry.difference.p_value),
            words.adjusted(entry),
        )
        for entry in content.categories
    ]
    header = (
        "Category", words.counted_as(content), "Base", "Candidate", "Points", "Right / wrong", "p", "p, Holm",
    )  # fmt: skip
    return _table(header, rows)


def _training(content: ComparisonContent) -> str:
    first, last = content.training[0], content.training[-1]
    validation = [step for step in content.training if step.validation_loss is not None]
    text = f"Loss {first.loss:.4f} at step {first.step}, {last.loss:.4f} at step {last.step}."
    if validation:
        text += f" Validation loss {validation[-1].validation_loss:.4f} after step {validation[-1].step}."
    return text


def _flips(heading: str, flips: Sequence[Flip]) -> list[str]:
    parts = [heading]
    for flip in flips:
        accepted = ", ".join(f"`{_inline(answer)}`" for answer in flip.base.accepted_answers)
        parts += [
            f"### {_escaped(flip.base.item_id)}",
            _block(flip.base.prompt),
            f"Accepted: {accepted}",
            f"Base answered {_answer(flip.base)}:",
            *_output(flip.base),
            f"Candidate answered {_answer(flip.candidate)}:",
            *_output(flip.candidate),
        ]
    return parts


def _output(result: ItemResult) -> Iterator[str]:
    """What was written: reasoning folded, and the answer."""
    for parts in words.shown(result).parts[:1] or (Parts("", "", "none", 0),):
        if parts.state != "none":
            label = words.reasoning_label(parts)
            yield f"<details><summary>{label}</summary>\n\n{_block(parts.reasoning)}\n\n</details>"
        yield _block(parts.answer)


def _answer(result: ItemResult) -> str:
    if result.generation.error:
        return f"nothing ({_escaped(result.generation.error)})"
    answer = words.shown(result).verdict.extracted_answer
    of_all = f" ({words.right_samples(result)})" if result.verdicts else ""
    return (f"`{_inline(answer)}`" if answer else "nothing that could be read") + of_all


def _provenance(content: ComparisonContent) -> str:
    rows = [(fact.label, f"`{fact.base}`", f"`{fact.candidate}`") for fact in words.provenance(content)]
    blank = [tuple("" if cell == "``" else cell for cell in row) for row in rows]
    return _table(("", "Base", "Candidate"), blank)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _block(text: str) -> str:
    """A code block with a fence longer than any in the text."""
    longest = max((len(match.group()) for match in _FENCE.finditer(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _inline(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
