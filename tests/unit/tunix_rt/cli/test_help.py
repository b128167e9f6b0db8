"""Every command says what it is for and shows an example, and the root answers without loading the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tunix_rt.cli.effects import EFFECTS
from tunix_rt.cli.main import app

ROOT: Any = typer.main.get_command(app)


def command_paths() -> Iterator[list[str]]:
    for name in ROOT.list_commands(None):
        command = ROOT.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from ([name, sub] for sub in command.list_commands(None))
        else:
            yield [name]


PATHS = list(command_paths())


def test_every_command_of_the_loop_is_there() -> None:
    found = {" ".join(path) for path in PATHS}
    assert found >= {
        "models pull", "models list", "models verify",
        "traces generate", "traces import", "traces list", "traces show",
        "dataset build", "dataset list", "dataset show", "dataset export",
        "train start", "train watch", "train list", "train show", "train cancel",
        "evalset import", "evalset generate", "evalset list", "evalset show",
        "evaluate", "evaluation list", "evaluation show", "evaluation items", "evaluation regrade", "compare",
        "loop run", "up", "demo", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_has_a_purpose_an_example_and_the_shared_options(path: list[str]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.output.splitlines() if line.strip()]
    assert lines[0].startswith("Usage:")
    assert lines[1].endswith("."), lines[1]
    assert any(line in ("Example:", "Examples:") for line in lines)
    assert any(
        line.startswith(f"tunix-rt {' '.join(path)}") or f"| tunix-rt {' '.join(path)}" in line
        for line in lines
    )
    for option in ("--server", "--data-dir", "--json", "--verbose"):
        assert option in result.output
    # A flag takes no value.
    assert "<bool>" not in result.output


def test_purposes_of_the_root_are_those_of_the_commands() -> None:
    for name in ROOT.list_commands(None):
        command = ROOT.get_command(None, name)
        if hasattr(command, "list_commands"):
            assert command.help == ROOT.commands[name].help


@pytest.mark.parametrize("given", ["--help", "--version", "complete"])
def test_the_root_answers_without_grpc_and_messages(given: str) -> None:
    program = (
        "import os, sys\n"
        "from tunix_rt.cli.main import app\n"
        f"given = ['{given}']\n"
        "if given == ['complete']:\n"
        "    given = []\n"
        "    os.environ['_TUNIX_RT_COMPLETE'] = 'complete_bash'\n"
        "    os.environ |= {'COMP_WORDS': 'tunix-rt tr', 'COMP_CWORD': '1'}\n"
        "try:\n    app(given, prog_name='tunix-rt')\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'grpc', 'google.protobuf', 'pydantic', 'yaml', 'tunix_rt.v1'} & set(sys.modules)\n"
        # typer checks what is typed with it.
        "heavy -= {'pydantic'} if not given else set()\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    if given == "complete":
        assert {"traces", "train"} <= set(done.stdout.split())


def test_the_next_word_is_completed_without_what_the_commands_load() -> None:
    words = {"_TUNIX_RT_COMPLETE": "complete_bash", "COMP_WORDS": "tunix-rt train ", "COMP_CWORD": "2"}
    program = (
        "import sys\n"
        "from tunix_rt.cli.main import app\n"
        "try:\n    app([], prog_name='tunix-rt')\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'grpc', 'tunix_rt.v1', 'tunix_rt.cli.training'} & set(sys.modules)))\n"
    )
    environment = os.environ | words
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    *told, heavy = done.stdout.splitlines()
    assert (set(told), heavy) == ({path[1] for path in PATHS if path[0] == "train"}, "[]")


@pytest.mark.parametrize("group", ["traces", "dataset", "train", "evaluation"])
def test_a_list_loads_no_module_that_only_others_of_its_group_need(group: str) -> None:
    program = (
        "import sys\n"
        "from tunix_rt.cli.main import app\n"
        f"try:\n    app(['{group}', 'list', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "names = ['cli.traces_import', 'formats', 'generate', 'loop']\n"
        "heavy = {f'tunix_rt.{name}' for name in names} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_every_command_says_what_it_does_to_the_data_folder_and_its_jobs() -> None:
    assert set(EFFECTS) == {" ".join(path) for path in PATHS}


def test_misspelt_command_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["doctr"])
    assert result.exit_code == 2
    assert "'doctor'" in result.output


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("tunix-rt ")
