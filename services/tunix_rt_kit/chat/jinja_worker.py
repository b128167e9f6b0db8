"""The child process that runs chat templates written by others.

It is run as a file, with the standard library and Jinja alone. It reads one JSON request a line from standard
input and answers with one JSON line; `tunix_rt_kit.chat.sandbox` is its only caller. As a process of its own
it keeps a template from stopping the server or eating its memory.

Settings and extras are those of ``transformers`` (trim_blocks, lstrip_blocks, loop controls,
``raise_exception``, a ``tojson`` that keeps HTML characters, ``generation`` blocks), without what gives
different texts for one conversation: ``strftime_now``, ``random`` and ``lipsum``.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import FrameType
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_LIMIT_BYTES = 512 << 20
KILLED_AFTER_SECONDS = 1.0
SHOWN = 500
COMPILED_TEMPLATES = 16


class Refused(jinja2.TemplateError):
    """The template itself refused the conversation by ``raise_exception``."""


class OutOfTime(BaseException):
    """The CPU time of one rendering is used up. Not an Exception, so that nothing in Jinja catches it."""


class TooLong(Exception):
    """The rendering grew over its limit."""


class GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant wrote; for the text it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as a plain set

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


class Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which reaching for a forbidden attribute fails at once, not when it is used."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        kind = type(obj).__name__
        raise SecurityError(f"reaches for {attribute!r} of {kind!r}, which templates must not use")


def _raise_exception(message: str) -> NoReturn:
    raise Refused(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _environment() -> Environment:
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


ENVIRONMENT = _environment()


@lru_cache(maxsize=COMPILED_TEMPLATES)
def _compiled(source: str) -> jinja2.Template:
    return ENVIRONMENT.from_string(source)


def _render(template: jinja2.Template, variables: Mapping[str, Any], max_chars: int) -> str:
    pieces, size = [], 0
    for piece in template.generate(**variables):
        size += len(piece)
        if size > max_chars:
            raise TooLong
        pieces.append(piece)
    return "".join(pieces)


def _out_of_time(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise OutOfTime


@contextlib.contextmanager
def _limited_to(seconds: float) -> Iterator[None]:
    """End the block by OutOfTime after so much CPU time.

    No signal interrupts one huge power or a runaway regular expression: that ends a moment later, together
    with this process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # Counted from the start of the process, in whole seconds.
    at_the_latest = math.ceil(time.process_time() + seconds + KILLED_AFTER_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (at_the_latest, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Render ``request["renderings"]`` (each a mapping of variables) with ``request["source"]``.

    All of them together get ``cpu_seconds`` of CPU time, and write at most ``max_chars`` characters.

    Returns ``{"texts": [...]}``, or for the first that fails ``{"error": line, "kind": ...}``, where kind is
    ``template`` or ``messages``.
    """
    seconds = float(request["cpu_seconds"])
    max_chars = int(request["max_chars"])
    texts: list[str] = []
    try:
        with _limited_to(seconds):
            for variables in request["renderings"]:
                left = max_chars - sum(map(len, texts))
                texts.append(_render(_compiled(request["source"]), variables, left))
    except Refused as error:
        return {"kind": "messages", "error": f"the chat template refuses the conversation: {error}"}
    except OutOfTime:
        return {"kind": "template", "error": f"is not done after {seconds:g} s of CPU time"}
    except TooLong:
        return {"kind": "template", "error": f"writes more than {max_chars} characters"}
    except MemoryError:
        return {"kind": "template", "error": f"needs more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory"}
    except RecursionError:
        return {"kind": "template", "error": "nests too deep"}
    except jinja2.TemplateSyntaxError as error:
        return {"kind": "template", "error": f"does not parse: line {error.lineno}: {error.message}"}
    except Exception as error:  # whatever a template can make Python raise is the template's fault
        return {"kind": "template", "error": f"fails: {type(error).__name__}: {str(error)[:SHOWN]}"}
    return {"texts": texts}


def _limit_memory() -> None:
    # macOS refuses to lower this limit; the time limits hold there all the same.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    # One that is ended for its time leaves no image of its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Say ready, then answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, _out_of_time)
    _limit_memory()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
