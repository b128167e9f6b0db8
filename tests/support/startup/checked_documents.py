"""Checks each JSON document that the command line writes in a test against its schema in docs/reference/json.

In the test's own process, and in those that it starts.
"""

from __future__ import annotations

import importlib.abc
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

SCHEMAS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "json"
_WRITES = "tunix_rt.cli.documents"


class UndocumentedJson(BaseException):
    """A document is not what its schema says. No command takes it for an error of its own."""


def install() -> None:
    """Have the module that writes documents check them, once it is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _WRITES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                module.document_text = _checking(module.document_text, module)  # type: ignore[attr-defined]

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _checking(write: Callable[..., str], documents: ModuleType) -> Callable[..., str]:
    def document_text(document: Any, kinds: tuple[Any, ...], encoding: str, **options: Any) -> str:
        text = write(document, kinds, encoding, **options)
        names = [documents.kind_name(kind) for kind in kinds if not isinstance(kind, documents.Lines)]
        if names:
            # What was written, not what was given: numbers, keys and characters are what a reader gets.
            check(json.loads(text), names)
        return text

    return document_text


def check(document: Any, kinds: Sequence[str]) -> None:
    """Raise UndocumentedJson unless the document is of one of the kinds."""
    problems = [problem for kind in kinds if (problem := _problem(document, kind))]
    if len(problems) == len(kinds):
        raise UndocumentedJson(f"{'; '.join(problems)} (after a change of a document: make proto)")


def _problem(document: Any, kind: str) -> str:
    """What is wrong with a document, and where; empty if nothing is."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator(kind).iter_errors(document))
    return "" if error is None else f"{kind}.json: {error.json_path}: {error.message[:500]}"


@cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft202012Validator, FormatChecker

    path = SCHEMAS / f"{kind}.json"
    if not path.is_file():
        raise UndocumentedJson(f"docs/reference/json has no {path.name}; run: make proto")
    # Few formats can be checked without further packages.
    return Draft202012Validator(json.loads(path.read_text()), format_checker=FormatChecker())
