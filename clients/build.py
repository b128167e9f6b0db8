"""Writes the synchronous client from the asyncio one.

python clients/build.py generate   writes clients/tunix_rt/**/*.py from clients/tunix_rt/aio/**/*.py
python clients/build.py check      is the committed code up to date?
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from unasync import Rule, unasync_files

PACKAGE = Path(__file__).resolve().parent / "tunix_rt"
SOURCE = PACKAGE / "aio"
NAMES = {
    "AsyncCalls": "Calls",
    "AsyncCaller": "Caller",
    "AsyncClient": "Client",
    "AsyncEvaluatorClient": "EvaluatorClient",
    "AsyncExporterClient": "ExporterClient",
    "AsyncPager": "Pager",
    "AsyncRunning": "Running",
    "AsyncTraceStoreClient": "TraceStoreClient",
    "AsyncTraceStream": "TraceStream",
    "AsyncTrainerClient": "TrainerClient",
    "aclose": "close",
    "anext": "next",
    "asyncio": "time",
    "open_aio_channel": "open_channel",
}
WORDS = {
    "Asyncio calls": "Synchronous calls",
    "Asyncio access": "Synchronous access",
    "Make it in the\n    event loop that uses it.": "Thread-safe.",
    " 0 until the server has\n        answered: await ``start()`` first.": "",
}


def modules() -> list[Path]:
    """The modules of the asyncio client that have a synchronous form."""
    package = {SOURCE / "__init__.py", SOURCE / "rpc" / "__init__.py"}
    return sorted(set(SOURCE.rglob("*.py")) - package)


def generated() -> dict[Path, str]:
    """The text of each synchronous module."""
    with tempfile.TemporaryDirectory() as scratch:
        rule = Rule(f"{SOURCE}/", f"{scratch}/", additional_replacements=NAMES)
        unasync_files([str(path) for path in modules()], [rule])
        made = {path.relative_to(SOURCE): (Path(scratch) / path.relative_to(SOURCE)) for path in modules()}
        return {PACKAGE / name: finished(name, path.read_text()) for name, path in made.items()}


def finished(name: Path, text: str) -> str:
    """A module that unasync made, with what it does not know: packages, types and words."""
    text = re.sub(r"\baio\.|\.aio\b", "", text)
    text = re.sub(r"Awaitable\[(\w+)\]", r"\1", text)
    # A line with this comment is another one in the synchronous client.
    text = re.sub(r"(?m)^( *)\S.*?  # sync: (.+)$", r"\1\2", text)
    for words, instead in WORDS.items():
        text = text.replace(words, instead)
    head, body = f"# Generated from aio/{name} by `make proto`: change that one.\n", text
    source = (SOURCE / name).read_text()
    classes = [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    module = f"tunix_rt.aio.{'.'.join(name.with_suffix('').parts)}"
    # Both clients are to be had from the modules that users import; those of rpc are our own.
    both = [entry for entry in classes if entry.startswith("Async") and name.parts[0] != "rpc"]
    also = [f"from {module} import {entry} as {entry}" for entry in both]
    # Behind the imports, where ruff sorts them in.
    body = body.replace("\nfrom tunix_rt", "\n" + "\n".join([*also, "from tunix_rt"]), 1) if also else body
    options = [
        "--select",
        "I,F401,F811,UP028",
        "--fix",
        "--unsafe-fixes",
        "--quiet",
        "--stdin-filename",
        str(PACKAGE / name),
        "-",
    ]
    fixed = ruff(["check", *options], head + body)
    return ruff(["format", "--stdin-filename", str(PACKAGE / name), "-"], fixed)


def ruff(arguments: list[str], text: str) -> str:
    """What ruff makes of ``text``."""
    command = [sys.executable, "-m", "ruff", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout or sys.exit(done.stderr)


def main(command: str) -> None:
    if command not in ("generate", "check"):
        sys.exit(__doc__)
    stale = {
        path: text for path, text in generated().items() if not path.exists() or path.read_text() != text
    }
    if command == "check" and stale:
        names = ", ".join(str(path.relative_to(PACKAGE)) for path in stale)
        sys.exit(f"the synchronous client is not what the asyncio one says; run `make proto`: {names}")
    for path, text in stale.items():
        path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
