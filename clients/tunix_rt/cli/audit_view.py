"""How it is shown what a model would learn of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.options import known_base_model
from tunix_rt.cli.progress import Reporter, StageBars
from tunix_rt.cli.session import Session

_BAR_WIDTH = 30


def supervision_audit(
    client: Client,
    reporter: Reporter,
    dataset: str,
    base_model: str,
    *,
    max_length: int,
    packing_lengths: Sequence[int],
) -> v1.SupervisionAudit:
    """Ask for an audit and show its progress.

    Raises typer.BadParameter for a base model that is not on the trainer's host, whose tokenizer is not
    known, and TunixRtError.
    """
    bars = StageBars(reporter, "audit")
    parts = client.exporter.audit_supervision(
        dataset,
        base_model,
        max_length=max_length,
        packing_lengths=packing_lengths,
        tokenizer=model_tokenizer(client, base_model),
    )
    made = v1.SupervisionAudit()
    for part in parts:
        if part.HasField("audit"):
            made = part.audit
        else:
            bars.show(part.progress)
    bars.end(True, "done")
    return made


def print_audits(console: Console, audits: Iterable[v1.SupervisionAudit]) -> None:
    """A line for each split of each audit; nothing if there is none."""
    figures = (
        ">LENGTH",
        "SPLIT",
        ">TOKENS",
        ">LEARNED",
        ">TOO LONG",
        ">UNSUPERVISED",
        ">END MASKED",
        ">PACKED",
    )
    rows = tables.table("AUDIT FOR", *figures)
    for made in audits:
        for split in made.splits:
            tables.add_row(
                rows,
                made.base_model,
                text.count(made.max_length),
                split.split,
                text.count(split.token_count),
                text.count(split.supervised_token_count),
                text.count(split.truncated.row_count),
                text.count(split.unsupervised.row_count),
                text.count(split.end_unsupervised.row_count),
                text.percent(split.packing[0].efficiency) if split.packing else "-",
            )
    if rows.row_count:
        console.print(rows)


def print_audit(console: Console, made: v1.SupervisionAudit) -> None:
    """An audit as a sheet: totals, histogram, packing, and the rows that training refuses."""
    console.print(
        tables.facts(
            [
                ("audit", made.name),
                ("base model", f"{made.base_model} (tokenizer {text.short_digest(made.tokenizer_digest)})"),
                ("max length", f"{made.max_length:,} tokens"),
                ("report", made.report.digest),
            ]
        )
    )
    print_audits(console, [made])
    _print_roles(console, made)
    for split in made.splits:
        _print_histogram(console, split)
    packing = tables.table("PACKED INTO", "SPLIT", ">SEQUENCES", ">FILLED")
    for split in made.splits:
        for entry in split.packing:
            filled = text.percent(entry.efficiency)
            tables.add_row(
                packing, f"{entry.max_length:,} tokens", split.split, text.count(entry.sequence_count), filled
            )
    tables.print_table(console, packing, "no packing asked for")
    found = tables.table("FOUND", "SPLIT", ">ROWS", "~FIRST OF THEM")
    for split in made.splits:
        for label, rows in (
            (f"longer than {made.max_length:,} tokens", split.truncated),
            ("nothing to learn", split.unsupervised),
            ("end of turn not learned", split.end_unsupervised),
            ("tokens say another text", split.target_lost),
            ("special token in a text", split.special_token),
            ("another's text is learned, or a turn that is not to be", split.supervised_elsewhere),
            ("end mark of a turn not learned", split.end_mark_masked),
            ("who speaks where is not proved", split.unproved_roles),
        ):
            if rows.row_count:
                ids = ", ".join(text.short_digest(row) for row in rows.example_row_ids[:5])
                tables.add_row(found, label, split.split, text.count(rows.row_count), ids)
    tables.print_table(console, found, "every row is learned whole, up to the end of its turn")


def _print_roles(console: Console, made: v1.SupervisionAudit) -> None:
    """What is learned of what each role says."""
    shown = ("SPLIT", ">TOKENS", ">LEARNED", ">TURNS LEARNED", ">ENDS LEARNED", ">CALLS LEARNED")
    rows = tables.table("SAID BY", *shown)
    for split in made.splits:
        for role in split.roles:
            tables.add_row(
                rows,
                text.enum_label(v1.RoleSupervision.Part.Name(role.part), "PART_"),
                split.split,
                text.count(role.token_count),
                text.count(role.supervised_token_count),
                _share(role.supervised_turn_count, role.turn_count),
                _share(role.supervised_end_mark_count, role.end_mark_count),
                _share(role.supervised_tool_call_count, role.tool_call_count),
            )
    if rows.row_count:
        console.print(rows)


def _share(learned: int, count: int) -> str:
    return f"{text.count(learned)} of {text.count(count)}" if count else "-"


def _print_histogram(console: Console, split: v1.SplitSupervision) -> None:
    bins = split.supervised_tokens
    most = max((entry.row_count for entry in bins), default=0)
    histogram = tables.table(f"LEARNED TOKENS OF A ROW, {split.split}", ">ROWS", "")
    for entry in bins:
        last = entry.upper - 1
        span = f"{entry.lower:,}" if last == entry.lower else f"{entry.lower:,} to {last:,}"
        tables.add_row(
            histogram, span, text.count(entry.row_count), "█" * -(-_BAR_WIDTH * entry.row_count // most)
        )
    if bins:
        console.print(histogram)


def model_tokenizer(client: Client, base_model: str) -> v1.ArtifactFile:
    """The tokenizer of a base model on the trainer's host; raises typer.BadParameter."""
    model = known_base_model(client, base_model)
    if not model.HasField("tokenizer_file"):
        raise typer.BadParameter(
            f"the tokenizer of {base_model} cannot be put into the artifact store now; see the trainer's log"
        )
    return model.tokenizer_file


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
