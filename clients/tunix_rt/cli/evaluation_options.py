"""The options that say which model is asked, how it answers, and which answers are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from tunix_rt import Client, v1
from tunix_rt.cli.lookup import checkpoint_name, completes
from tunix_rt.cli.options import (
    BosTokenOption,
    EosTokenOption,
    Shown,
    SpecOptions,
    chat_template,
    spec_options,
)
from tunix_rt.cli.session import Session
from tunix_rt.formats import GRADER_KINDS
from tunix_rt.loop.settings import DecodingSettings
from tunix_rt.schema import nearest

_SAMPLING = "Sampling"
_SHOWN = {
    "max_new_tokens": Shown("Tokens of an answer, at most. \\[default: 128]"),
    "batch_size": Shown("Answers generated together. \\[default: 16]"),
    "temperature": Shown(
        "Sampling temperature, 0.001 to 5; 0 takes the most probable tokens. \\[default: 0]",
        _SAMPLING,
    ),
    "top_p": Shown(
        "Sample from the most probable tokens that sum to this, 0.000001 to 1. \\[default: 1]", _SAMPLING
    ),
    "seed": Shown("Seed of the sampling. \\[default: 0]", _SAMPLING),
    "samples": Shown(
        "Answers for each item, up to 64; more than 1 needs a temperature. \\[default: 1]", _SAMPLING
    ),
    "log_probabilities": Shown("Keep the log-probability of each token.", flags=("--logprobs",)),
}


@spec_options(DecodingSettings, _SHOWN)
class DecodingOptions(SpecOptions):
    """How answers are generated."""


@dataclass(frozen=True)
class ModelOptions:
    """What is asked, and in which chat template."""

    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            "-m",
            help="A base model's id, or a Hugging Face folder on the evaluator's host.",
            autocompletion=completes("baseModels"),
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="A checkpoint; or a training job, for its best or else its latest one.",
            autocompletion=completes("trainingJobs"),
        ),
    ] = None
    endpoint_model: Annotated[
        str | None,
        typer.Option(
            "--endpoint-model",
            help="A model of an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama, by its name "
            "there; TUNIX_RT_EVALUATOR_ENDPOINT_URL says to the evaluator where that is.",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Chat template: gemma-it, chatml, llama-3, model:NAME or file:PATH. "
            "\\[default: the checkpoint's, or the model's own]",
        ),
    ] = None
    system: Annotated[str, typer.Option("--system", help="With --template: its system instruction.")] = ""
    bos_token: BosTokenOption = ""
    eos_token: EosTokenOption = ""

    def check(self) -> None:
        """Raise typer.BadParameter unless one model is given, and a system instruction with its template."""
        given = (self.base_model, self.checkpoint, self.endpoint_model)
        if sum(model is not None for model in given) != 1:
            raise typer.BadParameter("give --base-model, --checkpoint or --endpoint-model, one of the three")
        if self.system and self.template is None:
            raise typer.BadParameter("--system goes with --template")

    def fill(self, session: Session, client: Client, spec: v1.EvaluationSpec) -> None:
        """Say in the spec which model is asked, and in which template."""
        if self.base_model is not None:
            spec.base_model = self.base_model
        elif self.endpoint_model is not None:
            spec.endpoint_model = self.endpoint_model
        elif self.checkpoint is not None:
            spec.checkpoint = checkpoint_name(session, client, self.checkpoint)
        if self.template is not None:
            spec.chat_template.CopyFrom(
                chat_template(
                    client,
                    self.template,
                    system_instruction=self.system,
                    bos_token=self.bos_token,
                    eos_token=self.eos_token,
                )
            )


@dataclass(frozen=True)
class ItemOptions:
    """Which items of an evaluation are shown."""

    wrong: Annotated[bool, typer.Option("--wrong", help="Only answers that are wrong.")] = False
    right: Annotated[bool, typer.Option("--right", help="Only answers that are right.")] = False
    category: Annotated[
        str | None, typer.Option("--category", help="Only items of this category ('' for none).")
    ] = None
    grader: Annotated[
        str, typer.Option("--grader", help="Only items of this kind of grader, such as numeric.")
    ] = ""
    cut_short: Annotated[
        bool, typer.Option("--cut-short", help="Only items with an answer that reached --max-new-tokens.")
    ] = False
    failed: Annotated[
        bool, typer.Option("--failed", help="Only items for which no answer was generated.")
    ] = False
    unclosed: Annotated[
        bool, typer.Option("--unclosed", help="Only items with reasoning that was never closed.")
    ] = False
    ungraded: Annotated[
        bool, typer.Option("--ungraded", help="Only answers that could not be graded, and why.")
    ] = False

    def filter(self) -> v1.EvaluationItemFilter:
        """The filter; raises typer.BadParameter for options that exclude each other."""
        if self.wrong and self.right:
            raise typer.BadParameter("give --wrong or --right, not both")
        if self.cut_short and self.failed:
            raise typer.BadParameter("give --cut-short or --failed, not both")
        if self.grader and self.grader not in GRADER_KINDS:
            known = nearest(self.grader, GRADER_KINDS)
            raise typer.BadParameter(f"--grader: {self.grader!r} is no kind of grader; {known}")
        wanted = v1.EvaluationItemFilter(category=self.category, grader=self.grader)
        if self.wrong or self.right:
            wanted.correct = self.right
        if self.ungraded:
            wanted.ungraded = True
        if self.unclosed:
            wanted.unclosed_reasoning = True
        if self.cut_short or self.failed:
            wanted.finish_reason = v1.FINISH_REASON_LENGTH if self.cut_short else v1.FINISH_REASON_FAILED
        return wanted
