"""The group that the commands of this folder belong to, and the argument that most of them take."""

from __future__ import annotations

from typing import Annotated

import typer

from tunix_rt.cli.command import group

app = group("Fine-tune a base model on a dataset.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The training job's name or id.")]
