"""gRPC servers: settings, interceptors, health, shutdown, and what servicers share.

Import the modules themselves; ``paging``, ``resources``, ``validation`` and ``settings`` are free of gRPC.
"""
