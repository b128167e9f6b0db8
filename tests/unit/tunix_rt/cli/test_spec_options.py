"""Options that fill specs, and chat templates and names as they are typed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from tunix_rt import v1
from tunix_rt.cli.command import command, single
from tunix_rt.cli.lookup import checkpoint_name
from tunix_rt.cli.options import (
    Shown,
    SpecOptions,
    chat_template,
    dataset_name,
    resource_name,
    short_name,
    spec_options,
)
from tunix_rt.cli.session import Session, SharedOptions
from tunix_rt.cli.training_start import app as training
from tunix_rt.errors import NotFoundError, UnimplementedError
from tunix_rt.schema import Int32, Section, Seed


class Trainer:
    """Answers as the client's trainer does."""

    def get_base_model(self, base_model: str) -> v1.BaseModel:
        own = v1.ChatTemplate(jinja="{{ messages }}", eos_token="<|im_end|>", digest="sha256:00")
        known = {
            "ready": v1.BaseModel(base_model="ready", available=True, chat_template=own),
            "/models/mine": v1.BaseModel(base_model="/models/mine", available=True, chat_template=own),
            "bare": v1.BaseModel(base_model="bare", available=True),
            "absent": v1.BaseModel(base_model="absent"),
        }
        if base_model not in known:
            raise NotFoundError(
                f"base model {base_model!r} is unknown; known: {', '.join(known)}",
                reason="BASE_MODEL_UNKNOWN",
            )
        return known[base_model]

    def get_training_job(self, name: str) -> v1.TrainingJob:
        step = "trainingJobs/done/checkpoints/40" if name == "trainingJobs/done" else ""
        return v1.TrainingJob(name=name, checkpoint=step)

    def list_training_jobs(self, **_: Any) -> Any:
        # As a server of an earlier version, which looks for no names.
        raise UnimplementedError("no such call")


class Client:
    trainer = Trainer()


CLIENT: Any = Client()
SESSION = Session(SharedOptions(as_json=True))


class Part(Section):
    """What is part of a spec."""

    depth: Int32 | None = None
    """Layers of it, 1-9; left out: 3."""


class Settings(Section):
    """A spec that nobody wrote options for."""

    part: Part = Part()
    smoothing: float | None = None
    """How much, in [0, 1). Left out: `0.1`. It is slow."""
    mixed: bool | None = None
    kind: Literal["soft", "hard"] | None = None
    names: list[str] = Field([])
    seed: Seed = 0


@spec_options(Settings, {"kind": Shown("Which.", default="soft")})
class Wanted(SpecOptions):
    """Its options."""


def run_wanted(*arguments: str) -> Any:
    app = single()
    given: list[dict[str, Any]] = []

    @command(app, "probe", example="probe")
    def probe(_session: Session, wanted: Wanted) -> None:
        """Probe."""
        given.append(wanted.values())

    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    return given[0] if given else result.output


def test_a_field_of_the_contract_has_an_option_without_a_line_for_it() -> None:
    assert run_wanted() == {
        "part": {"depth": None},
        "smoothing": None,
        "mixed": None,
        "kind": "soft",
        "names": None,
        "seed": 0,
    }
    given = run_wanted(
        *("--depth", "2", "--smoothing", "0.5", "--no-mixed", "--kind", "hard"),
        *("--names", "a", "--names", "b", "--seed", "7"),
    )
    assert given == {
        "part": {"depth": 2},
        "smoothing": 0.5,
        "mixed": False,
        "kind": "hard",
        "names": ["a", "b"],
        "seed": 7,
    }
    shown = run_wanted("--help")
    assert "How much, in [0, 1). It is slow. [default: 0.1]" in shown
    assert "Layers of it, 1-9. [default: 3]" in shown


def leaves(message: Any) -> Iterator[str]:
    for field in message.fields:
        if field.message_type is None:
            yield field.name
        else:
            yield from leaves(field.message_type)


def test_every_field_of_a_training_spec_can_be_typed() -> None:
    options: Any = typer.main.get_command(training).commands["start"]
    assert set(leaves(v1.TrainingSpec.DESCRIPTOR)) <= {option.name for option in options.params}


def test_builtin_template_with_system_instruction() -> None:
    made = chat_template(CLIENT, "chatml", system_instruction="Think.")
    assert made == v1.ChatTemplate(builtin="chatml", system_instruction="Think.")


def test_template_of_a_model_is_its_own_without_the_digest() -> None:
    for name in ("ready", "/models/mine"):
        made = chat_template(CLIENT, f"model:{name}")
        assert made == v1.ChatTemplate(jinja="{{ messages }}", eos_token="<|im_end|>")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model:absent", "tunix-rt models pull absent"),
        ("model:bare", "bare has no chat template of its own"),
        ("model:other", "'other' is unknown; known: ready, "),
        ("alpaca", "gemma-it, chatml, llama-3, model:NAME or file:PATH"),
        ("model:", "is no chat template"),
        ("file:/no/such/file", "cannot be read"),
    ],
)
def test_bad_templates_are_named(given: str, message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message) as caught:
        chat_template(CLIENT, given)
    assert caught.value.param_hint == "--template"


def test_template_from_a_jinja_file(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ bos_token }}")
    made = chat_template(CLIENT, f"file:{tmp_path / 't.jinja'}", bos_token="<s>", eos_token="</s>")
    assert made == v1.ChatTemplate(jinja="{{ bos_token }}", bos_token="<s>", eos_token="</s>")


def test_template_from_a_tokenizer_configuration(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"chat_template": "x", "bos_token": {"content": "<s>"}, "eos_token": "</s>"}))
    assert chat_template(CLIENT, f"file:{path}") == v1.ChatTemplate(
        jinja="x", bos_token="<s>", eos_token="</s>"
    )
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"chat_template": named}).encode())
    assert chat_template(CLIENT, f"file:{path}").jinja == "yes"
    for wrong in ("{}", "[]", "[" * 100_000, '{"chat_template": 7}', '{"chat_template": "\\ud800"}'):
        path.write_text(wrong)
        with pytest.raises(typer.BadParameter, match="with a chat_template in it"):
            chat_template(CLIENT, f"file:{path}")


def test_template_from_what_is_no_file_of_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)
    for given, problem in {
        tmp_path / "pipe": "is a pipe",
        "/dev/zero": "is a pipe or a device",
        tmp_path: "is a folder",
        tmp_path / "latin": "is not UTF-8 at byte 4",
        tmp_path / "large": "is larger than",
    }.items():
        with pytest.raises(typer.BadParameter, match=problem):
            chat_template(CLIENT, f"file:{given}")


def test_names_are_completed() -> None:
    assert resource_name("traces", "abc") == "traces/abc"
    assert resource_name("traces", "traces/abc") == "traces/abc"
    # Whatever the version is: 1 comes with the look-up.
    assert dataset_name("math") == "datasets/math"
    assert resource_name("evaluations", "lr/3e-4") == "evaluations/lr/3e-4"
    assert dataset_name("datasets/math@2") == "datasets/math@2"
    assert short_name("trainingJobs/x/checkpoints/40") == "x/checkpoints/40"
    with pytest.raises(typer.BadParameter, match="traces/ID"):
        resource_name("traces", "datasets/abc")
    for given in ("", "evaluations/", "x/checkpoints/4", "baseModels/tiny"):
        with pytest.raises(typer.BadParameter, match="evaluations/ID"):
            resource_name("evaluations", given)


def test_a_job_stands_for_its_latest_checkpoint() -> None:
    assert checkpoint_name(SESSION, CLIENT, "done") == "trainingJobs/done/checkpoints/40"
    for given in ("trainingJobs/a/checkpoints/7", "a/checkpoints/7"):
        assert checkpoint_name(SESSION, CLIENT, given) == "trainingJobs/a/checkpoints/7"
    with pytest.raises(typer.BadParameter, match="trainingJobs/new has no checkpoint yet"):
        checkpoint_name(SESSION, CLIENT, "new")
