"""Mutation testing of the modules that carry the promises: how many small changes the tests notice.

mutmut changes one thing in one function at a time (a comparison, a constant, an argument) and runs the tests
that reach that function. A mutant is killed if a test fails or does not end. What is printed is, for each
promise, how many of the mutants that were tried were killed; the survivors' names lie in the output folder.

    make mutation                                       # forty mutants of each module, always the same ones
    make mutation MUTATION_ARGS="--sample 0 --only splits"  # all of one promise
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
UNIT: Final = "tests/unit/"
PROMISES: Final[dict[str, tuple[list[str], list[str]]]] = {
    "digests": (
        ["tunix_rt_kit/canonical.py"],
        [
            *(f"tunix_rt_kit/artifacts/test_canonical{name}.py" for name in ("", "_edges", "_fast")),
            "tunix_rt_kit/test_text.py",
        ],
    ),
    "splits": (
        ["tunix_rt_exporter/datasets/split.py"],
        ["tunix_rt_exporter/test_split.py", "tunix_rt_exporter/test_duplicates.py"],
    ),
    "duplicates": (
        ["tunix_rt_exporter/datasets/deduplicate.py"],
        ["tunix_rt_exporter/test_deduplicate.py", "tunix_rt_exporter/test_duplicates.py"],
    ),
    "contamination": (
        ["tunix_rt_exporter/datasets/decontaminate.py", "tunix_rt_exporter/datasets/word_runs.py"],
        ["tunix_rt_exporter/test_contamination.py", "tunix_rt_exporter/test_word_runs.py"],
    ),
    "loss mask": (
        ["tunix_rt_kit/loss_mask.py"],
        ["tunix_rt_kit/test_loss_mask.py", "tunix_rt_trainer/test_examples.py"],
    ),
    "packing": (
        ["tunix_rt_kit/packing.py", "tunix_rt_trainer/worker/batches.py"],
        [
            "tunix_rt_kit/test_packing.py",
            "tunix_rt_trainer/test_batches.py",
            "tunix_rt_trainer/test_packing.py",
        ],
    ),
    "resume": (
        ["tunix_rt_trainer/worker/states.py"],
        ["tunix_rt_trainer/test_states.py"],
    ),
    "statistics": (
        ["tunix_rt_evaluator/comparisons/paired_statistics.py"],
        ["tunix_rt_evaluator/test_statistics.py", "tunix_rt_evaluator/test_paired.py"],
    ),
    "graders": (
        ["tunix_rt_evaluator/grading/graders/*.py"],
        [
            f"tunix_rt_evaluator/grading/test_{name}.py"
            for name in (
                "graders",
                "graders_edges",
                "verdicts",
                "limits",
                "judge",
                "choices",
                "meaning",
                "numeric",
            )
        ],
    ),
    "request ids": (
        ["tunix_rt_kit/database/request_log.py"],
        ["tunix_rt_kit/database/test_request_log.py"],
    ),
    "job engine": (
        [f"tunix_rt_kit/jobs/{name}.py" for name in ("engine", "leases", "run", "child_jobs")],
        [f"tunix_rt_kit/jobs/test_{name}.py" for name in ("engine", "leases", "run", "child_jobs")],
    ),
}
KILLED: Final = {1, 3, 24, -24, 36, 152, 255}
"""mutmut's codes of a mutant that failed a test, or did not end. All others survived, also those that no test
reaches."""


def main() -> None:
    options = _options()
    output = (options.output or Path(tempfile.mkdtemp(prefix="mutation-"))).absolute()
    chosen = {name: PROMISES[name] for name in options.only or PROMISES}
    rows = [_measure(name, *chosen[name], output / name.replace(" ", "-"), options) for name in chosen]
    print(f"\n{'PROMISE':<16}{'MUTANTS':>9}{'TRIED':>8}{'KILLED':>8}{'SHARE':>8}")
    together = ("together", *(sum(row[column] for row in rows) for column in (1, 2, 3)))
    for name, mutants, tried, killed in [*rows, together]:
        print(f"{name:<16}{mutants:>9}{tried:>8}{killed:>8}{killed / max(1, tried):>8.1%}")
    print(f"survivors: {output}/*/survivors.txt; a mutant's change: cd there, then mutmut show NAME")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=40, help="mutants of each module; 0 for all")
    parser.add_argument("--only", action="append", choices=list(PROMISES), help="a promise; may be repeated")
    parser.add_argument("--children", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--output", type=Path, help="an empty folder; default: a new temporary one")
    options = parser.parse_args()
    if options.sample < 0:
        parser.error(f"--sample is {options.sample}; 0 or more would be right")
    if options.children < 1:
        parser.error(f"--children is {options.children}; at least 1 would be right")
    if (
        options.output
        and options.output.exists()
        and (not options.output.is_dir() or any(options.output.iterdir()))
    ):
        parser.error(f"--output {options.output} is there; an empty folder, or a new one, would be right")
    return options


def _measure(
    name: str, modules: list[str], tests: list[str], folder: Path, options: argparse.Namespace
) -> tuple[str, int, int, int]:
    _make_workspace(folder, modules, tests)
    # Without a mutant of that name, it only makes them all and learns which test reaches which function.
    _mutmut(folder, options, "none")
    if not (folder / "mutants" / "mutmut-stats.json").exists():
        sys.exit(f"{name}: a test fails without any mutant; see {folder}/log.txt")
    found = {path: sorted(codes) for path, codes in _exit_codes(folder).items() if codes}
    draw = random.Random(0).sample
    drawn = [
        mutant
        for names in found.values()
        for mutant in (draw(names, min(options.sample, len(names))) if options.sample else names)
    ]
    _mutmut(folder, options, *drawn)
    codes = {mutant: code for of_file in _exit_codes(folder).values() for mutant, code in of_file.items()}
    if not drawn or None in map(codes.get, drawn):
        sys.exit(f"{name}: mutmut did not try all that it should have; see {folder}/log.txt")
    survivors = [mutant for mutant in drawn if codes[mutant] not in KILLED]
    (folder / "survivors.txt").write_text("".join(f"{mutant}\n" for mutant in survivors), encoding="utf-8")
    print(f"{name}: {len(drawn) - len(survivors)} of {len(drawn)} killed", flush=True)
    return name, sum(map(len, found.values())), len(drawn), len(drawn) - len(survivors)


def _make_workspace(folder: Path, modules: list[str], tests: list[str]) -> None:
    """mutmut wants packages to lie beside each other, under the names by which they are imported."""
    # Python forgets a folder of its path that is not there when it starts.
    (folder / "mutants").mkdir(parents=True)
    packages = [*(ROOT / "services").glob("tunix_rt_*"), ROOT / "clients" / "tunix_rt"]
    for package in packages:
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (path for module in modules for path in folder.glob(module)):
        path.write_text(_register_below(path.read_text(encoding="utf-8")), encoding="utf-8")
    sources = sorted({module.split("/")[0] for module in modules})
    others = sorted(package.name for package in packages if package.name not in sources)
    selection = [UNIT + test for test in tests]
    (folder / "pyproject.toml").write_text(
        f"""[tool.pytest.ini_options]
pythonpath = ["tests"]
addopts = ["--import-mode=importlib", "-p", "no:cacheprovider"]
asyncio_mode = "auto"
timeout = 120

[tool.mutmut]
source_paths = {json.dumps(sources)}
only_mutate = {json.dumps(modules)}
also_copy = {json.dumps(others)}
pytest_add_cli_args = ["-x"]
process_isolation = "forkserver"
pytest_add_cli_args_test_selection = {json.dumps(selection)}
""",
        encoding="utf-8",
    )


def _register_below(source: str) -> str:
    """Graders registered below their functions instead of by a decorator: mutmut passes over those that have
    one."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        match node:
            case ast.FunctionDef(decorator_list=[ast.Call(func=ast.Name("grader")) as decorator]):
                registered = f"{node.name} = {ast.unparse(decorator)}({node.name})"
                lines.insert(node.end_lineno or 0, f"\n\n{registered}")
                del lines[decorator.lineno - 1 : node.lineno - 1]
    return "\n".join(lines) + "\n"


def _mutmut(folder: Path, options: argparse.Namespace, *mutants: str) -> None:
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(options.children), *mutants]
    # The children that tests start must see the mutants too.
    environment = {**os.environ, "PYTHONPATH": str(folder / "mutants")}
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        subprocess.run(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )


def _exit_codes(folder: Path) -> dict[str, dict[str, int | None]]:
    metas = sorted((folder / "mutants").rglob("*.meta"))
    return {str(meta): json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"] for meta in metas}


if __name__ == "__main__":
    main()
