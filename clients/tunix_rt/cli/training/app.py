"""The group that the commands of this folder belong to, and what several of them take."""

from __future__ import annotations

from typing import Annotated

import typer

from tunix_rt.cli.command import group

app = group("Fine-tune a base model on a dataset.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The training job's name or id.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Do not wait for the job (with a server only).")]
