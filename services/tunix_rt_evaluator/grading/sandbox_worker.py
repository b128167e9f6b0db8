"""The child process of ``tunix_rt_evaluator.grading.sandbox``, its only caller.

Run as a file. It reads one JSON request a line from standard input and answers with one JSON line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any

import jsonschema
from math_verify import parse, verify
from referencing import Registry
from referencing.exceptions import Unresolvable

MEMORY_LIMIT_BYTES = 2 << 30
SHOWN = 200


def mathematics(request: Mapping[str, Any]) -> dict[str, Any]:
    """Whether one of ``answers`` (readings of one answer, the first that can be read counts) equals one of
    ``accepted``; ``read`` is how it was read."""
    accepted = [_formulas(text) for text in request["accepted"]]
    unread = [text for text, parsed in zip(request["accepted"], accepted, strict=True) if not parsed]
    if unread:
        return {"error": f"the accepted answer {unread[0][:SHOWN]!r} is no mathematics that can be read"}
    for text in request["answers"]:
        answer = _formulas(text)
        if answer:
            correct = any(verify(gold, answer, timeout_seconds=None) for gold in accepted)
            return {"correct": correct, "read": str(answer[0])[:SHOWN]}
    return {"correct": False, "read": ""}


def _formulas(text: str) -> list[Any]:
    """The readings of a text that are formulas: where there is none, Math-verify gives the text back."""
    return [entry for entry in parse(text, parsing_timeout=None) if not isinstance(entry, str)]


def schema(request: Mapping[str, Any]) -> dict[str, Any]:
    """What ``schema`` finds wrong with ``value``: "" or one line."""
    kind = jsonschema.validators.validator_for(request["schema"], default=jsonschema.Draft202012Validator)
    # An own registry: the default one fetches what a schema refers to.
    validator = kind(request["schema"], registry=Registry())
    try:
        problem = jsonschema.exceptions.best_match(validator.iter_errors(request["value"]))
    except Unresolvable as error:
        return {"error": f"the schema refers to {error.ref!r}, which is not in it"}
    return {"problem": "" if problem is None else f"{problem.json_path}: {problem.message}"}


TASKS = {"math": mathematics, "schema": schema}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one request; whatever goes wrong is an ``error``."""
    try:
        return TASKS[request["task"]](request)
    except MemoryError:
        return {"error": f"it needs more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory"}
    except RecursionError:
        return {"error": "it nests too deep"}
    except Exception as error:  # whatever a formula or a schema can make the libraries raise
        return {"error": f"it fails: {type(error).__name__}: {str(error)[:SHOWN]}"}


def main() -> None:
    """Say ready, then answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # macOS refuses to lower this limit; the time limit holds there all the same.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    logging.disable(logging.CRITICAL)
    # What a library prints must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
