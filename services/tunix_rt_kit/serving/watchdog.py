"""A second process that kills this one when it does not end in time after SIGTERM.

Python cannot do that itself: while a thread is in one long call of C that holds the interpreter's lock, such
as a regular expression that backtracks, no handler runs and no timer can be set. This module is the program
of the second process too, so it imports the standard library alone.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def killed_when_late(grace_s: float) -> Iterator[None]:
    """Inside the block a SIGTERM ends this process within ``grace_s`` seconds, by SIGKILL if need be.

    Set the handler of SIGTERM before. If the second process is gone, SIGTERM does what it did before.
    """
    reading, writing = os.pipe()
    try:
        watching = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(grace_s)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            # Ctrl-C at the terminal is not meant for it.
            start_new_session=True,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        )
    except OSError:
        # No process or memory is left for it; the server can do without.
        os.close(writing)
        yield
        return
    finally:
        os.close(reading)
    # This handler is in C and needs no lock: it writes a traceback, which wakes the other process.
    faulthandler.register(signal.SIGTERM, file=writing, all_threads=False, chain=True)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGTERM)
        # That restored the C handler from before, whatever Python has set since.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        os.close(writing)
        watching.kill()
        watching.wait()


def _watch(process: int, grace_s: float) -> None:
    # A service manager may signal all processes of the server at once.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not os.read(0, 1 << 16):
        return
    end = time.monotonic() + grace_s
    while select.select([0], [], [], max(0.0, end - time.monotonic()))[0]:
        if not os.read(0, 1 << 16):
            return
    if os.getppid() == process:
        os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), float(sys.argv[2]))
