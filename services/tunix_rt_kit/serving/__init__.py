"""gRPC servers: settings, interceptors, health, shutdown, and what servicers share.

Import the modules themselves; ``paging``, ``resources``, ``validation``, ``field_errors`` and ``settings``
are free of gRPC.
"""

import os

# gRPC's core adds lines of its own to standard error, such as a second one when a port is in use; every
# failure reaches us as an exception too. It reads this when it is loaded.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
