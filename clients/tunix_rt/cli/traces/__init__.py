"""`tunix-rt traces`: one module for each thing that is done with traces."""

from tunix_rt.cli.traces import comparing, deleting, exporting, generating, importing, reading, scoring
from tunix_rt.cli.traces.app import app

__all__ = ["app", "comparing", "deleting", "exporting", "generating", "importing", "reading", "scoring"]
