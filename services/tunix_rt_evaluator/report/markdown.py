"""A report as Markdown in GitHub's dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tunix_rt.escapes import visible
from tunix_rt_evaluator.comparisons.model import ComparisonContent, Contamination, Flip
from tunix_rt_evaluator.comparisons.patterns import groups, in_order, shown
from tunix_rt_evaluator.comparisons.policy import POLICY
from tunix_rt_evaluator.evaluations.model import ItemResult
from tunix_rt_evaluator.grading.model import Parts
from tunix_rt_evaluator.report import words

IN_FULL = 25
"""Items that went wrong, and as many that went right, whose whole answers are written out."""
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
        *_groups(name, content, regressed=True),
        *_groups(name, content, regressed=False),
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
    parts += ["## Provenance", f"Report `{name}`, content `{digest}`.", _provenance(content)]
    parts += ["## How the verdict is reached", _escaped(POLICY)]
    parts += _in_full(name, content)
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


def _groups(name: str, content: ComparisonContent, *, regressed: bool) -> Iterator[str]:
    """The items that went wrong, or right, by pattern: a table of the groups, then one of each group."""
    found = groups(content, regressed=regressed)
    yield f"## Went {'wrong' if regressed else 'right'} ({sum(group.count for group in found)})"
    right, wrong = ("base", "candidate") if regressed else ("candidate", "base")
    if not found:
        yield f"No item that the {right} answered right was answered wrong by the {wrong}."
        return
    of_first = " Of several seeds, the first evaluation of each side is meant." if content.seeds else ""
    yield f"The {right} answered these right, the {wrong} wrong. {words.BY_RULE}{of_first}"
    if regressed:
        command = f"tunix-rt reports regressions {name.removeprefix('comparisonReports/')}"
        if content.candidate.inputs.checkpoint is None:
            yield f"The worst first: `{command}`."
        else:
            rows_too = "with the training rows nearest to each question"
            yield f"The worst first, {rows_too}: `{command} --training-rows 3`."
    if len(found) > 1:
        rows = [(group.heading, str(group.count), group.why) for group in found]
        yield _table(("Pattern", "Items", "By the rule that"), rows)
    for group in found:
        yield f"### {group.heading} ({group.count})"
        if group.rule and len(found) == 1:
            yield f"By the rule that {group.why}."
        header = ("Category", "Question", "Accepted", "Base", "Candidate", "Item")
        yield _table(header, map(_row, group.shown))
        if group.left_out:
            yield words.left_out(group.left_out, name, regressed=regressed)


def _row(flip: Flip) -> tuple[str, ...]:
    base, candidate = flip.base, flip.candidate
    return (
        _cell(words.category_name(base.category)),
        _cell(words.question(base)),
        f"`{_inline(words.accepted(base))}`" if base.accepted_answers else "",
        _end(base),
        _end(candidate),
        f"`{_inline(base.item_id)}`",
    )


def _end(result: ItemResult) -> str:
    """The value that was read, and the end of the text."""
    value = words.value(result)
    read = f"**`{_inline(value)}`** " if value else ""
    return f"{read}{_cell(words.end(result)) or '(nothing)'}"


def _in_full(name: str, content: ComparisonContent) -> Iterator[str]:
    """The whole answers to the items that changed, those that went wrong first."""
    for regressed in (True, False):
        flips = in_order(flip for flip in content.flips if flip.regressed is regressed)
        if not flips:
            continue
        yield f"## Answers in full: went {'wrong' if regressed else 'right'}"
        for flip in flips[:IN_FULL]:
            yield from _flip(flip)
        if len(flips) > IN_FULL:
            yield words.left_out(len(flips) - IN_FULL, name, regressed=regressed)


def _flip(flip: Flip) -> Iterator[str]:
    yield f"### {_escaped(flip.base.item_id)}"
    yield _block(flip.base.prompt)
    yield f"Accepted: {', '.join(f'`{_inline(answer)}`' for answer in flip.base.accepted_answers)}"
    for side, result in (("Base", flip.base), ("Candidate", flip.candidate)):
        yield f"{side} answered {_answer(result)}:"
        yield from _output(result)


def _output(result: ItemResult) -> Iterator[str]:
    """What was written: reasoning folded, and the answer."""
    for parts in shown(result).parts[:1] or (Parts("", "", "none", 0),):
        if parts.state != "none":
            label = words.reasoning_label(parts)
            yield f"<details><summary>{label}</summary>\n\n{_block(parts.reasoning)}\n\n</details>"
        yield _block(parts.answer)


def _answer(result: ItemResult) -> str:
    if result.generation.error:
        return f"nothing ({_escaped(result.generation.error)})"
    answer = shown(result).verdict.extracted_answer
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


def _cell(text: str) -> str:
    """As ``_escaped``, for a table, which escapes what parts its cells."""
    return _escaped(text).replace("\\|", "|")


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", " ".join(text.split()))
