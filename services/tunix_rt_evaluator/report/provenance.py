"""Everything that could change the result of a comparison, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tunix_rt_evaluator.comparisons.model import ComparisonContent
from tunix_rt_evaluator.eval_sets.model import eval_set_name
from tunix_rt_evaluator.evaluations.model import Evaluation, evaluation_name
from tunix_rt_evaluator.grading.reasoning.marks import described
from tunix_rt_evaluator.report.words import model_name


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


def provenance(content: ComparisonContent) -> list[Fact]:
    """Everything that could change the result, side by side."""
    base, candidate = dict(_facts(content.base)), dict(_facts(content.candidate))
    labels = list(dict.fromkeys([*base, *candidate]))
    facts = [Fact(label, base.get(label, ""), candidate.get(label, "")) for label in labels]
    if content.more_bases or content.more_candidates:
        facts.insert(1, Fact("Further seeds", _names(content.more_bases), _names(content.more_candidates)))
    return facts


def _facts(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    manifest = evaluation.manifest
    if manifest is None:
        return
    unknown = "not known" if manifest.spec.endpoint_model else ""
    yield "Evaluation", evaluation_name(evaluation.id)
    yield "Model", model_name(evaluation)
    yield "Base model", "" if manifest.spec.endpoint_model else evaluation.inputs.base_model
    yield "Eval set", eval_set_name(manifest.spec.eval_set)
    yield "Eval set digest", manifest.eval_set_digest
    yield "Base weights digest", manifest.base_weights_digest or unknown
    yield "Base configuration digest", manifest.base_config_digest or unknown
    yield "Tokenizer digest", manifest.tokenizer_digest or unknown
    yield "Checkpoint digest", manifest.checkpoint_digest
    yield "Training manifest digest", manifest.training_manifest_digest
    yield "Dataset digest", manifest.dataset_digest
    yield "Chat template digest", manifest.chat_template_digest or unknown
    yield "Results digest", manifest.results_digest
    if evaluation.manifest_file is not None:
        yield "Evaluation manifest digest", evaluation.manifest_file.digest
    yield (
        "Decoding",
        _pairs({name: str(value) for name, value in manifest.spec.decoding.model_dump().items()}),
    )
    yield "Type of weights", manifest.spec.dtype or unknown
    yield "Reasoning", described(manifest.spec.reasoning_marks)
    yield "Graders", ", ".join(manifest.graders)
    yield "Engine", manifest.engine
    yield "Device", manifest.device
    yield "tunix-rt", manifest.code_revision
    yield "Packages", _pairs(manifest.package_versions)
    yield "Runtime settings", _pairs(manifest.runtime_settings)


def _names(evaluations: Sequence[Evaluation]) -> str:
    return ", ".join(
        f"{evaluation_name(evaluation.id)} ({model_name(evaluation)})" for evaluation in evaluations
    )


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))
