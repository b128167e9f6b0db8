"""`tunix-rt doctor`: say what is installed, what is missing and how to get it."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from tunix_rt.cli.checks import Finding, Level, all_findings
from tunix_rt.cli.command import command, single
from tunix_rt.cli.session import Session

app = single()

_MARKS = {
    Level.OK: ("✓", "green"),
    Level.NOTE: ("·", "dim"),
    Level.WARNING: ("!", "yellow"),
    Level.BROKEN: ("✗", "bold red"),
}


@command(app, "doctor", example=("tunix-rt doctor", "tunix-rt doctor --server localhost:50050 --json"))
def doctor(session: Session) -> None:
    """Look at packages, devices, data folder, models and server; exit code 1 when something is broken."""
    findings = []
    area = ""
    for finding in all_findings(session.data_dir, session.server):
        findings.append(finding)
        if not session.as_json:
            if finding.area != area:
                area = finding.area
                session.out.print(Text(area, style="bold"))
            session.out.print(_line(finding))
    broken = [finding for finding in findings if finding.level is Level.BROKEN]
    if session.as_json:
        session.print_json(
            {"healthy": not broken, "findings": [finding.as_document() for finding in findings]}
        )
    elif broken:
        session.out.print(
            Text(f"{len(broken)} to mend: {', '.join(finding.subject for finding in broken)}", style="red")
        )
    else:
        session.out.print(Text("nothing is broken", style="green"))
    if broken:
        raise typer.Exit(1)


def _line(finding: Finding) -> Table:
    mark, style = _MARKS[finding.level]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=3, justify="right")
    grid.add_column(min_width=24)
    grid.add_column(overflow="fold")
    detail = Text(finding.detail)
    if finding.remedy:
        detail.append(f"\n{finding.remedy}", style="cyan")
    grid.add_row(Text(mark, style=style), Text(finding.subject), detail)
    return grid
