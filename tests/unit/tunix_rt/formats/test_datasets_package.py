"""Data sets that the `datasets` package loads: folders without a network, and what is kept of the hub's."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunix_rt.errors import FormatError
from tunix_rt.formats.benchmark_files import BenchmarkItems, Wanted, read_benchmark
from tunix_rt.formats.benchmarks import BENCHMARKS

ROWS = [{"question": f"{n} + {n}?", "answer": f"#### {n + n}"} for n in (1, 2, 3)]
CARD = """---
license: mit
configs:
- config_name: main
  data_files: [{split: test, path: main/test-*}]
- config_name: socratic
  data_files: [{split: test, path: socratic/test-*}]
---
"""


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clone of a data set on the hub."""
    for name, rows in (("main", ROWS), ("socratic", ROWS[:1])):
        (tmp_path / "gsm8k" / name).mkdir(parents=True)
        path = tmp_path / "gsm8k" / name / "test-00000-of-00001.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    (tmp_path / "gsm8k" / "README.md").write_text(CARD)
    return tmp_path / "gsm8k"


def read(dataset: Path | str, **wanted: Any) -> BenchmarkItems:
    return read_benchmark(BENCHMARKS["gsm8k"], Wanted(**wanted), dataset=str(dataset))


def answers(found: BenchmarkItems) -> list[str]:
    return [item.accepted_answers[0] for item in found.eval_set.items]


def test_a_folder_as_the_hub_has_it(folder: Path) -> None:
    found = read(folder)
    origin = found.eval_set.origin
    assert answers(found) == ["2", "4", "6"]
    assert (origin.config, origin.split, origin.revision, origin.license) == ("main", "test", "", "mit")
    content = (folder / "main" / "test-00000-of-00001.parquet").read_bytes()
    assert [file.digest for file in origin.files] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    assert answers(read(folder, config="socratic")) == ["2"]
    with pytest.raises(FormatError, match="has the configurations main, socratic; give one: --config"):
        read(folder, config="other")
    with pytest.raises(FormatError, match="has no split train; it has test: --split"):
        read(folder, split="train")


def test_a_folder_of_files_without_a_card(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = read(tmp_path / "own")
    assert (answers(found), found.eval_set.origin.config) == (["2", "4", "6"], "")
    with pytest.raises(FormatError, match="cannot be loaded by `datasets`"):
        read(tmp_path / "nowhere")


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "saved")
    found = read(tmp_path / "saved")
    assert (answers(found), len(found.eval_set.origin.files)) == (["2", "4", "6"], 1)
    with pytest.raises(FormatError, match="has no split train; it has test"):
        read(tmp_path / "saved", split="train")


def test_of_the_hub_the_revision_and_the_files_digests_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    at = "hf://datasets/someone/sums@0123abcd"

    def builder(name: str, config: str, revision: str | None) -> Any:
        asked.append((name, config, revision))
        return SimpleNamespace(
            config=SimpleNamespace(data_files={"test": [f"{at}/main/test-00000-of-00001.parquet"]}),
            dl_manager=SimpleNamespace(download=lambda url: str(folder / url.removeprefix(f"{at}/"))),
            download_and_prepare=lambda: None,
            as_dataset=lambda **_: ROWS,
        )

    module = SimpleNamespace(
        get_dataset_config_names=lambda *_, **__: ["main", "other"],
        load_dataset_builder=builder,
        is_progress_bar_enabled=lambda: False,
        disable_progress_bars=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "datasets", module)  # type: ignore[arg-type]
    origin = read("someone/sums", revision="main").eval_set.origin
    assert asked == [("someone/sums", "main", "main")]
    assert (origin.hub_id, origin.revision, origin.license) == ("someone/sums", "0123abcd", "mit")
    content = (folder / "main" / "test-00000-of-00001.parquet").read_bytes()
    assert [file.digest for file in origin.files] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]


def test_without_the_package_or_the_network_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match=r"openai/gsm8k: cannot be loaded .* where there is a network"):
        read("openai/gsm8k")
    monkeypatch.setitem(sys.modules, "datasets", None)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=r"is not installed: pip install 'tunix-rt\[datasets\]'"):
        read("openai/gsm8k")
