"""The options that say what a dataset is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from tunix_rt import Client, v1
from tunix_rt.cli.lookup import completes, named
from tunix_rt.cli.options import (
    BosTokenOption,
    EosTokenOption,
    chat_template,
    dataset_name,
    known_base_model,
    not_empty,
    resource_name,
)
from tunix_rt.cli.session import Session

NgramOption = Annotated[
    int | None,
    typer.Option(
        "--ngram-words",
        min=0,
        max=64,
        help="A shared run of this many words leaks an eval item; 0: only equal prompts. \\[default: 13]",
    ),
]


@dataclass(frozen=True)
class DatasetOptions:
    """The options that fill a dataset's spec."""

    as_of: Annotated[int, typer.Option("--as-of", min=0, help="A trace-store snapshot; 0: the newest.")] = 0
    latest: Annotated[int | None, typer.Option("--latest", min=1, help="Only the newest N traces.")] = None
    random: Annotated[
        int | None, typer.Option("--random", min=1, help="Only N traces, chosen by the seed.")
    ] = None
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME=FRACTION",
            help="A split and its share (may be repeated). \\[default: train=0.8, validation=0.1, test=0.1]",
        ),
    ] = None
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of row order, selection and splits.")] = 0
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            callback=not_empty,
            autocompletion=completes("baseModels"),
            help="The model to build it for, by name or folder. Its chat template is the default, and traces "
            "that contain one of its special tokens are left out.",
        ),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            callback=not_empty,
            help="Chat template: gemma-it, chatml, llama-3, model:NAME, model:FOLDER or file:PATH. "
            "\\[default: the base model's, else gemma-it]",
        ),
    ] = None
    system: Annotated[
        str, typer.Option("--system", help="System instruction before the first user turn.")
    ] = ""
    bos_token: BosTokenOption = ""
    eos_token: EosTokenOption = ""
    style: Annotated[
        Literal["numbered", "answer-only"], typer.Option("--style", help="How the reasoning is written.")
    ] = "numbered"
    eval_set: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-set",
            help="Leave out traces that leak an item of this eval set (may be repeated).",
            autocompletion=completes("evalSets"),
        ),
    ] = None
    ngram_words: NgramOption = None
    duplicates: Annotated[
        Literal["exact", "near", "identical"],
        typer.Option(
            "--duplicates",
            help="Which traces are duplicates, of which one is kept. exact: equal texts, ignoring case and "
            "spaces; near: similar texts too; identical: the same to the last character.",
        ),
    ] = "exact"
    similarity: Annotated[
        float | None,
        typer.Option(
            "--similarity",
            min=0.5,
            max=0.95,
            help="Similarity from which two traces are near-duplicates. \\[default: 0.8]",
        ),
    ] = None
    group_by: Annotated[
        str | None,
        typer.Option(
            "--group-by",
            metavar="KEY",
            callback=not_empty,
            help="Rows with the same value of this metadata field share a split. \\[default: same prompt]",
        ),
    ] = None
    keep_apart: Annotated[
        float | None,
        typer.Option(
            "--keep-apart",
            min=0.5,
            max=0.95,
            metavar="SIMILARITY",
            help="Drop rows whose prompt is this similar to one in another split.",
        ),
    ] = None
    parent: Annotated[
        str,
        typer.Option(
            "--parent",
            metavar="DATASET",
            autocompletion=completes("datasets"),
            help="Derive from this dataset: its rows come before any new ones, and stay in their splits.",
        ),
    ] = ""
    model_answers: Annotated[
        bool,
        typer.Option(
            "--model-answers",
            help="Also take models' answers from evaluations, as --source evaluation does.",
        ),
    ] = False
    unwritable: Annotated[
        Literal["drop", "refuse"],
        typer.Option(
            "--unwritable",
            help="What to do with rows that the template cannot write unchanged: drop and name them, or "
            "refuse the build.",
        ),
    ] = "drop"

    train_on: Annotated[
        Literal["all_assistants", "last_assistant", "marked"],
        typer.Option(
            "--train-on",
            help="Which turns of the assistant a conversation teaches; marked: those that its trace marks "
            "as to be learned. One that it marks as not to be learned never is.",
        ),
    ] = "all_assistants"
    changed_history: Annotated[
        Literal["each_turn", "refuse"],
        typer.Option(
            "--changed-history",
            help="Conversations of which the template writes earlier turns in another way when one is added: "
            "make each turn an example with what the model would have seen, or refuse the build.",
        ),
    ] = "each_turn"

    def spec(self, dataset: str, wanted: v1.TraceFilter | None) -> v1.DatasetSpec:
        """The spec without what comes from its base model; raises typer.BadParameter."""
        dataset_id, _, version = dataset.removeprefix("datasets/").partition("@")
        if self.latest is not None and self.random is not None:
            raise typer.BadParameter("--latest and --random exclude each other")
        splits = [_split(given) for given in self.split or ()]
        eval_sets = [resource_name("evalSets", name) for name in self.eval_set or ()]
        if self.similarity is not None and self.duplicates != "near":
            raise typer.BadParameter("--similarity goes with --duplicates near")
        # A list must not wait for what only a build needs.
        from tunix_rt.loop.specs import filled, selection, split_group

        return filled(
            v1.DatasetSpec(filter=wanted, splits=splits),
            {
                "dataset_id": dataset_id,
                "version": version,
                "as_of": self.as_of,
                "selection": selection(self.latest, self.random),
                "seed": self.seed,
                "reasoning_style": self.style,
                "eval_sets": eval_sets,
                "decontamination": {"ngram_words": self.ngram_words},
                "deduplication": {"method": self.duplicates, "threshold": self.similarity},
                "split_group": split_group(self.group_by, self.keep_apart),
                "parent": dataset_name(self.parent) if self.parent else "",
                "unwritable_rows": self.unwritable,
                "train_on": self.train_on,
                "changed_history": self.changed_history,
                "model_answers": "keep" if self.model_answers else None,
            },
        )

    def complete(self, session: Session, client: Client, spec: v1.DatasetSpec) -> None:
        """Give the spec whole names, its chat template, and the special tokens of the base model."""
        spec.eval_sets[:] = [named(session, client, name) for name in spec.eval_sets]
        if spec.parent:
            spec.parent = named(session, client, spec.parent)
        template = self.template
        if self.base_model:
            spec.special_tokens.extend(known_base_model(client, self.base_model).special_tokens)
            template = template or f"model:{self.base_model}"
        if template or self.system:
            spec.chat_template.CopyFrom(
                chat_template(
                    client,
                    template or "gemma-it",
                    system_instruction=self.system,
                    bos_token=self.bos_token,
                    eos_token=self.eos_token,
                )
            )


def _split(given: str) -> v1.SplitFraction:
    name, equals, share = given.partition("=")
    try:
        fraction = float(share)
    except ValueError:
        fraction = 0.0
    if not name or not equals or not 0 < fraction <= 1:
        raise typer.BadParameter(f"--split takes NAME=FRACTION such as train=0.8, not {given!r}")
    return v1.SplitFraction(split=name, fraction=fraction)
