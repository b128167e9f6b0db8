"""`tunix-rt dataset`: build immutable datasets from traces, and export them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from tunix_rt import jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.console import output_stream
from tunix_rt.cli.dataset_view import (
    first_dropped,
    fitting_models,
    print_audit,
    print_audits,
    print_dataset,
    print_dropped,
    run_audit,
    supervision_audit,
)
from tunix_rt.cli.options import (
    DATASET_FORMATS,
    REASONING_STYLES,
    DatasetFormat,
    FilterOptions,
    ReasoningStyle,
    chat_template,
    dataset_name,
    filled,
    known_base_model,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import dataset_progress
from tunix_rt.cli.session import Session, waiting_for
from tunix_rt.errors import DataLossError, NotFoundError

app = group("Build immutable datasets from traces, and export them.")
_AUDITS_SHOWN = 5


class Unwritable(StrEnum):
    """What becomes of rows that the chat template cannot write as they are."""

    DROP = "drop"
    REFUSE = "refuse"


class Duplicates(StrEnum):
    """Which traces count as duplicates of each other."""

    EXACT = "exact"
    NEAR = "near"
    IDENTICAL = "identical"


_METHODS = {
    Duplicates.EXACT: v1.Deduplication.METHOD_EXACT,
    Duplicates.NEAR: v1.Deduplication.METHOD_NEAR,
    Duplicates.IDENTICAL: v1.Deduplication.METHOD_IDENTICAL,
}

UNWRITABLE = {Unwritable.DROP: v1.UNWRITABLE_ROWS_DROP, Unwritable.REFUSE: v1.UNWRITABLE_ROWS_REFUSE}

UnwritableOption = Annotated[
    Unwritable,
    typer.Option(
        "--unwritable",
        help="Rows that the template cannot write as they are: drop and name them, or refuse the build.",
    ),
]
ModelAnswersOption = Annotated[
    bool,
    typer.Option(
        "--model-answers",
        help="Take what models answered in evaluations too, as --source evaluation does.",
    ),
]
DuplicatesOption = Annotated[
    Duplicates,
    typer.Option(
        "--duplicates",
        help="Keep one of: exact, texts that are equal but for case and spaces; near, similar ones too; "
        "identical, only contents that are the same to the last character.",
    ),
]
SimilarityOption = Annotated[
    float | None,
    typer.Option(
        "--similarity", min=0.5, max=0.95, help="From where on two are near-duplicates. \\[default: 0.8]"
    ),
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="KEY",
        callback=filled,
        help="Rows with the same value of this metadata field share a split. \\[default: same prompt]",
    ),
]
KeepApartOption = Annotated[
    float | None,
    typer.Option(
        "--keep-apart",
        min=0.5,
        max=0.95,
        metavar="SIMILARITY",
        help="Drop rows whose prompt is this similar to one in another split.",
    ),
]
NgramOption = Annotated[
    int | None,
    typer.Option(
        "--ngram-words",
        min=0,
        max=64,
        help="So many words in a row give an eval item away; 0: only equal prompts. \\[default: 13]",
    ),
]
ParentOption = Annotated[
    str,
    typer.Option(
        "--parent",
        metavar="DATASET",
        help="Derive from this dataset: its rows come before any new ones, and stay in their splits.",
    ),
]


@command(
    app,
    "build",
    example=(
        "tunix-rt dataset build arithmetic --source generator --base-model smollm2-135m-instruct",
        "tunix-rt dataset build gsm8k@2 --source gsm8k --random 1000 --split train=0.9 --split test=0.1",
        "tunix-rt dataset build gsm8k@3 --duplicates near --keep-apart 0.8 --eval-set gsm8k-test",
    ),
)
def build(
    session: Session,
    dataset: Annotated[
        str, typer.Argument(metavar="ID[@VERSION]", help="Its name; the version defaults to 1.")
    ],
    wanted: FilterOptions,
    as_of: Annotated[int, typer.Option("--as-of", min=0, help="A trace-store snapshot; 0: the newest.")] = 0,
    latest: Annotated[int | None, typer.Option("--latest", min=1, help="Only the newest N traces.")] = None,
    random: Annotated[
        int | None, typer.Option("--random", min=1, help="Only N traces, drawn by the seed.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME=FRACTION",
            help="A split and its share (may be repeated). \\[default: train=0.8, validation=0.1, test=0.1]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of row order, selection and splits.")] = 0,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            callback=filled,
            help="The model that it is for, by name or folder: its chat template is the default, and traces "
            "that hold one of its special tokens are left out.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            callback=filled,
            help="Chat template: gemma-it, chatml, llama-3, model:NAME, model:FOLDER or file:PATH. "
            "\\[default: the base model's, else gemma-it]",
        ),
    ] = None,
    system: Annotated[
        str, typer.Option("--system", help="System instruction before the first user turn.")
    ] = "",
    bos_token: Annotated[
        str, typer.Option("--bos-token", help="For a Jinja file: text of its bos_token.")
    ] = "",
    eos_token: Annotated[
        str, typer.Option("--eos-token", help="For a Jinja file: text of its eos_token.")
    ] = "",
    style: Annotated[
        ReasoningStyle, typer.Option("--style", help="How the reasoning is written.")
    ] = ReasoningStyle.NUMBERED,
    eval_set: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-set", help="Leave out traces that give away an item of this eval set (may be repeated)."
        ),
    ] = None,
    ngram_words: NgramOption = None,
    duplicates: DuplicatesOption = Duplicates.EXACT,
    similarity: SimilarityOption = None,
    group_by: GroupByOption = None,
    keep_apart: KeepApartOption = None,
    parent: ParentOption = "",
    model_answers: ModelAnswersOption = False,
    unwritable: UnwritableOption = Unwritable.DROP,
) -> None:
    """Build a dataset: traces selected, split and rendered, bound to its name for ever."""
    dataset_id, _, version = dataset.removeprefix("datasets/").partition("@")
    spec = v1.DatasetSpec(
        dataset_id=dataset_id,
        version=version,
        filter=wanted.filter(),
        as_of=as_of,
        selection=_selection(latest, random),
        splits=[_split(given) for given in split or ()],
        seed=seed,
        reasoning_style=REASONING_STYLES[style],
        eval_sets=[resource_name("evalSets", name) for name in eval_set or ()],
        decontamination=decontamination(ngram_words),
        deduplication=deduplication(duplicates, similarity),
        split_group=split_group(group_by, keep_apart),
        parent=dataset_name(parent) if parent else "",
        unwritable_rows=UNWRITABLE[unwritable],
        model_answers=v1.MODEL_ANSWERS_KEEP if model_answers else v1.MODEL_ANSWERS_UNSPECIFIED,
    )
    with session.connect() as client:
        if base_model:
            model = known_base_model(client, base_model)
            spec.special_tokens.extend(model.special_tokens)
            template = template or f"model:{base_model}"
        if template or system:
            spec.chat_template.CopyFrom(
                chat_template(
                    client,
                    template or "gemma-it",
                    system_instruction=system,
                    bos_token=bos_token,
                    eos_token=eos_token,
                )
            )
        created = client.exporter.create_dataset(spec=spec)
        with (
            session.progress() as progress,
            waiting_for(session, "build", f"tunix-rt dataset show {short_name(created.name)}"),
        ):
            built = jobs.wait_for_dataset(client, created.name, on_update=dataset_progress(progress))
        models = fitting_models(client, built)
    _show(session, built, models)


@command(app, "list", example="tunix-rt dataset list --json")
def list_(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most datasets shown.")] = 20,
) -> None:
    """List datasets, newest first."""
    with session.connect() as client:
        found = list(islice(client.exporter.list_datasets(page_size=min(limit, 50)), limit))
    if session.as_json:
        session.print_messages(found)
        return
    rows = tables.table("DATASET", "!STATE", ">ROWS", "SPLITS", "DIGEST", ">AGE")
    for dataset in found:
        tables.add_row(
            rows,
            short_name(dataset.name),
            tables.state(v1.Dataset.State.Name(dataset.state)),
            text.count(sum(part.row_count for part in dataset.splits)),
            ", ".join(f"{part.split} {part.row_count:,}" for part in dataset.splits) or "-",
            text.short_digest(dataset.digest),
            tables.age(dataset.create_time),
        )
    tables.print_table(session.out, rows, "no datasets")


@command(
    app,
    "show",
    example=(
        "tunix-rt dataset show arithmetic@1",
        "tunix-rt dataset show arithmetic@1 --audit smollm2-135m-instruct --max-length 512",
    ),
)
def show(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
    audit: Annotated[
        str | None,
        typer.Option(
            "--audit",
            metavar="BASE_MODEL",
            help="Count what this model would learn of it; counted once.",
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="For --audit: most tokens of an example.")
    ] = 256,
    packing_length: Annotated[
        list[int] | None,
        typer.Option(
            "--packing-length",
            min=1,
            help="For --audit: a length of packed sequences (may be repeated). \\[default: --max-length]",
        ),
    ] = None,
) -> None:
    """Show one dataset: its splits, what was left out and why, its figures, its audits and its digest."""
    name = dataset_name(dataset)
    audits: list[v1.SupervisionAudit] = []
    with session.connect() as client:
        found = client.exporter.get_dataset(name)
        if audit is not None:
            with session.progress() as progress:
                audits = [
                    supervision_audit(
                        client,
                        progress,
                        name,
                        audit,
                        max_length=max_length,
                        packing_lengths=packing_length or (),
                    )
                ]
        elif found.digest and not session.as_json:
            audits = list(islice(client.exporter.list_supervision_audits(name), _AUDITS_SHOWN))
        models = None if session.as_json else fitting_models(client, found)
        report: list[Any] = []
        unread = ""
        if not session.as_json and found.dropped_rows.size_bytes:
            try:
                report = first_dropped(client, name)
            except (DataLossError, NotFoundError) as error:
                unread = error.message
    if session.as_json:
        session.print_message(found if audit is None else audits[0])
        return
    print_dataset(session.out, found, models)
    if report:
        print_dropped(session.out, report)
    if unread:
        session.err.print(
            f"the rows that were left out cannot be shown: {unread}", markup=False, soft_wrap=True
        )
    if audit is not None:
        print_audit(session.out, audits[0])
    else:
        print_audits(session.out, audits)
    if found.digest and not audits:
        session.out.print(
            f"tokens are counted by: tunix-rt dataset show {short_name(name)} --audit BASE_MODEL",
            style="dim",
            highlight=False,
        )


@command(
    app,
    "dropped",
    example="tunix-rt dataset dropped gsm8k@3 > dropped.jsonl",
)
def dropped(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
) -> None:
    """Write each row that was left out, and what it matched, as JSON lines.

    They are written as they arrive: with exit code 1, they are not whole.
    """
    with session.connect() as client, output_stream(Path("-")) as stdout:
        client.exporter.read_dropped_rows_into(dataset_name(dataset), stdout)


@command(
    app,
    "audit",
    example=(
        "tunix-rt dataset audit gsm8k@3 --against gsm8k-test",
        "tunix-rt dataset audit --against gsm8k-test --json",
    ),
)
def audit(
    session: Session,
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="ID, or ID@VERSION; left out, all of them.")
    ] = None,
    against: Annotated[str, typer.Option("--against", metavar="EVALSET", help="The eval set.")] = ...,  # type: ignore[assignment]
    ngram_words: NgramOption = None,
) -> None:
    """Find rows that give away an eval set, and the checkpoints, evaluations and reports that they touch.

    Rows of the split train are learned; an eval set that was made of a held-out split is found in that split.
    """
    run_audit(
        session,
        resource_name("evalSets", against),
        dataset_name(dataset) if dataset else None,
        decontamination(ngram_words),
    )


@command(
    app,
    "export",
    example=(
        "tunix-rt dataset export arithmetic@1 --split train --format training_example -o train.jsonl",
        "tunix-rt dataset export arithmetic@1 --format chat_parquet -o train.parquet",
        "tunix-rt dataset export arithmetic@1 --split test | head -1",
    ),
)
def export(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
    split: Annotated[str, typer.Option("--split", help="Which split.")] = "train",
    format: Annotated[
        DatasetFormat, typer.Option("--format", "-f", help="How rows are written.")
    ] = DatasetFormat.TRAINING_EXAMPLE,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to; - is stdout.")] = Path("-"),
) -> None:
    """Write one split as JSON lines or Parquet.

    A file appears whole or not at all; to stdout, bytes are written as they arrive: with exit code 1, they
    are not whole.
    """
    name = dataset_name(dataset)
    wanted = DATASET_FORMATS[format]
    if str(output) == "-" and format.value.endswith("_parquet") and _on_terminal():
        raise typer.BadParameter(f"{format.value} is not text; give -o FILE, or redirect the output")
    with session.connect() as client:
        if str(output) == "-":
            with output_stream(output) as stdout:
                client.exporter.read_dataset_into(name, split, stdout, format=wanted)
        else:
            with session.progress() as progress:
                # A format that nobody asked for before is made first.
                writing = progress.bar(f"{format.value} of {split}")
                header = client.exporter.download_dataset(name, split, output, format=wanted)
                writing.finish()
            session.say(f"{text.size(header.size_bytes)} written to {output}")


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _selection(latest: int | None, random: int | None) -> v1.Selection | None:
    if latest is not None and random is not None:
        raise typer.BadParameter("--latest and --random exclude each other")
    if latest is not None:
        return v1.Selection(latest=latest)
    return v1.Selection(random=random) if random is not None else None


def _split(given: str) -> v1.SplitFraction:
    name, equals, share = given.partition("=")
    try:
        fraction = float(share)
    except ValueError:
        fraction = 0.0
    if not name or not equals or not 0 < fraction <= 1:
        raise typer.BadParameter(f"--split takes NAME=FRACTION such as train=0.8, not {given!r}")
    return v1.SplitFraction(split=name, fraction=fraction)


def _show(session: Session, dataset: v1.Dataset, models: Sequence[str] | None) -> None:
    if session.as_json:
        session.print_message(dataset)
    else:
        print_dataset(session.out, dataset, models)


def deduplication(duplicates: Duplicates, similarity: float | None) -> v1.Deduplication:
    """Which traces count as duplicates. Raises typer.BadParameter."""
    if similarity is not None and duplicates is not Duplicates.NEAR:
        raise typer.BadParameter("--similarity goes with --duplicates near")
    return v1.Deduplication(method=_METHODS[duplicates], threshold=similarity)


def split_group(field: str | None, similarity: float | None) -> v1.SplitGroup:
    """Which rows share a split."""
    if field is not None:
        return v1.SplitGroup(metadata_field=field, near_duplicate_threshold=similarity)
    return v1.SplitGroup(prompt=True, near_duplicate_threshold=similarity)


def decontamination(ngram_words: int | None) -> v1.Decontamination:
    """How rows are compared with eval items."""
    return v1.Decontamination(ngram_words=ngram_words)
