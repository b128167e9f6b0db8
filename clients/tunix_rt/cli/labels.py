"""What people call things: the options `--name`, `--tag` and `--note`, and lists by them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

import typer
from rich.console import Console

from tunix_rt import v1
from tunix_rt.cli import tables
from tunix_rt.cli.filter_options import moment
from tunix_rt.cli.lookup import completes, completes_tags, get, named, whole_names
from tunix_rt.cli.options import resource_name
from tunix_rt.cli.session import Session
from tunix_rt.naming import call, listing

Resource = TypeVar("Resource", v1.Dataset, v1.EvalSet, v1.TrainingJob, v1.Evaluation, v1.ComparisonReport)

_call = partial(typer.Option, rich_help_panel="Name, tags and note", show_default=False)
list_option = partial(typer.Option, rich_help_panel="Which ones, and in which order", show_default=False)


class State(StrEnum):
    """Where a job or the build of a dataset stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class LabelOptions:
    """What people call what a command makes; `update` changes it."""

    name: Annotated[str, _call("--name", help="A name for it, which need not be unique.")] = ""
    tag: Annotated[
        list[str] | None,
        _call(
            "--tag", autocompletion=completes_tags, help="A word to find it by in lists (may be repeated)."
        ),
    ] = None
    note: Annotated[str, _call("--note", help="What should be remembered about it.")] = ""

    def given(self) -> dict[str, Any]:
        """The arguments of the client's call."""
        return {"display_name": self.name, "tags": self.tag or [], "note": self.note}


@dataclass(frozen=True)
class ChangeOptions:
    """What `update` changes."""

    name: Annotated[str | None, _call("--name", help="The new name; '' takes it away.")] = None
    tag: Annotated[
        list[str] | None,
        _call("--tag", autocompletion=completes_tags, help="A tag to add (may be repeated)."),
    ] = None
    remove_tag: Annotated[
        list[str] | None,
        _call("--remove-tag", autocompletion=completes_tags, help="A tag to take away (may be repeated)."),
    ] = None
    clear_tags: Annotated[bool, _call("--clear-tags", help="Take all tags away.")] = False
    note: Annotated[str | None, _call("--note", help="The new note; '' takes it away.")] = None

    def check(self) -> None:
        """Raise typer.BadParameter when nothing changes, or a tag is to be added and taken away."""
        given = (self.tag, self.remove_tag, self.clear_tags)
        if self.name is None and self.note is None and not any(given):
            raise typer.BadParameter("nothing to change; give --name, --tag, --remove-tag or --note")
        for tag in self.remove_tag or ():
            if tag in (self.tag or ()):
                raise typer.BadParameter(f"{tag!r} is given to --tag and to --remove-tag; give it to one")

    def changed(self, found: Resource) -> tuple[Resource, dict[str, Any]]:
        """A resource of the name of ``found`` with the new labels, and what else the client's call takes.

        Tags are added and taken away by the server, so that none is lost where two change them at once.

        Raises typer.BadParameter for a tag to take away that it does not have.
        """
        changed = type(found)(name=found.name)
        mask: list[str] = []
        if self.name is not None:
            changed.display_name = self.name
            mask.append("display_name")
        if self.note is not None:
            changed.note = self.note
            mask.append("note")
        for tag in self.remove_tag or ():
            if tag not in found.tags and not self.clear_tags:
                has = ", ".join(found.tags) or "none"
                raise typer.BadParameter(
                    f"{found.name} has no tag {tag!r} (its tags: {has})", param_hint="--remove-tag"
                )
        added = list(dict.fromkeys(self.tag or ()))
        if not self.clear_tags:
            removed = list(dict.fromkeys(self.remove_tag or ()))
            return changed, {"update_mask": mask, "add_tags": added, "remove_tags": removed}
        changed.tags.extend(added)
        return changed, {"update_mask": [*mask, "tags"]}


def change_labels(session: Session, name: str, options: ChangeOptions) -> None:
    """Change what people call the resource that ``name``, as ``lookup.named`` takes it, stands for, and show
    that; raises typer.BadParameter and TunixRtError."""
    options.check()
    with session.connect() as client:
        found = get(client, named(session, client, name))
        changed, arguments = options.changed(found)
        updated = call(client, "update", found.name)(changed, **arguments)
    session.show(updated, print_labels)


@dataclass(frozen=True)
class Listed(Generic[Resource]):
    """How a terminal lists entries: the arguments of ``Session.show_all``."""

    columns: Sequence[str]
    row: Callable[[Resource], tables.Row]
    none: str
    important: Sequence[str] = ()


SinceOption = Annotated[
    str | None,
    list_option(
        "--since",
        metavar="TIME",
        help="Only those made then or later: 2026-01-31, 2026-01-31T12:00, or 2d, 3h, 10min ago.",
    ),
]
UntilOption = Annotated[
    str | None, list_option("--until", metavar="TIME", help="Only those made before then.")
]
DeletedOption = Annotated[bool, list_option("--show-deleted", help="Include deleted ones.")]


@dataclass(frozen=True)
class ListOptions:
    """Which entries a list has, and their order: the options of every list."""

    tag: Annotated[
        list[str] | None,
        list_option("--tag", autocompletion=completes_tags, help="Only with this tag (may be repeated)."),
    ] = None
    name: Annotated[str, list_option("--name", metavar="TEXT", help="Only with this text in its name.")] = ""
    note: Annotated[str, list_option("--note", metavar="TEXT", help="Only with this text in its note.")] = ""
    created_after: SinceOption = None
    created_before: UntilOption = None
    show_deleted: DeletedOption = False

    def conditions(self) -> dict[str, Any]:
        """The fields of every list's filter; raises typer.BadParameter."""
        for tag in self.tag or []:
            if "," in tag:
                each = " ".join(f"--tag {part.strip()}" for part in tag.split(",") if part.strip())
                raise typer.BadParameter(f"--tag: no tag has a comma in it; for several: {each}")
        return {
            "tags": self.tag or [],
            "display_name_contains": self.name,
            "note_contains": self.note,
            "created_from": moment("--since", self.created_after),
            "created_before": moment("--until", self.created_before),
        }


def show_list(
    session: Session,
    collection: str,
    condition: Any,
    wanted: ListOptions,
    sort: str,
    limit: int,
    table: Listed[Any],
    *,
    page_size: int = 1_000,
) -> None:
    """Show the first ``limit`` entries of a collection that meet a condition, a filter of the contract.

    Args:
        session: of the command.
        collection: such as "trainingJobs".
        condition: the filter, in which names may stand as they were typed.
        wanted: has whether to show what was deleted.
        sort: the contract's ``order_by``.
        limit: how many to show.
        table: how a terminal shows them.
        page_size: how many to ask for at once, at most.
    """
    with session.connect() as client:
        whole_names(session, client, condition)
        entries = listing(client, collection)(
            show_deleted=wanted.show_deleted,
            filter=condition,
            order_by=sort,
            page_size=min(limit, page_size),
        )
        session.show_all(
            islice(entries, limit),
            table.columns,
            table.row,
            table.none,
            table.important,
            filtered=bool(condition.ByteSize()),
        )


StateOption = Annotated[
    list[State] | None,
    list_option("--state", help="Only in this state (may be repeated for any of several)."),
]
ModelOption = Annotated[
    list[str] | None,
    list_option(
        "--model",
        "-m",
        help="Only of this base model, checkpoint or training job (may be repeated).",
        autocompletion=completes("trainingJobs"),
    ),
]
DatasetOption = Annotated[
    list[str] | None,
    list_option(
        "--dataset",
        "-d",
        metavar="ID[@VERSION]",
        help="Only of this dataset (may be repeated).",
        autocompletion=completes("datasets"),
    ),
]
EvalSetOption = Annotated[
    list[str] | None,
    list_option(
        "--eval-set",
        "-e",
        help="Only of this eval set (may be repeated).",
        autocompletion=completes("evalSets"),
    ),
]

# An id of a job, with or without one of its checkpoints; no base model is called like this.
_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?:/checkpoints/|$)")
_FIELDS = {
    "created": "create_time",
    "name": "display_name",
    "id": "name",
    "model": "base_model",
    "eval-set": "eval_set",
    "items": "item_count",
    "item": "item_id",
    "tokens": "output_tokens",
    "parameters": "parameter_count",
    "context": "context_length",
    "licence": "license",
    "on-host": "available",
}


def sort_option(*fields: str) -> Any:
    """The option `--sort` of a list that can be ordered by these."""
    known = ", ".join(fields)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        given = [field.removeprefix("-") for field in before.split(",")]
        sign = "-" if last.startswith("-") else ""
        return [f"{before}{comma}{sign}{field}" for field in fields if field not in given]

    return list_option(
        "--sort",
        metavar="FIELDS",
        help=f"Sort by {known}; - before a field reverses its order; join several by commas.",
        callback=lambda given: _order(given, fields),
        autocompletion=complete,
    )


def _order(given: str, fields: tuple[str, ...]) -> str:
    """What was typed, as the contract's ``order_by``; raises typer.BadParameter."""
    order = []
    for part in given.split(",") if given else ():
        name = part.strip().removeprefix("-")
        if name not in fields:
            raise typer.BadParameter(
                f"{part.strip()!r} is not one of {', '.join(fields)}, or one of them after a -"
            )
        order.append(_FIELDS.get(name, name) + (" desc" if part.strip().startswith("-") else ""))
    return ", ".join(order)


def numbered(enum: Any, given: Sequence[StrEnum] | None) -> list[Any]:
    """The numbers of an enum's values that people write like this."""
    prefix = enum.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    return [enum.Value(prefix + value.replace("-", "_").upper()) for value in given or ()]


def model_names(given: list[str] | None) -> list[str]:
    """Models as filters name them: a base model, a checkpoint or a training job, of which an id will do."""
    return [name for model in given or () for name in dict.fromkeys([model, *_as_job(model)])]


def _as_job(model: str) -> list[str]:
    return [f"trainingJobs/{model}"] if _JOB_ID.match(model) else []


def dataset_names(given: list[str] | None) -> list[str]:
    """Names of datasets, of which one without a version stands for all of its versions."""
    return [resource_name("datasets", dataset) for dataset in given or ()]


def label_facts(resource: Any) -> Iterator[tuple[str, str]]:
    """The name, tags and note of a resource, for its sheet of facts."""
    yield "name", resource.display_name
    yield "tags", ", ".join(resource.tags)
    yield "note", resource.note


def print_labels(console: Console, resource: Any) -> None:
    """What people call a resource, after a change."""
    console.print(tables.facts([("id", resource.name), *label_facts(resource)]))
