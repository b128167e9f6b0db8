"""Runs the benchmarks: ``python -m benchmarks [NAME ...]``; all of them without a name.

Each prints one JSON object on standard output, and its figures line by line on standard error,
behind a line that names the processor.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.options import Options
from tunix_rt_kit.models.runtime import processor, processor_fact

MODULES: Final = {
    "trace-import": "benchmarks.trace_import",
    "trace-read": "benchmarks.trace_read",
    "trace-scale": "benchmarks.trace_scale",
    "conversation-import": "benchmarks.conversation_import",
    "live-spans": "benchmarks.live_spans",
    "dataset-build": "benchmarks.dataset_build",
    "decontamination": "benchmarks.decontamination",
    "training": "benchmarks.training",
    "training-service": "benchmarks.training_service",
    "generation": "benchmarks.generation",
    "command-start": "benchmarks.command_start",
}


def _vector_instructions() -> str:
    """The instruction sets of the processor that decide how fast a model computes; empty off Linux."""
    known = processor_fact("flags").split()
    return " ".join(name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in known)


def main(argv: Sequence[str]) -> None:
    names, options = _parsed(argv)
    here = f"{processor()} ({_vector_instructions()})"
    print(f"processor  {here}", file=sys.stderr)
    for name in names:
        figures = importlib.import_module(MODULES[name]).run(options)
        for path, value in _flat(figures):
            print(f"{name}  {path:<44} {value}", file=sys.stderr)
        print(json.dumps({"benchmark": name, "processor": here, **figures}), flush=True)


def _parsed(argv: Sequence[str]) -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the services beside their peers; see docs/performance.md.",
        epilog="example: python -m benchmarks trace-import --data gsm8k_train.jsonl --databases postgresql",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"any of {', '.join(MODULES)}; left out, all"
    )
    parser.add_argument(
        "--data", type=Path, help="file of traces, repeated to the count; left out, generated traces"
    )
    parser.add_argument("--count", type=_positive, help="traces; left out, each benchmark's own number")
    parser.add_argument(
        "--repeats", type=_positive, default=3, help="of each measurement (default: %(default)s)"
    )
    parser.add_argument(
        "--databases",
        nargs="+",
        choices=("postgresql", "sqlite"),
        default=("postgresql", "sqlite"),
        help="which databases (default: both)",
    )
    parser.add_argument(
        "--postgres-url",
        default="",
        help="server whose user may create databases; left out, one is started from the wheel",
    )
    parser.add_argument(
        "--base-model",
        type=Path,
        metavar="DIR",
        help="Hugging Face folder of a Llama to train; left out, SmolLM2-135M-Instruct is pulled",
    )
    given = parser.parse_args(argv)
    unknown = [name for name in given.names if name not in MODULES]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(MODULES)}")
    if given.data is not None and not given.data.is_file():
        parser.error(f"--data: {given.data} is not a file")
    if given.base_model is not None and not (given.base_model / "config.json").is_file():
        parser.error(f"--base-model: {given.base_model} has no config.json")
    options = Options(
        given.data,
        given.count,
        given.repeats,
        tuple(given.databases),
        given.postgres_url,
        given.base_model,
    )
    return given.names or list(MODULES), options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _flat(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


if __name__ == "__main__":
    main(sys.argv[1:])
