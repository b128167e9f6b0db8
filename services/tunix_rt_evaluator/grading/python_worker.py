"""The child process that runs graders that users wrote, each answer in a process of its own.

Run as a file by ``graders.python``, its only caller. It is given one JSON request a line on standard input
and answers with one JSON line. For each it forks a process that reads and answers the request, and forks one
for the grader: neither what an answer leaves behind nor what a caller sent ever is in the memory
that the next one inherits. On Linux the kernel keeps the process of the grader from everything but computing
and its one pipe (seccomp); elsewhere, see ``unkept``.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import ctypes
import decimal
import errno
import fractions
import gc
import importlib
import inspect
import json
import linecache
import os
import re
import resource
import select
import signal
import sys
import time
import types
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

MODULES: Final = (
    *(
        "__future__",
        "abc",
        "array",
        "ast",
        "base64",
        "binascii",
        "bisect",
        "calendar",
        "cmath",
        "collections",
    ),
    *("contextlib", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions"),
    *("functools", "hashlib", "heapq", "html", "io", "itertools", "json", "keyword", "math", "numbers"),
    *("operator", "re", "shlex", "statistics", "string", "struct", "textwrap", "types", "typing"),
    *("unicodedata", "zlib"),
)
"""What a grader may import: of Python's own modules those that compute."""
# What these import when they are first used: no file can be opened then.
_ALSO: Final = (
    "_strptime",
    "collections.abc",
    "encodings.cp1252",
    "encodings.idna",
    "html.entities",
    "locale",
)
WALL_S: Final = 15.0
MEMORY_BYTES: Final = 512 << 20
MAX_REPLY: Final = 1 << 16
MAX_TEXT: Final = 2_000
_SHOWN: Final = 200
ADDRESS: Final = re.compile(r"\b0x[0-9a-f]{6,}", re.IGNORECASE)
_FILE: Final = "<grader>"
_RANDOM: Final = frozenset({"random", "secrets", "uuid", "time"})

# Of each kind of processor: its number in the kernel's audit.h, and the system calls that computing needs:
# read, write, close, lseek, memory, signals' ends, locks, the clock, the process's own id, exit.
_CALLS: Final = {
    "x86_64": (
        0xC000003E,
        (0, 1, 3, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 28, 39, 60, 96, 131, 186, 202, 219, 228, 231),
    ),
    "aarch64": (
        0xC00000B7,
        (
            *(57, 62, 63, 64, 93, 94, 98, 113, 124, 128, 132, 134, 135, 139, 169, 172, 178, 214, 215),
            *(216, 222, 226, 233),
        ),
    ),
}
_SET_PARENT_DEATH_SIGNAL: Final = 1
_SET_SECCOMP: Final = 22
_SET_NO_NEW_PRIVILEGES: Final = 38
_BY_FILTER: Final = 2
_LOAD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_FAIL_WITH: Final = 0x00050000


def unkept() -> str:
    """What this platform cannot keep a grader from; empty where the kernel closes the process."""
    if sys.platform == "linux" and os.uname().machine in _CALLS:
        return ""
    return f"files, other processes and the network ({sys.platform} on {os.uname().machine} has no seccomp)"


class _Instruction(ctypes.Structure):
    """``struct sock_filter`` of linux/filter.h."""

    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    """``struct sock_fprog`` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _close_system_calls() -> bool:
    """Let this process make the calls of ``_CALLS`` alone from now on; every other one fails with EPERM."""
    if unkept():
        return False
    architecture, allowed = _CALLS[os.uname().machine]
    steps = [(_LOAD, 0, 0, 4), (_JUMP_IF_EQUAL, 1, 0, architecture)]
    steps += [(_RETURN, 0, 0, _FAIL_WITH | errno.EPERM), (_LOAD, 0, 0, 0)]
    # Each jumps over the tests that are left and the refusal behind them.
    steps += [(_JUMP_IF_EQUAL, len(allowed) - at, 0, number) for at, number in enumerate(allowed)]
    steps += [(_RETURN, 0, 0, _FAIL_WITH | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    program = _Program(len(steps), (_Instruction * len(steps))(*(_Instruction(*step) for step in steps)))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    refused: int = library.prctl(_SET_SECCOMP, _BY_FILTER, ctypes.byref(program), 0, 0)
    return refused == 0


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _confine(reply: int, cpu_s: int) -> bool:
    """Take from this process all but time to compute and its pipe; whether the kernel holds it to that."""
    _die_with_parent()
    os.environ.clear()
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    # Files and sockets of the parent, were there any.
    os.closerange(3, reply)
    os.closerange(reply + 1, 1024)
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_AS: (MEMORY_BYTES, MEMORY_BYTES),
    }
    for limit, most in limits.items():
        # macOS refuses to lower that of memory; the others hold there all the same.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, most)
    return _close_system_calls()


class Wrong(Exception):
    """The grader is wrong; the message says what, in one line."""


def _checked_import(name: str, *others: Any, **named: Any) -> Any:
    # Modules that are written in C import by way of their caller, and alone name what they want by a list.
    by_module = len(others) > 2 and isinstance(others[2], list) and name in sys.modules
    if not by_module and name.partition(".")[0] not in MODULES:
        raise ImportError(_not_to_import(name))
    return builtins.__import__(name, *others, **named)


def _not_to_import(name: str) -> str:
    if name.partition(".")[0] in _RANDOM:
        return f"a grader may not import {name}: the same answer must always get the same grade"
    return (
        f"a grader may not import {name}: it has no network, no files and no packages, only modules of "
        "Python that compute, such as re, math, json and decimal"
    )


def _no_file(*_: Any, **__: Any) -> NoReturn:
    raise PermissionError("a grader may not open files")


def _no_clock(*_: Any, **__: Any) -> NoReturn:
    raise PermissionError("a grader has no clock: the same answer must always get the same grade")


def _take_clocks() -> None:
    """Dates can be computed, but nobody is told today's."""
    datetime: Any = importlib.import_module("datetime")
    clockless = {"now": _no_clock, "today": _no_clock, "utcnow": _no_clock}
    date = type("date", (datetime.date,), {"today": _no_clock})
    datetime.datetime = type("datetime", (datetime.datetime,), clockless)
    datetime.date = date


def _compiled(source: str) -> Any:
    try:
        tree = ast.parse(source, _FILE)
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "."] if not node.level else ["." * node.level + (node.module or "")]
            for name in names:
                if name.partition(".")[0] not in MODULES:
                    raise Wrong(f"line {getattr(node, 'lineno', 0)}: {_not_to_import(name)}")
        # This file's own way to treat annotations is none of the grader's.
        return compile(tree, _FILE, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f"line {error.lineno}: " if error.lineno else ""
        raise Wrong(f"{line}it is no Python {_python()}: {error.msg}") from None
    except (MemoryError, RecursionError):
        raise Wrong(f"it is no Python {_python()}: it nests too deep") from None
    except ValueError as error:
        raise Wrong(f"it is no Python {_python()}: {error}") from None


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _function(source: str, name: str) -> Callable[[str, Mapping[str, Any]], Any]:
    code = _compiled(source)
    linecache.cache[_FILE] = (len(source), None, source.splitlines(True), _FILE)
    kept = {**vars(builtins), "__import__": _checked_import, "open": _no_file, "input": _no_file}
    # Dataclasses look their module up by its name.
    module = sys.modules["grader"] = types.ModuleType("grader")
    names = vars(module)
    names["__builtins__"] = kept
    _called(source, lambda: exec(code, names))
    function: Any = names.get(name)
    if not callable(function):
        others = [key for key, value in names.items() if inspect.isfunction(value)]
        there = f"its functions are {', '.join(others)}" if others else "it defines no function"
        raise Wrong(f"it has no function {name}; {there}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise Wrong(f"{name} is asynchronous or a generator; a plain function would be right")
    try:
        inspect.signature(function).bind("", {})
    except (TypeError, ValueError):
        taken = _signature(function)
        raise Wrong(f"{name}{taken} cannot be called as {name}(output, item)") from None
    called: Callable[[str, Mapping[str, Any]], Any] = function
    return called


def _signature(function: Any) -> str:
    try:
        return str(inspect.signature(function))[:_SHOWN]
    except (TypeError, ValueError):
        return "(?)"


def _called(source: str, call: Callable[[], Any]) -> Any:
    """What ``call`` gives; what it raises, as the line of the source that does."""
    try:
        return call()
    except Wrong:
        raise
    except MemoryError:
        raise Wrong(f"it needs more than {MEMORY_BYTES >> 20} MiB of memory") from None
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: nothing may end it unnamed
        lines, trace = [], error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == _FILE:
                lines.append(trace.tb_lineno)
            trace = trace.tb_next
        text = f"{type(error).__name__}: {_text(error)}".removesuffix(": ")
        if not lines:
            raise Wrong(text) from None
        written = source.splitlines()[lines[-1] - 1].strip()[:_SHOWN]
        raise Wrong(f"line {lines[-1]}, `{written}`, raises {text}") from None


def _text(value: Any) -> str:
    """A text of the grader's in one line; surrogates, which no message can hold, are replaced."""
    try:
        text = str(value)
    except Exception:
        text = f"(a {type(value).__name__} that cannot be shown)"
    return " ".join(text.encode("utf-8", "replace").decode().split())[:MAX_TEXT]


def _result(name: str, given: Any) -> dict[str, Any]:
    """What a grader returned, checked."""
    found = dict(given) if isinstance(given, dict) else {"score": given}
    unknown = sorted(str(key) for key in found if key not in ("score", "answer", "explanation"))
    if unknown or "score" not in found:
        what = f"holds {', '.join(unknown)}" if unknown else "holds no score"
        raise Wrong(f"{name} returned a dict that {what}; score, answer and explanation would be right")
    for key in ("answer", "explanation"):
        if not isinstance(found.get(key, ""), str):
            raise Wrong(f"{name} returned {_shown(found[key])} as {key}; a text would be right")
    score = found["score"]
    number = isinstance(score, (int, float, fractions.Fraction, decimal.Decimal))
    if not number or score != score or not 0 <= score <= 1:
        raise Wrong(f"{name} returned {_shown(score)}; True, False or a number from 0 to 1 would be right")
    return {
        "score": float(score),
        "graded": not isinstance(score, bool),
        "answer": storable(found.get("answer", "")),
        "explanation": storable(found.get("explanation", "")),
    }


def storable(text: str) -> str:
    """A text as messages and tables can hold it."""
    return str(text).encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:MAX_TEXT]


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except Exception:
        shown = "(what cannot be shown)"
    if ADDRESS.search(shown):
        # Where an object lies differs from call to call.
        kind = type(value).__name__
        return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"
    return f"{_text(shown)[:_SHOWN]} ({type(value).__name__})"


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the grader of a request gives, or an ``error``. Without an ``output`` it is only looked at."""
    try:
        function = _function(request["source"], request["function"])
        if "output" not in request:
            return {}
        given = _called(request["source"], lambda: function(request["output"], request["item"]))
        checked: dict[str, Any] = _called(request["source"], lambda: _result(request["function"], given))
        return checked
    except Wrong as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": f"it needs more than {MEMORY_BYTES >> 20} MiB of memory"}
    except RecursionError:
        return {"error": "it nests too deep"}


def _in_child(line: bytes, reply: int) -> NoReturn:
    """In the forked process: the answer to one request, and the end."""
    try:
        request = json.loads(line)
        closed = _confine(reply, request["cpu_s"])
        if not closed and not request["trusted"]:
            answer = {"unkept": unkept() or "files and the network (the kernel refused a seccomp filter)"}
        else:
            answer = run(request)
        os.write(reply, json.dumps(answer).encode())
    finally:
        os._exit(0)


def answer(line: bytes) -> dict[str, Any]:
    """The answer to one request, by a process of its own; ``limit`` says that it ran into one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(line, writing)
    os.close(writing)
    reply, end = b"", time.monotonic() + WALL_S
    try:
        while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
            part = os.read(reading, MAX_REPLY)
            reply += part
            if not part or len(reply) > MAX_REPLY:
                break
        else:
            return {"error": f"it is not done after {WALL_S:g} s", "limit": True}
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    return _read(reply, status, line)


def _read(reply: bytes, status: int, line: bytes) -> dict[str, Any]:
    # The kill comes too late for a process that has answered, and changes nothing about its answer.
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if not reply and ended == signal.SIGXCPU:
        cpu_s = json.loads(line)["cpu_s"]
        return {"error": f"it is not done after {cpu_s} s of CPU time", "limit": True}
    # The grader's process may have written what it likes.
    with contextlib.suppress(ValueError, RecursionError):
        found: Any = json.loads(reply)
        if isinstance(found, dict) and all(isinstance(one, str | int | float) for one in found.values()):
            return dict(found)
    return {"error": f"its process ended without a grade (signal {ended})", "limit": True}


def _answered() -> bool:
    """Answer one request in a process that is forked before it is read; whether there was one."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    status = 1
    try:
        _die_with_parent()
        if line := sys.stdin.buffer.readline():
            sys.stdout.buffer.write(json.dumps(answer(line)).encode() + b"\n")
            sys.stdout.buffer.flush()
            status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Say ready, then answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in (*MODULES, *_ALSO):
        importlib.import_module(module)
    _take_clocks()
    # The forked processes share the memory of what is imported.
    gc.freeze()
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    while select.select([0], [], [])[0] and _answered():
        pass


if __name__ == "__main__":
    main()
