"""Chat templates and names as they are typed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer

from tunix_rt import v1
from tunix_rt.cli.options import chat_template, checkpoint_name, dataset_name, resource_name, short_name
from tunix_rt.errors import NotFoundError


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


class Client:
    trainer = Trainer()


CLIENT: Any = Client()


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
    assert dataset_name("math") == "datasets/math@1"
    assert dataset_name("datasets/math@2") == "datasets/math@2"
    assert short_name("trainingJobs/x/checkpoints/40") == "x/checkpoints/40"
    with pytest.raises(typer.BadParameter, match="traces/ID"):
        resource_name("traces", "datasets/abc")


def test_a_job_stands_for_its_latest_checkpoint() -> None:
    assert checkpoint_name(CLIENT, "done") == "trainingJobs/done/checkpoints/40"
    assert checkpoint_name(CLIENT, "trainingJobs/a/checkpoints/7") == "trainingJobs/a/checkpoints/7"
    with pytest.raises(typer.BadParameter, match="trainingJobs/new has no checkpoint yet"):
        checkpoint_name(CLIENT, "new")
