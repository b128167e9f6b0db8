"""All four services in one process on one data folder: for one person on one computer.

``embedded`` serves a program that holds it; ``serve_forever`` serves everybody who knows the address.
"""

from tunix_rt_local.server import (
    DataDirLocked,
    DataDirUnusable,
    EmbeddedServer,
    embedded,
    pull_model,
    require_free,
    serve_forever,
    verify_model,
)

__all__ = [
    "DataDirLocked",
    "DataDirUnusable",
    "EmbeddedServer",
    "embedded",
    "pull_model",
    "require_free",
    "serve_forever",
    "verify_model",
]
