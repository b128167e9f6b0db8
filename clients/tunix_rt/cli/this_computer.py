"""`tunix-rt models`, `du` and `gc`: look after what the four services keep on this computer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, TypedDict

import typer
from rich.text import Text

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group, single
from tunix_rt.cli.deleting import DeletedResources, ForceOption, YesOption, confirm, delete_resources
from tunix_rt.cli.labels import list_option, sort_option
from tunix_rt.cli.lookup import completes
from tunix_rt.cli.progress import Bar, Reporter
from tunix_rt.cli.session import Session
from tunix_rt.errors import FailedPreconditionError, NotFoundError

models_app = group("Fetch, list, verify and delete base models.")
du_app = single()
gc_app = single()


NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The base model's id, hf://ORGANISATION/NAME[@REVISION], or a .gguf file."
    ),
]
_BYTE_STAGES = ("download", "verify", "extract")


@command(
    models_app,
    "list",
    example=(
        "tunix-rt models list",
        "tunix-rt models list --family llama --on-host --sort=-parameters",
        "tunix-rt models list --server localhost:50050 --json",
    ),
    prints=list[v1.BaseModel],
)
def list_(
    session: Session,
    name: Annotated[str, list_option("--name", metavar="TEXT", help="Only with this text in its id.")] = "",
    family: Annotated[
        list[str] | None,
        list_option("--family", help="Only of this architecture family, such as llama (may be repeated)."),
    ] = None,
    on_host: Annotated[
        bool | None,
        list_option("--on-host/--not-on-host", help="Only those on the trainer's host, or only the others."),
    ] = None,
    sort: Annotated[str, sort_option("id", "family", "parameters", "context", "licence", "on-host")] = "",
) -> None:
    """List the base models that can be trained: those on the trainer's host and those that can be fetched."""
    condition = v1.BaseModelFilter(name_contains=name, families=family, available=on_host)
    columns = ("MODEL", "!ON HOST", "FAMILY", ">PARAMETERS", ">CONTEXT", "LICENCE", "WEIGHTS")
    with session.connect() as client:
        found = client.trainer.list_base_models(filter=condition, order_by=sort)
        session.show_all(
            found,
            columns,
            _row,
            "no base models",
            ("ON HOST", "PARAMETERS", "LICENCE"),
            filtered=bool(condition.ByteSize()),
        )


def _row(model: v1.BaseModel) -> tables.Row:
    return (
        model.base_model,
        Text("yes", style="green") if model.available else "no",
        model.family,
        f"{model.parameter_count / 1e6:,.1f} M" if model.parameter_count else "-",
        text.count(model.context_length),
        model.license or "-",
        tables.digest(model.weights_digest),
    )


class PulledModel(TypedDict):
    """Where a base model lies."""

    base_model: Annotated[str, "The name that was given."]
    path: Annotated[str, "Its folder."]


@command(
    models_app,
    "pull",
    example=(
        "tunix-rt models pull smollm2-135m-instruct",
        "tunix-rt models pull hf://Qwen/Qwen3-0.6B",
        "tunix-rt models pull downloads/model.Q8_0.gguf",
    ),
    prints=PulledModel,
)
def pull(session: Session, name: NameArgument) -> None:
    """Fetch a base model, once, into this computer's data folder, even if --server is set."""
    folder = pull_with_progress(session, name, session.data_dir)
    if session.as_json:
        session.print_json({"base_model": name, "path": str(folder)})
    else:
        session.out.print(f"{name} is in {folder}", highlight=False, soft_wrap=True)


class PromptParity(TypedDict):
    """How Tunix and transformers compare on one prompt."""

    prompt: Annotated[str, "The prompt."]
    tokens: Annotated[int, "Its tokens."]
    max_abs_difference: Annotated[float, "The largest difference of a logit."]
    top1_agreement: Annotated[float, "Share of positions with the same most likely next token, 0 to 1."]


class ModelVerification(TypedDict):
    """How Tunix and transformers compare on one model. Where it has not passed, the exit code is 1."""

    path: Annotated[str, "The model's folder."]
    passed: Annotated[bool, "Whether no logit differs by more than the tolerance."]
    tolerance: Annotated[float, "The largest difference that is allowed."]
    max_abs_difference: Annotated[float, "The largest difference of a logit."]
    prompts: Annotated[list[PromptParity], "The prompts, one by one."]
    versions: Annotated[dict[str, str], "Version of each package that computed."]


@command(
    models_app, "verify", example="tunix-rt models verify smollm2-135m-instruct", prints=ModelVerification
)
def verify(session: Session, name: NameArgument) -> None:
    """Compare Tunix's logits with those of transformers on real prompts, in float32, on this computer."""
    import tunix_rt_local

    folder = tunix_rt_local.model_folder(name, session.data_dir)
    session.say("running both on the same prompts; this takes a minute or two")
    report = tunix_rt_local.verify_model(folder)
    if session.as_json:
        session.print_json(report.model_dump(mode="json"))
    else:
        rows = tables.table("PROMPT", ">TOKENS", ">LARGEST DIFFERENCE", ">SAME NEXT TOKEN")
        for prompt in report.prompts:
            tables.add_row(
                rows,
                text.one_line(prompt.prompt, 60),
                text.count(prompt.tokens),
                f"{prompt.max_abs_difference:.1e}",
                text.percent(prompt.top1_agreement),
            )
        session.out.print(rows)
        verdict = (
            Text("same logits", style="green") if report.passed else Text("different logits", style="red")
        )
        session.out.print(
            Text.assemble(
                verdict,
                f": largest difference {report.max_abs_difference:.1e}, {report.tolerance:.0e} allowed",
            )
        )
    if not report.passed:
        session.leave_unsound(
            f"different logits: largest difference {report.max_abs_difference:.1e}, "
            f"{report.tolerance:.0e} allowed",
            "LOGITS_DIFFER",
        )


@command(
    models_app,
    "delete",
    prints=DeletedResources,
    example=(
        "tunix-rt models delete smollm2-135m-instruct",
        "tunix-rt models delete hf://Qwen/Qwen3-0.6B --yes",
    ),
)
def delete(
    session: Session,
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Ids of base models, or the sources that were pulled.",
            autocompletion=completes("baseModels"),
        ),
    ],
    force: ForceOption = False,
    yes: YesOption = False,
) -> None:
    """Delete the files of base models that were pulled. Those of the catalogue can be pulled again."""
    delete_resources(
        session,
        [f"baseModels/{name.removeprefix('baseModels/')}" for name in models],
        "base model",
        _pulled,
        force=force,
        yes=yes,
    )


class UsedSpace(TypedDict):
    """What one thing takes."""

    kind: Annotated[str, "What it is, in words: dataset, checkpoint, export, database, unused, ..."]
    name: Annotated[str, "Its resource name, or its path in the data folder."]
    display_name: Annotated[str, "What people call it, or its training job; empty without a name."]
    size_bytes: Annotated[int, "Size of its files."]
    own_bytes: Annotated[int, "Size of those that nothing else names: what deleting it frees."]


class DiskUsage(TypedDict):
    """What takes the space of a data folder."""

    data_dir: Annotated[str, "The data folder."]
    total_bytes: Annotated[int, "Size of all its files."]
    kinds: Annotated[
        dict[str, int], "Size of what is of each kind; files that several name are of a kind of their own."
    ]
    resources: Annotated[list[UsedSpace], "The largest, so many as --limit says."]


class UnusedFile(TypedDict):
    """A file or folder that nothing names, or the empty space in a database, which stays."""

    path: Annotated[str, "Where it is."]
    kind: Annotated[
        str,
        "What it is, in words: artifact, job folder, unfinished write, cache, empty space in a database.",
    ]
    size_bytes: Annotated[int, "Size of it and of all in it, or of the empty space."]


class CollectedGarbage(TypedDict):
    """What nothing in a data folder names."""

    data_dir: Annotated[str, "The data folder."]
    freed: Annotated[bool, "Whether it was deleted, or only listed."]
    size_bytes: Annotated[int, "Size of all of it."]
    garbage: Annotated[list[UnusedFile], "Each file and folder."]


def _pulled(client: Client, name: str) -> v1.BaseModel:
    base_model = name.removeprefix("baseModels/")
    try:
        model = client.trainer.get_base_model(base_model)
    except FailedPreconditionError:
        # It is there, and damaged.
        return v1.BaseModel(name=name)
    if not model.available:
        raise NotFoundError(f"base model {base_model} is not on the host", reason="BASE_MODEL_NOT_FOUND")
    return model


@command(
    du_app,
    "du",
    example=("tunix-rt du", "tunix-rt du --limit 5 --json", "tunix-rt du --data-dir ./data"),
    prints=DiskUsage,
)
def du(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show this many of the largest.")] = 20,
) -> None:
    """Show what takes the space of this computer's data folder, by kind and by resource."""
    import tunix_rt_local

    _refuse_server(session)
    found = tunix_rt_local.disk_usage(session.data_dir)
    names = tunix_rt_local.display_names(session.data_dir)
    labels = [names.get("/".join(entry.name.split("/")[:2]), "") for entry in found[:limit]]
    kinds: dict[str, int] = {}
    for entry in found:
        kinds[entry.kind] = kinds.get(entry.kind, 0) + entry.own_bytes
    if session.as_json:
        session.print_json(
            {
                "data_dir": str(session.data_dir),
                "total_bytes": sum(kinds.values()),
                "kinds": kinds,
                "resources": [
                    asdict(entry) | {"display_name": label}
                    for entry, label in zip(found, labels, strict=False)
                ],
            }
        )
        return
    by_kind = tables.table("KIND", ">SIZE")
    for kind, size in sorted(kinds.items(), key=lambda item: -item[1]):
        tables.add_row(by_kind, kind, text.size(size))
    tables.add_row(by_kind, "together", text.size(sum(kinds.values())))
    largest = tables.table(
        "LARGEST",
        "KIND",
        ">SIZE",
        ">FREED IF DELETED",
        *(["NAME"] if any(labels) else []),
        important=("SIZE", "FREED IF DELETED", "NAME"),
    )
    for entry, label in zip(found, labels, strict=False):
        # With a job go its checkpoints, with a dataset its audits.
        inside = f"{entry.name}/" if entry.name.startswith(("trainingJobs/", "datasets/")) else None
        freed = entry.own_bytes + sum(
            one.own_bytes for one in found if inside is not None and one.name.startswith(inside)
        )
        cells = (entry.name, entry.kind, text.size(entry.size_bytes), text.size(freed))
        tables.add_row(largest, *cells, *([label] if any(labels) else []))
    session.out.print(f"data folder {session.data_dir}", highlight=False, soft_wrap=True)
    session.out.print(by_kind)
    session.out.print(largest)


@command(
    gc_app,
    "gc",
    prints=CollectedGarbage,
    example=("tunix-rt gc", "tunix-rt gc --free", "tunix-rt gc --caches --free --yes"),
)
def gc(
    session: Session,
    free: Annotated[bool, typer.Option("--free", help="Delete it; without this it is only listed.")] = False,
    caches: Annotated[
        bool,
        typer.Option(
            "--caches",
            help="Include what can be made again: exports, derived formats, cached answers, compiled "
            "functions.",
        ),
    ] = False,
    yes: YesOption = False,
) -> None:
    """List the files in this computer's data folder that nothing uses, such as those that a crash left, and
    delete them with --free. Refused while a server uses the folder."""
    import tunix_rt_local

    _refuse_server(session)
    found = tunix_rt_local.collect_garbage(session.data_dir, free=False, caches=caches)
    if free and found:
        total = text.size(sum(entry.size_bytes for entry in found))
        lines = [f"{text.size(entry.size_bytes):>10}  {entry.kind}  {entry.path}" for entry in found]
        confirm(
            session,
            f"Delete all of this for good, {total}?",
            lines,
            yes=yes,
        )
        found = tunix_rt_local.collect_garbage(session.data_dir, free=True, caches=caches)
    size = sum(entry.size_bytes for entry in found)
    if session.as_json:
        listed = [
            {"path": str(entry.path), "kind": entry.kind, "size_bytes": entry.size_bytes} for entry in found
        ]
        session.print_json(
            {"data_dir": str(session.data_dir), "freed": free, "size_bytes": size, "garbage": listed}
        )
        return
    if not free:
        rows = tables.table("~PATH", "KIND", ">SIZE")
        for entry in found:
            tables.add_row(
                rows, str(entry.path.relative_to(session.data_dir)), entry.kind, text.size(entry.size_bytes)
            )
        tables.print_table(session.out, rows, "nothing to free")
    if found:
        told = "freed" if free else "can be freed: tunix-rt gc --free" + (" --caches" if caches else "")
        session.out.print(f"{text.size(size)} {told}", highlight=False)
    elif free:
        session.out.print("nothing to free")


def _refuse_server(session: Session) -> None:
    if session.given.server is not None:
        raise typer.BadParameter(
            "this command looks at a data folder of this computer; leave --server out, and run it where the "
            "server's folder is"
        )


def pull_with_progress(session: Session, name: str, data_dir: Path) -> Path:
    """Fetch a base model into a data folder unless it is there, and return its own folder."""
    import tunix_rt_local

    with session.progress() as progress:
        bars = _PullBars(progress)
        folder = tunix_rt_local.pull_model(name, data_dir, bars.show)
        bars.finish()
    return folder


class _PullBars:
    """One bar for each stage of a pull."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._stage = ""
        self._bar: Bar | None = None

    def show(self, stage: str, done: int, total: int) -> None:
        unit = "MiB" if stage in _BYTE_STAGES else "tensors"
        scale = 1 << 20 if unit == "MiB" else 1
        if self._bar is None or stage != self._stage:
            self.finish()
            self._stage, self._bar = stage, self._reporter.bar(stage, total // scale, unit)
        self._bar.update(done // scale, total // scale)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.finish()
            self._bar = None
