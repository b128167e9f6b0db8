"""Numbers and facts of a report in words, the same in every document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tunix_rt_evaluator.model import (
    Accuracy,
    ComparisonContent,
    Evaluation,
    Interval,
    VerdictName,
)
from tunix_rt_evaluator.names import eval_set_name, evaluation_name

VERDICTS: Final[dict[VerdictName, str]] = {
    "IMPROVED": "Improved",
    "REGRESSED": "Regressed",
    "NO_EVIDENCE": "No evidence of a difference",
}
_SMALLEST_P: Final = 0.0001


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of the provenance table; ``same`` where base and candidate agree."""

    label: str
    base: str
    candidate: str

    @property
    def same(self) -> bool:
        """Whether both sides say the same."""
        return self.base == self.candidate


def percent(share: float) -> str:
    """``0.256`` as ``25.6%``."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: ``+23.4``."""
    return (
        f"{100 * difference:+.1f}".replace("-", "\u2212").replace("+0.0", "0.0").replace("\u22120.0", "0.0")
    )


def share_range(interval: Interval) -> str:
    """An interval of a share: ``18.1% to 34.2%``."""
    return f"{percent(interval.lower)} to {percent(interval.upper)}"


def point_range(interval: Interval) -> str:
    """An interval of a difference in percentage points: ``+14.0 to +32.1``."""
    return f"{points(interval.lower)} to {points(interval.upper)}"


def p_value(value: float) -> str:
    """A p-value with two significant digits; very small ones as a bound."""
    if value < _SMALLEST_P:
        return f"< {_SMALLEST_P:g}"
    return f"{value:.2g}" if value < 0.995 else "1"


def p_relation(value: float) -> str:
    """A p-value as it follows the letter: ``= 0.012`` or ``< 0.0001``."""
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def fraction(accuracy: Accuracy) -> str:
    """``32 of 128``."""
    return f"{accuracy.correct_count} of {accuracy.item_count}"


def category_name(category: str) -> str:
    """A category for people."""
    return category.replace("_", " ") or "(none)"


def headline(content: ComparisonContent) -> str:
    """What was found, in one sentence."""
    overall = content.overall
    return (
        f"The candidate answered {fraction(overall.candidate)} items right, the base "
        f"{fraction(overall.base)}: "
        f"{points(overall.difference)} percentage points (95% interval {point_range(overall.interval)}), "
        "exact "
        f"McNemar p {p_relation(overall.p_value)}."
    )


def model_name(evaluation: Evaluation) -> str:
    """What was evaluated, for people."""
    return evaluation.spec.checkpoint or evaluation.spec.base_model or ""


def counted(content: ComparisonContent) -> list[tuple[str, str, str]]:
    """What happened to the answers besides right and wrong: (label, base, candidate)."""
    base, candidate = content.base.summary, content.candidate.summary
    if base is None or candidate is None:
        return []
    return [
        (
            "Cut at the most new tokens",
            str(base.truncated_count),
            str(candidate.truncated_count),
        ),
        ("Could not be run", str(base.failed_count), str(candidate.failed_count)),
        ("Tokens written", f"{base.generated_tokens:,}", f"{candidate.generated_tokens:,}"),
    ]


def provenance(content: ComparisonContent) -> list[Fact]:
    """Everything that could change the result, side by side."""
    base, candidate = dict(_facts(content.base)), dict(_facts(content.candidate))
    labels = list(dict.fromkeys([*base, *candidate]))
    return [Fact(label, base.get(label, ""), candidate.get(label, "")) for label in labels]


def _facts(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    manifest = evaluation.manifest
    if manifest is None:
        return
    decoding = manifest.spec.decoding
    yield "Evaluation", evaluation_name(evaluation.id)
    yield "Model", model_name(evaluation)
    yield "Base model", evaluation.inputs.base_model
    yield "Eval set", eval_set_name(manifest.spec.eval_set)
    yield "Eval set digest", manifest.eval_set_digest
    yield "Base weights digest", manifest.base_weights_digest
    yield "Tokenizer digest", manifest.tokenizer_digest
    yield "Checkpoint digest", manifest.checkpoint_digest
    yield "Training manifest digest", manifest.training_manifest_digest
    yield "Dataset digest", manifest.dataset_digest
    yield "Chat template digest", manifest.chat_template_digest
    yield "Results digest", manifest.results_digest
    if evaluation.manifest_file is not None:
        yield "Evaluation manifest digest", evaluation.manifest_file.digest
    yield "Decoding", f"greedy, at most {decoding.max_new_tokens} new tokens, {decoding.batch_size} at a time"
    yield "Type of weights", manifest.spec.dtype
    yield "Graders", ", ".join(manifest.graders)
    yield "Engine", manifest.engine
    yield "Device", manifest.device
    yield "tunix-rt", manifest.code_revision
    yield "Packages", _pairs(manifest.package_versions)
    yield "Runtime settings", _pairs(manifest.runtime_settings)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
