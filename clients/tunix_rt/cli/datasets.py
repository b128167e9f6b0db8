"""`tunix-rt dataset`: build immutable datasets from traces, and export them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group
from tunix_rt.cli.console import output_stream
from tunix_rt.cli.dataset_view import (
    LeakDocument,
    added_since,
    first_dropped,
    fitting_models,
    print_audit,
    print_audits,
    print_dataset,
    print_dropped,
    run_audit,
    supervision_audit,
)
from tunix_rt.cli.deleting import ForceOption, YesOption, delete_resources
from tunix_rt.cli.documents import Lines
from tunix_rt.cli.options import (
    BosTokenOption,
    DatasetFormat,
    EosTokenOption,
    FilterOptions,
    LimitOption,
    chat_template,
    dataset_name,
    known_base_model,
    not_empty,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import dataset_progress
from tunix_rt.cli.session import Session
from tunix_rt.errors import DataLossError, NotFoundError
from tunix_rt.loop.specs import filled, selection, split_group

app = group("Build immutable datasets from traces, and export them.")
_AUDITS_SHOWN = 5


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
            help="The model that it is for, by name or folder: its chat template is the default, and traces "
            "that hold one of its special tokens are left out.",
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
            "--eval-set", help="Leave out traces that leak an item of this eval set (may be repeated)."
        ),
    ] = None
    ngram_words: NgramOption = None
    duplicates: Annotated[
        Literal["exact", "near", "identical"],
        typer.Option(
            "--duplicates",
            help="Keep one of: exact, texts that are equal but for case and spaces; near, similar ones too; "
            "identical, only contents that are the same to the last character.",
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
            help="Rows that the template cannot write as they are: drop and name them, or refuse the build.",
        ),
    ] = "drop"

    def spec(self, dataset: str, wanted: v1.TraceFilter | None) -> v1.DatasetSpec:
        """The spec without what comes from its base model; raises typer.BadParameter."""
        dataset_id, _, version = dataset.removeprefix("datasets/").partition("@")
        if self.latest is not None and self.random is not None:
            raise typer.BadParameter("--latest and --random exclude each other")
        splits = [_split(given) for given in self.split or ()]
        eval_sets = [resource_name("evalSets", name) for name in self.eval_set or ()]
        if self.similarity is not None and self.duplicates != "near":
            raise typer.BadParameter("--similarity goes with --duplicates near")
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
                "model_answers": "keep" if self.model_answers else None,
            },
        )

    def fit_to_model(self, client: Client, spec: v1.DatasetSpec) -> None:
        """Give the spec its chat template, and the special tokens of the base model."""
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


@command(
    app,
    "build",
    example=(
        "tunix-rt dataset build arithmetic --source generator --base-model smollm2-135m-instruct",
        "tunix-rt dataset build gsm8k@2 --source gsm8k --random 1000 --split train=0.9 --split test=0.1",
        "tunix-rt dataset build gsm8k@3 --duplicates near --keep-apart 0.8 --eval-set gsm8k-test",
    ),
    prints=v1.Dataset,
)
def build(
    session: Session,
    dataset: Annotated[
        str, typer.Argument(metavar="ID[@VERSION]", help="Its name; the version defaults to 1.")
    ],
    wanted: FilterOptions,
    options: DatasetOptions,
) -> None:
    """Build a dataset: select, split and render traces, and bind the result to its name for ever."""
    spec = options.spec(dataset, wanted.filter())
    with session.connect() as client:
        options.fit_to_model(client, spec)
        created = client.exporter.create_dataset(spec=spec)
        with (
            session.progress() as progress,
            session.waiting_for("build", created, f"tunix-rt dataset show {short_name(created.name)}"),
        ):
            built = jobs.wait_for_dataset(client, created.name, on_update=dataset_progress(progress))
        models = fitting_models(client, built)
    session.show(built, partial(print_dataset, models=models))


@command(app, "list", example="tunix-rt dataset list --json", prints=list[v1.Dataset])
def list_(session: Session, limit: LimitOption = 20) -> None:
    """List datasets, newest first."""
    columns = ("DATASET", "!STATE", ">ROWS", "SPLITS", "DIGEST", ">AGE")
    with session.connect() as client:
        found = islice(client.exporter.list_datasets(page_size=min(limit, 50)), limit)
        session.show_all(found, columns, _row, "no datasets")


def _row(dataset: v1.Dataset) -> tables.Row:
    return (
        short_name(dataset.name),
        tables.state(v1.Dataset.State.Name(dataset.state)),
        text.count(sum(part.row_count for part in dataset.splits)),
        ", ".join(f"{part.split} {part.row_count:,}" for part in dataset.splits) or "-",
        text.short_digest(dataset.digest),
        tables.age(dataset.create_time),
    )


@dataclass(frozen=True)
class AuditOptions:
    """The options that count what a model would learn of a dataset."""

    audit: Annotated[
        str | None,
        typer.Option(
            "--audit",
            metavar="BASE_MODEL",
            help="Count the tokens that this model would learn; the result is kept.",
        ),
    ] = None
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="For --audit: most tokens of an example.")
    ] = 256
    packing_length: Annotated[
        list[int] | None,
        typer.Option(
            "--packing-length",
            min=1,
            help="For --audit: a length of packed sequences (may be repeated). \\[default: --max-length]",
        ),
    ] = None

    def counted(self, session: Session, client: Client, name: str) -> v1.SupervisionAudit | None:
        """The audit that was asked for; raises TunixRtError."""
        if self.audit is None:
            return None
        with session.progress() as progress:
            return supervision_audit(
                client,
                progress,
                name,
                self.audit,
                max_length=self.max_length,
                packing_lengths=self.packing_length or (),
            )


@command(
    app,
    "show",
    example=(
        "tunix-rt dataset show arithmetic@1",
        "tunix-rt dataset show arithmetic@1 --audit smollm2-135m-instruct --max-length 512",
    ),
    prints=(v1.Dataset, v1.SupervisionAudit),
)
def show(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
    wanted: AuditOptions,
) -> None:
    """Show one dataset: its splits, what was left out and why, its figures, its audits and its digest."""
    name = dataset_name(dataset)
    with session.connect() as client:
        found = session.as_it_is([client.exporter.get_dataset(name)])[0]
        made = wanted.counted(session, client, name)
        if session.as_json:
            session.print_message(found if made is None else made)
            return
        if found.HasField("delete_time"):
            print_dataset(session.out, found)
            return
        models = fitting_models(client, found)
        added = added_since(client, found)
        dropped, unread = _dropped_rows(client, found)
        audits: list[v1.SupervisionAudit] = []
        if made is None and found.digest:
            audits = list(islice(client.exporter.list_supervision_audits(name), _AUDITS_SHOWN))
    print_dataset(session.out, found, models, added)
    if dropped:
        print_dropped(session.out, dropped)
    if unread:
        told = f"the rows that were left out cannot be shown: {unread}"
        session.notify(told)
    if made is not None:
        print_audit(session.out, made)
        return
    print_audits(session.out, audits)
    if found.digest and not audits:
        session.out.print(
            f"tokens are counted by: tunix-rt dataset show {short_name(name)} --audit BASE_MODEL",
            style="dim",
            highlight=False,
        )


def _dropped_rows(client: Client, dataset: v1.Dataset) -> tuple[list[Any], str]:
    """The first rows that were left out, and why they cannot be read."""
    if not dataset.dropped_rows.size_bytes:
        return [], ""
    try:
        return first_dropped(client, dataset.name), ""
    except (DataLossError, NotFoundError) as error:
        return [], error.message


@command(app, "cancel", example="tunix-rt dataset cancel arithmetic@1 --server localhost:50050")
def cancel(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID@VERSION of the dataset.")],
) -> None:
    """Ask a build to stop; one that has ended stays as it is."""
    name = dataset_name(dataset)
    with session.connect() as client:
        found = client.exporter.cancel_dataset(name)
    session.show(found, print_dataset)


@command(
    app,
    "delete",
    example=("tunix-rt dataset delete arithmetic@1", "tunix-rt dataset delete arithmetic@1 --force --yes"),
)
def delete(
    session: Session,
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET", help="ID@VERSION of datasets.")],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete datasets that nothing uses: their rows. What they were made of, and their digests, stay on
    record, and their names are never given to anything else."""
    names = [dataset_name(name) for name in datasets]
    delete_resources(
        session,
        names,
        "dataset",
        lambda client, name: client.exporter.get_dataset(name),
        force=force,
        yes=yes,
    )


@command(
    app,
    "dropped",
    example="tunix-rt dataset dropped gsm8k@3 > dropped.jsonl",
    prints=Lines(told="a row that was left out, and what it matched"),
)
def dropped(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
) -> None:
    """Write each row that was left out, and what it matched, as JSON lines.

    Rows are written as they arrive. After exit code 1 they are incomplete.
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
    prints=list[LeakDocument],
)
def audit(
    session: Session,
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="ID, or ID@VERSION. Left out: all datasets.")
    ] = None,
    against: Annotated[str, typer.Option("--against", metavar="EVALSET", help="The eval set.")] = ...,  # type: ignore[assignment]
    ngram_words: NgramOption = None,
) -> None:
    """Find rows that leak an eval set, and the checkpoints, evaluations and reports that they affect.

    Only rows of the split train are learned. An eval set that was made from a held-out split is found there,
    as it should be.
    """
    run_audit(
        session,
        resource_name("evalSets", against),
        dataset_name(dataset) if dataset else None,
        v1.Decontamination(ngram_words=ngram_words),
    )


class DownloadedFile(TypedDict):
    """A split that was written into a file."""

    dataset: Annotated[str, "The dataset's name."]
    split: Annotated[str, "The split."]
    format: Annotated[str, "The format of its rows."]
    size_bytes: Annotated[int, "Bytes of the file."]
    digest: Annotated[str, "Digest of the file: `sha256:` and 64 hex digits."]
    file: Annotated[str, "The file, as it was given."]


@command(
    app,
    "export",
    example=(
        "tunix-rt dataset export arithmetic@1 --split train --format training_example -o train.jsonl",
        "tunix-rt dataset export arithmetic@1 --format chat_parquet -o train.parquet",
        "tunix-rt dataset export arithmetic@1 --split test | head -1",
    ),
    prints=(DownloadedFile, Lines(told="a row in the format that was asked for")),
)
def export(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
    split: Annotated[str, typer.Option("--split", help="Which split.")] = "train",
    format: Annotated[
        DatasetFormat, typer.Option("--format", "-f", help="Format of the rows.")
    ] = "training_example",
    output: Annotated[Path, typer.Option("--output", "-o", help="Output file; - is stdout.")] = Path("-"),
) -> None:
    """Write one split as JSON lines or Parquet.

    A file appears whole or not at all. On stdout, bytes are written as they arrive; after exit code 1 they
    are incomplete.
    """
    name = dataset_name(dataset)
    wanted = v1.DatasetFormat.Value(f"DATASET_FORMAT_{format.upper()}")
    if str(output) == "-" and format.endswith("_parquet") and _on_terminal():
        raise typer.BadParameter(f"{format} is not text; give -o FILE, or redirect the output")
    with session.connect() as client:
        if str(output) == "-":
            with output_stream(output) as stdout:
                client.exporter.read_dataset_into(name, split, stdout, format=wanted)
        else:
            with session.progress() as progress:
                # A format that nobody asked for before is made first.
                writing = progress.bar(f"{format} of {split}")
                header = client.exporter.download_dataset(name, split, output, format=wanted)
                writing.finish()
            if session.as_json:
                document = {"size_bytes": header.size_bytes, "digest": header.digest, "file": str(output)}
                session.print_json({"dataset": name, "split": split, "format": format} | document)
            else:
                session.say(f"{text.size(header.size_bytes)} written to {output}")


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _split(given: str) -> v1.SplitFraction:
    name, equals, share = given.partition("=")
    try:
        fraction = float(share)
    except ValueError:
        fraction = 0.0
    if not name or not equals or not 0 < fraction <= 1:
        raise typer.BadParameter(f"--split takes NAME=FRACTION such as train=0.8, not {given!r}")
    return v1.SplitFraction(split=name, fraction=fraction)
