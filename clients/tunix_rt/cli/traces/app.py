"""The group that the commands of this folder belong to."""

from __future__ import annotations

from tunix_rt.cli.command import group

app = group("Import, generate, score, compare and export reasoning traces.")
