"""All four services in one process on one data folder: for one person on one computer.

``embedded`` serves a program that holds it; ``serve_forever`` serves everybody who knows the address.
"""

from tunix_rt_local.data_folder import DataDirLocked, DataDirUnusable, require_free
from tunix_rt_local.server import EmbeddedServer, embedded, serve_forever

__all__ = [
    "DataDirLocked",
    "DataDirUnusable",
    "EmbeddedServer",
    "embedded",
    "require_free",
    "serve_forever",
]
