"""A process that kills this one when it does not end in time after SIGTERM.

For what Python itself cannot do: while a thread is inside one long call of C that keeps the interpreter's
lock, such as a regular expression that backtracks, no handler runs and no timer can be set. The module is the
program of that process too, so it imports nothing but the standard library.
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

    Whoever handles SIGTERM must have been set before. Without the block's process, which may be killed too,
    SIGTERM does what it did before.
    """
    reading, writing = os.pipe()
    try:
        watching = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(grace_s)],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            # The terminal's Ctrl-C is not for it.
            start_new_session=True,
            env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        )
    except OSError:
        # No process or no memory is left for it now: the server can do without.
        os.close(writing)
        yield
        return
    finally:
        os.close(reading)
    # Its handler is of C and needs no lock: it writes where this process is, which wakes the other one.
    faulthandler.register(signal.SIGTERM, file=writing, all_threads=False, chain=True)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGTERM)
        # That put back the handler of C which was there before, whatever Python has set since.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        os.close(writing)
        watching.kill()
        watching.wait()


def _watch(process: int, grace_s: float) -> None:
    # A service manager may send it to all processes of the server at once.
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
