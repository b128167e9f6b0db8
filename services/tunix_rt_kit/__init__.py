"""What the services share, and nothing else.

Files: ``errors`` (domain errors), ``values`` (what jobs, files and requests are), ``convert`` (to protobuf
and back), ``canonical`` (JSON, digests), ``artifacts`` (content-addressed store), ``callers`` (who waits for
a call), ``loss_mask`` and ``packing`` (training examples). Rooms: ``serving`` (gRPC servers), ``database``
(SQLAlchemy engines), ``jobs`` (the job engine, child processes), ``chat`` (templates), ``models``.
"""
