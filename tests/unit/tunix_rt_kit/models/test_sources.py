"""Base models from a hub and from GGUF files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from support.hub_server import COMMIT, hub_of
from support.tiny_gguf import write_gguf
from support.tiny_model import make_tiny_model
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from tunix_rt_kit.models.store import ModelStore

NAME = "hf://org/tiny.model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """The folder of the repository ``org/tiny.model``, and the files that are asked for."""
    folder = make_tiny_model(tmp_path / "repository", family="qwen3", shards=2)
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    with hub_of("org/tiny.model", folder, ("main", "v1")) as (address, asked):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield folder, asked


def test_a_repository_becomes_a_base_model(hub: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, asked = hub
    store = ModelStore(tmp_path / "models")
    with pytest.raises(NotFound, match=f"run there: tunix-rt models pull {NAME}"):
        store.resolve(NAME)
    steps: list[tuple[str, int, int]] = []
    info = store.ensure(NAME, lambda *step: steps.append(step))
    assert (info.id, info.family, info.pulled) == (NAME, "qwen3", True)
    assert info.path == tmp_path / "models" / "hf--org--tiny.model--main"
    assert store.resolve(NAME) == info
    assert asked[0] == "config.json"
    assert sorted(path.name for path in info.path.iterdir()) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "source.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for file in info.path.glob("*.safetensors"):
        assert file.read_bytes() == (folder / file.name).read_bytes()
    source = json.loads((info.path / "source.json").read_text())
    assert source == {"commit": COMMIT, "repository": "org/tiny.model", "revision": "main"}
    total = sum((folder / name).stat().st_size for name in asked)
    assert (steps[0], steps[-1]) == (("download", 0, total), ("download", total, total))
    before = len(asked)
    assert store.ensure(NAME) == info
    assert store.ensure(f"{NAME}@v1").path.name == "hf--org--tiny.model--v1"
    assert len(asked) == 2 * before


def test_a_model_that_cannot_be_run_is_refused_before_its_weights_are_fetched(
    hub: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, asked = hub
    config = json.loads((folder / "config.json").read_text()) | {"use_sliding_window": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FailedPrecondition, match=f"^{NAME}@main: config.json: use_sliding_window is True"):
        ModelStore(tmp_path / "models").ensure(NAME)
    assert asked == ["config.json"]
    assert not [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    "name", ["hf://org/other", f"{NAME}@v2", "hf://tiny", "hf://org/tiny/model", "hf://"]
)
def test_what_the_hub_does_not_have_is_unknown(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound) as caught:
        ModelStore(tmp_path / "models").ensure(name)
    assert caught.value.reason == "BASE_MODEL_UNKNOWN"
    assert name.split("@")[0] in str(caught.value)


def test_a_hub_that_is_not_reached_is_named(hub: tuple[Path, list[str]], tmp_path: Path) -> None:
    (hub[0] / "tokenizer.json").unlink()
    with pytest.raises(
        FailedPrecondition, match=rf"^{NAME}@main is not a complete .* it has no tokenizer\.json"
    ):
        ModelStore(tmp_path / "models").ensure(NAME)
    huggingface_hub.constants.ENDPOINT = "http://127.0.0.1:9"
    with pytest.raises(Unavailable, match=f"cannot download {NAME}@main: ") as caught:
        ModelStore(tmp_path / "models").ensure(NAME)
    assert caught.value.reason == "MODEL_DOWNLOAD_FAILED"


def test_a_gguf_file_becomes_a_base_model_and_other_content_another(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    path = write_gguf(make_tiny_model(tmp_path / "a", family="qwen2"), tmp_path / "x.gguf", pre="qwen2")
    with pytest.raises(NotFound, match="is not on this host yet"):
        store.resolve(str(path))
    stages: list[str] = []
    info = store.ensure(str(path), lambda stage, *_: stages.append(stage))
    assert (info.id, info.family, set(stages)) == (str(path), "qwen2", {"convert"})
    assert info.path.name.startswith("gguf--x--")
    assert store.ensure(str(path)) == info
    write_gguf(make_tiny_model(tmp_path / "b", family="qwen2", seed=1), path, pre="qwen2")
    other = store.ensure(str(path))
    assert other.weights_digest != info.weights_digest
    assert other.path != info.path


def test_a_gguf_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    with pytest.raises(NotFound, match="there is no such file"):
        store.resolve(str(tmp_path / "none.gguf"))
    for content in (b"", b"GGUF", b"no GGUF at all, whatever its name says"):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(InvalidArgument, match=r"x\.gguf is not a GGUF file"):
            store.ensure(str(tmp_path / "x.gguf"))
