"""What a model would learn of a dataset: the audit is asked for, or those that were made are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer
from rich.console import Console

from tunix_rt import Client, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.job_progress import StageBars
from tunix_rt.cli.progress import Reporter
from tunix_rt.cli.spec_options import known_base_model

_BAR_WIDTH = 30


def audit(
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
        tokenizer=_tokenizer(client, base_model),
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
    figures = (">LENGTH", "SPLIT", ">TOKENS", ">LEARNED", ">TOO LONG", ">MUTE", ">NO END", ">PACKED")
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
    """An audit as a sheet: totals, histogram, packing, and the rows that stand against training."""
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
        ):
            if rows.row_count:
                ids = ", ".join(text.short_digest(row) for row in rows.example_row_ids[:5])
                tables.add_row(found, label, split.split, text.count(rows.row_count), ids)
    tables.print_table(console, found, "every row is learned whole, up to the end of its turn")


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


def _tokenizer(client: Client, base_model: str) -> v1.ArtifactFile:
    model = known_base_model(client, base_model)
    if not model.HasField("tokenizer_file"):
        raise typer.BadParameter(
            f"the tokenizer of {base_model} cannot be put into the artifact store now; see the trainer's log"
        )
    return model.tokenizer_file
