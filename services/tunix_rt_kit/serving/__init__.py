"""gRPC servers: settings, interceptors, health, shutdown, and what servicers share.

Import the modules themselves; ``requests`` and ``settings`` are free of gRPC.
"""

import os

# gRPC's core writes lines of its own to standard error, though every failure raises too. It reads this when
# it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
