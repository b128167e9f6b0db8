"""The `tunix-rt` command: one module per command group; `main` is the entry point."""

import os

# gRPC's core would print lines of its own beside a command's one error. It reads this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
