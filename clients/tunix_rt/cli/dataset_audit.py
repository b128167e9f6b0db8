"""`tunix-rt dataset audit`: which datasets give away an eval set, and what was made with them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console

from tunix_rt import v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.progress import Bar
from tunix_rt.cli.resources import short_name
from tunix_rt.cli.session import Session, as_document
from tunix_rt.leaks import LeakingDataset, leaking_datasets

_ROWS_SHOWN = 20


def run_audit(
    session: Session, eval_set: str, dataset: str | None, decontamination: v1.Decontamination
) -> None:
    """Compare one dataset or all with an eval set, and show what is touched."""
    bars: dict[str, Bar] = {}
    with session.connect() as client, session.progress() as progress:

        def on_progress(candidate: v1.Dataset, compared: int, total: int) -> None:
            if candidate.name not in bars:
                bars[candidate.name] = progress.bar(short_name(candidate.name), total, "rows")
            bars[candidate.name].update(compared, total)
            if compared == total:
                bars[candidate.name].finish()

        found = list(
            leaking_datasets(
                client,
                eval_set,
                dataset=dataset,
                decontamination=decontamination,
                on_progress=on_progress,
            )
        )
    if session.as_json:
        session.print_json([_document(leak) for leak in found])
    else:
        print_leaks(session.out, eval_set, found)


def print_leaks(console: Console, eval_set: str, found: list[LeakingDataset]) -> None:
    """What is touched as a table, and of each dataset the first rows."""
    summary = tables.table(
        "DATASET", ">LEARNED ROWS", ">OTHER ROWS", ">ITEMS", "CHECKPOINTS", "EVALUATIONS", "REPORTS"
    )
    for leak in found:
        tables.add_row(
            summary,
            short_name(leak.dataset.name),
            text.count(len(leak.learned_rows)),
            text.count(len(leak.rows) - len(leak.learned_rows)),
            text.count(len({row.eval_item for row in leak.rows})),
            *(
                "\n".join(map(short_name, names)) or "-"
                for names in (leak.checkpoints, leak.evaluations, leak.reports)
            ),
        )
    tables.print_table(console, summary, f"no dataset gives away an item of {eval_set}")
    for leak in found:
        rows = tables.table(f"ROW OF {short_name(leak.dataset.name)}", "SPLIT", "ITEM", "!MATCH", "~WORDS")
        for row in leak.rows[:_ROWS_SHOWN]:
            label = text.enum_label(v1.ContaminatedRow.Match.Name(row.match), "MATCH_")
            tables.add_row(rows, row.row_id[:12], row.split, row.eval_item, label, row.matched_text)
        console.print(rows)
        if len(leak.rows) > _ROWS_SHOWN:
            kinds = Counter(row.split for row in leak.rows)
            shares = ", ".join(f"{split} {count:,}" for split, count in sorted(kinds.items()))
            console.print(f"{len(leak.rows):,} rows in all ({shares}); --json shows each", highlight=False)


def _document(leak: LeakingDataset) -> dict[str, Any]:
    return {
        "dataset": leak.dataset.name,
        "digest": leak.dataset.digest,
        "rows": [as_document(row) for row in leak.rows],
        "checkpoints": list(leak.checkpoints),
        "evaluations": list(leak.evaluations),
        "reports": list(leak.reports),
    }
