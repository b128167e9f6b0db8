"""The child process of ``grading.service.GradingSandbox``, its only caller.

Run as a file. It reads one JSON request a line from standard input and answers with one JSON line.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from tunix_rt_evaluator.grading.formulas.computing import TooLarge, Undefined
from tunix_rt_evaluator.grading.formulas.equality import equal
from tunix_rt_evaluator.grading.formulas.statements import read, same_spelling
from tunix_rt_evaluator.grading.formulas.tree import Call, Mixed, Node, Unreadable
from tunix_rt_evaluator.grading.formulas.values import Unproven

MEMORY_LIMIT_BYTES = 2 << 30
SHOWN = 200


def mathematics(request: Mapping[str, Any]) -> dict[str, Any]:
    """Whether one of ``answers``, the readings of one answer, equals one of ``accepted``.

    Returns ``read``, the reading that does or else the first that can be read, and ``why``, what is wrong
    with it. A reading in ``copied`` stands in the question too: it is right only if an accepted answer is
    spelled the same.
    """
    accepted, answers = request["accepted"], request["answers"]
    for text in answers:
        if any(same_spelling(text, wanted) for wanted in accepted):
            return {"correct": True, "read": text[:SHOWN], "why": ""}
    doubts: list[str] = []
    trees = [tree_of(text) for text in answers]
    # A formula among words is the better reading where there is a whole one.
    read_ones = [text for text, tree in zip(answers, trees, strict=True) if not isinstance(tree, str)]
    whole = [text for text in read_ones if not isinstance(tree_of(text), Mixed)]
    reasons = [] if read_ones else [tree for tree in trees if isinstance(tree, str)]
    for wanted in accepted:
        gold = tree_of(wanted)
        if isinstance(gold, str):
            return {
                "error": f"the accepted answer {wanted[:SHOWN]!r} is no mathematics that can be read: {gold}"
            }
        for text, answer in zip(answers, trees, strict=True):
            if isinstance(answer, str):
                continue
            try:
                if not equal(gold, answer):
                    continue
                # What is to be computed is no answer yet; a number or a word is one all the same.
                if gold == answer or text not in request["copied"] or not isinstance(answer, Call):
                    return {"correct": True, "read": text[:SHOWN], "why": ""}
                reasons.append("it only repeats the question")
            except (Unreadable, Undefined) as error:
                reasons.append(str(error))
            except (TooLarge, Unproven) as error:
                doubts.append(str(error))
    if doubts:
        return {"error": doubts[0]}
    why = reasons[-1] if reasons else ""
    if reasons and not read_ones:
        why = f"it is no mathematics that can be read: {why}"
    return {"correct": False, "read": next(iter(whole or read_ones), "")[:SHOWN], "why": why}


@functools.lru_cache(maxsize=4096)
def tree_of(text: str) -> Node | str:
    """The tree of a text, or the reason why it cannot be read."""
    try:
        return read(text)
    except Unreadable as error:
        return str(error)


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
