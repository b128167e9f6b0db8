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
from collections.abc import Callable, Iterator, Mapping
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


class Rendering:
    """A text that grows, and where in it the ``{% generation %}`` blocks stand."""

    def __init__(self, max_chars: int) -> None:
        self.blocks: list[tuple[int, int]] = []
        self._max_chars = max_chars
        self._pieces: list[str] = []
        self._size = 0

    def add(self, piece: str) -> None:
        self._size += len(piece)
        if self._size > self._max_chars:
            raise TooLong
        self._pieces.append(piece)

    def note_block(self, text: str) -> None:
        # Jinja hands over what stands before a block before it runs the block.
        self.blocks.append((self._size, self._size + len(text)))

    @property
    def text(self) -> str:
        return "".join(self._pieces)


class GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant wrote; for the text it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it as a plain set
    current: Rendering | None = None

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("noted"), [], [], body).set_lineno(line)

    def noted(self, caller: Callable[[], str]) -> str:
        text = caller()
        if GenerationBlock.current is not None:
            GenerationBlock.current.note_block(text)
        return text


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


def _render(source: str, variables: Mapping[str, Any], max_chars: int) -> Rendering:
    rendering = GenerationBlock.current = Rendering(max_chars)
    for piece in _compiled(source).generate(**variables):
        rendering.add(piece)
    return rendering


def _beginnings(source: str, conversation: Mapping[str, Any], max_chars: int) -> list[dict[str, Any]]:
    """The renderings of beginnings of a conversation; of each what differs from the first of them."""
    variables = conversation["variables"]
    messages = variables["messages"]
    first: str | None = None
    found: list[dict[str, Any]] = []
    for count, opened in conversation["beginnings"]:
        own = {**variables, "messages": messages[:count], "add_generation_prompt": opened}
        rendering = _render(source, own, max_chars)
        text = rendering.text
        first = text if first is None else first
        shared = 0 if not found else _shared(first, text)
        found.append({"shared": shared, "rest": text[shared:], "blocks": rendering.blocks})
        max_chars -= len(text) - shared
    return found


def _shared(text: str, other: str) -> int:
    """How many characters at their beginning are the same."""
    least, most = 0, min(len(text), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if text[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _conversation(source: str, conversation: Mapping[str, Any], max_chars: int) -> dict[str, Any]:
    try:
        return {"renderings": _beginnings(source, conversation, max_chars)}
    except Exception as error:  # what a template makes of one conversation says nothing of the others
        return _problem(error, max_chars)


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


def _problem(error: Exception, max_chars: int) -> dict[str, str]:
    """What is wrong, and with what: the template or the messages."""
    if isinstance(error, Refused):
        return {"kind": "messages", "error": f"the chat template refuses the conversation: {error}"}
    if isinstance(error, TooLong):
        return {"kind": "template", "error": f"writes more than {max_chars} characters"}
    if isinstance(error, MemoryError):
        return {"kind": "template", "error": f"needs more than {MEMORY_LIMIT_BYTES >> 20} MiB of memory"}
    if isinstance(error, RecursionError):
        return {"kind": "template", "error": "nests too deep"}
    if isinstance(error, jinja2.TemplateSyntaxError):
        return {"kind": "template", "error": f"does not parse: line {error.lineno}: {error.message}"}
    # Whatever a template can make Python raise is the template's fault.
    return {"kind": "template", "error": f"fails: {type(error).__name__}: {str(error)[:SHOWN]}"}


def _answer(request: Mapping[str, Any], max_chars: int) -> dict[str, Any]:
    source = request["source"]
    if "conversations" in request:
        found = [_conversation(source, wanted, max_chars) for wanted in request["conversations"]]
        return {"conversations": found}
    texts: list[str] = []
    for variables in request["renderings"]:
        texts.append(_render(source, variables, max_chars).text)
        max_chars -= len(texts[-1])
    return {"texts": texts}


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Render ``request["renderings"]`` (each a mapping of variables) with ``request["source"]``.

    All of them together get ``cpu_seconds`` of CPU time, and write at most ``max_chars`` characters.

    With ``request["conversations"]`` instead, each of ``variables`` and of ``beginnings`` (how many messages,
    and whether with the generation prompt), those beginnings are rendered, and each conversation writes at
    most ``max_chars`` characters.

    Returns ``{"texts": [...]}``, or for the first that fails ``{"error": line, "kind": ...}``, where kind is
    ``template`` or ``messages``. For conversations ``{"conversations": [...]}``: of each its ``renderings``
    or its own error.
    """
    seconds = float(request["cpu_seconds"])
    max_chars = int(request["max_chars"])
    try:
        with _limited_to(seconds):
            return _answer(request, max_chars)
    except OutOfTime:
        return {"kind": "template", "error": f"is not done after {seconds:g} s of CPU time"}
    except Exception as error:
        return _problem(error, max_chars)


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
