"""The clients for asyncio, and the source of the synchronous ones.

``make proto`` writes ``tunix_rt/trainer.py`` from ``tunix_rt/aio/trainer.py``, and so on for each module:
the same names, arguments and errors without ``async`` and ``await``. A line that differs names the
synchronous one behind ``# sync:``.
"""
