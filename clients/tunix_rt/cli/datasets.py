"""`tunix-rt dataset`: build immutable datasets from traces, and export them."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import idle
from tunix_rt.cli.audit_view import (
    AuditOptions,
    model_tokenizer,
    print_audit,
    print_audits,
    supervision_audit,
)
from tunix_rt.cli.command import command, group
from tunix_rt.cli.dataset_options import DatasetOptions, NgramOption
from tunix_rt.cli.dataset_preview import (
    ExampleDocument,
    as_documents,
    examples,
    print_examples,
    write_page,
)
from tunix_rt.cli.dataset_view import (
    LeakDocument,
    added_since,
    dataset_row,
    first_dropped,
    fitting_models,
    print_dataset,
    print_dropped,
    run_audit,
)
from tunix_rt.cli.deleting import DeletedResources, ForceOption, YesOption, delete_resources
from tunix_rt.cli.filter_options import FilterOptions
from tunix_rt.cli.labels import (
    ChangeOptions,
    DatasetOption,
    LabelOptions,
    Listed,
    ListOptions,
    StateOption,
    change_labels,
    dataset_names,
    numbered,
    show_list,
    sort_option,
)
from tunix_rt.cli.lookup import cancelled, completes, named, say_unknown_keys
from tunix_rt.cli.options import (
    LimitOption,
    dataset_name,
    resource_name,
    short_name,
)
from tunix_rt.cli.progress import dataset_progress
from tunix_rt.cli.session import Session
from tunix_rt.errors import DataLossError, JobFailedError, NotFoundError

app = group("Build immutable datasets from traces, and export them.")
_AUDITS_SHOWN = 5


DatasetArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATASET", help="ID, or ID@VERSION, or its name.", autocompletion=completes("datasets")
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
    prints=v1.Dataset,
)
def build(
    session: Session,
    dataset: Annotated[
        str, typer.Argument(metavar="ID[@VERSION]", help="Its name; the version defaults to 1.")
    ],
    wanted: FilterOptions,
    options: DatasetOptions,
    labels: LabelOptions,
) -> None:
    """Build a dataset: select, split and render traces. What a name and version contain never changes."""
    spec = options.spec(dataset, wanted.filter())
    with session.connect() as client:
        options.complete(session, client, spec)
        created = client.exporter.create_dataset(spec=spec, **labels.given())
        if not idle.has_ended(created):
            session.say_what_goes_on_too(created, client.exporter.list_datasets)
        with (
            session.progress() as progress,
            session.waiting_for("build", created, f"tunix-rt dataset show {short_name(created.name)}"),
        ):
            try:
                built = jobs.wait_for_dataset(client, created.name, on_update=dataset_progress(progress))
            except JobFailedError as error:
                if error.reason == "DATASET_EMPTY":
                    say_unknown_keys(session, client, spec.filter)
                raise
        models = fitting_models(client, built)
    session.show(built, partial(print_dataset, models=models))


@command(
    app,
    "list",
    example=("tunix-rt dataset list --json", "tunix-rt dataset list --dataset gsm8k --tag clean --sort id"),
    prints=list[v1.Dataset],
)
def list_(
    session: Session,
    wanted: ListOptions,
    state: StateOption = None,
    dataset: DatasetOption = None,
    sort: Annotated[str, sort_option("created", "name", "state", "id")] = "",
    limit: LimitOption = 20,
) -> None:
    """List datasets, the newest first unless they are sorted."""
    condition = v1.DatasetFilter(
        **wanted.conditions(), states=numbered(v1.Dataset.State, state), datasets=dataset_names(dataset)
    )
    table = Listed(
        ("DATASET", "!STATE", "?NAME", ">ROWS", "SPLITS", "DIGEST", "?TAGS", "?DELETED", ">AGE"),
        dataset_row,
        "no datasets",
        ("STATE", "NAME", "ROWS", "DIGEST", "DELETED"),
    )
    show_list(session, "datasets", condition, wanted, sort, limit, table, page_size=50)


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
    dataset: DatasetArgument,
    wanted: AuditOptions,
) -> None:
    """Show one dataset: its splits, what was left out and why, its figures, its audits and its digest."""
    name = dataset_name(dataset)
    with session.connect() as client:
        name = named(session, client, name)
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


@command(
    app,
    "preview",
    example=(
        "tunix-rt dataset preview arithmetic@1",
        "tunix-rt dataset preview arithmetic@1 --base-model smollm2-135m-instruct --tokens --limit 1",
        "tunix-rt dataset preview arithmetic@1 --limit 20 --html preview.html",
    ),
    prints=list[ExampleDocument],
)
def preview(
    session: Session,
    dataset: DatasetArgument,
    split: Annotated[
        str | None, typer.Option("--split", help="Whose first rows are shown. \\[default: train]")
    ] = None,
    row_id: Annotated[
        str | None,
        typer.Option("--row", metavar="ID", help="Show this row; its first four digits do."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, max=1000, help="Most rows. \\[default: 3]")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="BASE_MODEL", help="Count the tokens of this model, too."),
    ] = None,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Print token by token; needs --base-model.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page that a browser opens without a server."),
    ] = None,
) -> None:
    """Show rows as a model learns them: the rendered text, with what is learned in colour."""
    if tokens and base_model is None:
        raise typer.BadParameter("needs --base-model, whose tokens they are", param_hint="'--tokens'")
    if row_id is not None and limit is not None:
        raise typer.BadParameter("cannot be given with --row, which is one row", param_hint="'--limit'")
    with session.connect() as client:
        name = named(session, client, dataset_name(dataset))
        parts = client.exporter.preview_rows(
            name,
            split=split or "",
            row_id=row_id or "",
            row_count=limit or 0,
            tokenizer=None if base_model is None else model_tokenizer(client, base_model),
        )
        found = examples(parts)
    if html is not None:
        write_page(html, f"What is learned of {short_name(name)}", found)
    if session.as_json:
        session.print_json(as_documents(found))
    elif html is not None:
        session.say_written(len(found), "example", html)
    else:
        print_examples(session.out, found, tokens=tokens)


@command(
    app,
    "update",
    example="tunix-rt dataset update arithmetic@1 --tag clean --note 'without the long prompts'",
    prints=v1.Dataset,
)
def update(
    session: Session,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="ID, or ID@VERSION.")],
    labels: ChangeOptions,
) -> None:
    """Give a dataset a name beside its id, tag it, or note something about it. Its id stays."""
    change_labels(session, dataset_name(dataset), labels)


def _dropped_rows(client: Client, dataset: v1.Dataset) -> tuple[list[Any], str]:
    """The first rows that were left out, and why they cannot be read."""
    if not dataset.dropped_rows.size_bytes:
        return [], ""
    try:
        return first_dropped(client, dataset.name), ""
    except (DataLossError, NotFoundError) as error:
        return [], error.message


@command(
    app, "cancel", prints=v1.Dataset, example="tunix-rt dataset cancel arithmetic@1 --server localhost:50050"
)
def cancel(
    session: Session,
    dataset: DatasetArgument,
) -> None:
    """Ask a build to stop; one that has ended stays as it is."""
    session.show(cancelled(session, dataset_name(dataset)), print_dataset)


@command(
    app,
    "delete",
    prints=DeletedResources,
    example=("tunix-rt dataset delete arithmetic@1", "tunix-rt dataset delete arithmetic@1 --force --yes"),
)
def delete(
    session: Session,
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET", help="ID@VERSION of datasets.", autocompletion=completes("datasets")
        ),
    ],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete the rows of datasets that nothing uses. Their specs and digests stay on record, and their names
    cannot be used for anything else."""
    names = [dataset_name(name) for name in datasets]
    delete_resources(session, names, "dataset", force=force, yes=yes)


@command(
    app,
    "audit",
    example=(
        "tunix-rt dataset audit gsm8k@3 --base-model smollm2-135m-instruct",
        "tunix-rt dataset audit gsm8k@3 --against gsm8k-test",
        "tunix-rt dataset audit --against gsm8k-test --json",
    ),
    prints=(list[LeakDocument], v1.SupervisionAudit),
)
def audit(
    session: Session,
    dataset: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATASET]",
            help="ID, or ID@VERSION. Left out, with --against: all datasets.",
            autocompletion=completes("datasets"),
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="EVALSET",
            help="Find rows that leak this eval set.",
            autocompletion=completes("evalSets"),
        ),
    ] = None,
    ngram_words: NgramOption = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model",
            metavar="BASE_MODEL",
            help="Count what this model would learn of each role; the result is kept.",
        ),
    ] = None,
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="For --base-model: most tokens of an example.")
    ] = 256,
) -> None:
    """Count what is learned of what each role says, or find rows that leak an eval set, and the checkpoints,
    evaluations and reports that they affect.

    Only rows of the split train are learned. An eval set that was made from a held-out split is also
    found in that split, which is expected.
    """
    if (against is None) == (base_model is None):
        raise typer.BadParameter("one of the two is needed", param_hint="'--against' / '--base-model'")
    name = dataset_name(dataset) if dataset else None
    if against is not None:
        rule = v1.Decontamination(ngram_words=ngram_words)
        run_audit(session, resource_name("evalSets", against), name, rule)
        return
    if name is None or base_model is None:
        raise typer.BadParameter(
            "is needed with --base-model, which counts one dataset", param_hint="DATASET"
        )
    if ngram_words is not None:
        raise typer.BadParameter("needs --against, whose items are looked for", param_hint="'--ngram-words'")
    with session.connect() as client, session.progress() as progress:
        name = named(session, client, name)
        made = supervision_audit(
            client, progress, name, base_model, max_length=max_length, packing_lengths=()
        )
    session.show(made, print_audit)
