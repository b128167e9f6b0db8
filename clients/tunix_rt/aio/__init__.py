"""The clients for asyncio, and the source of the synchronous ones.

``make proto`` writes ``tunix_rt/trainer.py`` from ``tunix_rt/aio/trainer.py``, and so on for each module:
the same names, arguments and errors without ``async`` and ``await``. What truly differs stands by hand in
``tunix_rt.rpc``.
"""
