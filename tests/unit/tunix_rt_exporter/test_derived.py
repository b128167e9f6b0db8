"""The formats that are made when somebody first asks for them."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from support.datasets import built, source
from tunix_rt_exporter.datasets import derived
from tunix_rt_exporter.datasets.derived import DatasetFiles
from tunix_rt_exporter.datasets.model import BuildResult, Dataset, DatasetFormat, DatasetSpec, SourceTrace
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.chat import BUILTIN_NAMES, ChatTemplate, Message
from tunix_rt_kit.errors import DataLoss
from tunix_rt_kit.values import JobState, StoredFile

TRACES = [
    source(0),
    source(
        1,
        prompt='  "Quote" \\ line\nbreak \U0001f600 é  ',
        steps=[{"i": 3, "type": "recall", "content": "one\ntwo"}, {"i": 1, "type": "t", "content": "1/3"}],
        metadata={"z": 1.5, "a": [None, True, {"k": "v"}], "\ufb33": 1e21},
    ),
]
DERIVED: Sequence[DatasetFormat] = ("chat", "training_example_parquet", "chat_parquet")


class Bound:
    """Remembers what belongs to which dataset."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], StoredFile] = {}

    def find(self, dataset_digest: str, path: str) -> StoredFile | None:
        return self.files.get((dataset_digest, path))

    def bind(self, dataset_digest: str, file: StoredFile) -> StoredFile:
        return self.files.setdefault((dataset_digest, file.path), file)


class Built:
    """A dataset of one split in a folder of its own."""

    def __init__(self, folder: Path, traces: Sequence[SourceTrace] = TRACES, **spec: Any) -> None:
        whole = {"splits": [{"split": "train", "fraction": 1}], **spec}
        folder.mkdir(parents=True, exist_ok=True)
        self.result: BuildResult = built(folder, [traces], **whole)
        self.store = ArtifactStore(folder / "artifacts")
        self.bound = Bound()
        self.dataset = Dataset(
            number=1,
            build_id="b",
            spec=DatasetSpec.model_validate({"dataset_id": "d", **whole}),
            state=JobState.SUCCEEDED,
            create_time=datetime.now(UTC),
            result=self.result,
        )

    def file(self, kind: DatasetFormat) -> StoredFile:
        files = DatasetFiles(self.store, self.bound)
        return files.get(self.dataset, self.result, self.result.splits[0], kind)

    def bytes(self, kind: DatasetFormat) -> bytes:
        return self.store.read_bytes(self.file(kind).digest)

    def table(self, kind: DatasetFormat) -> Any:
        return pq.read_table(io.BytesIO(self.bytes(kind)))

    def lines(self, kind: DatasetFormat) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.bytes(kind).splitlines()]


@pytest.mark.parametrize("template", ["gemma-it", "chatml"])
def test_chat_lines(tmp_path: Path, snapshot: SnapshotAssertion, template: str) -> None:
    fields = {"builtin": template, "system_instruction": "Think."}
    assert Built(tmp_path, chat_template=fields).bytes("chat").decode() == snapshot


@pytest.mark.parametrize("kind", ["training_example_parquet", "chat_parquet"])
def test_parquet_rows(tmp_path: Path, snapshot: SnapshotAssertion, kind: DatasetFormat) -> None:
    table = Built(tmp_path, chat_template={"builtin": "chatml"}).table(kind)
    assert {"schema": table.schema.to_string(), "rows": table.to_pylist()} == snapshot


@pytest.mark.parametrize("kind", ["training_example", "chat"])
def test_parquet_says_what_the_lines_say(tmp_path: Path, kind: DatasetFormat) -> None:
    dataset = Built(tmp_path, [source(number) for number in range(50)])
    rows = dataset.table(f"{kind}_parquet").to_pylist()  # type: ignore[arg-type]
    assert [{**row, "metadata": json.loads(row["metadata"])} for row in rows] == dataset.lines(kind)


# A row that holds a control text is dropped; hypothesis finds them in the source, and tries them.
CONTROL_TEXTS = {text for name in BUILTIN_NAMES for text in ChatTemplate.built_in(name).control_texts}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: not any(control in text for control in CONTROL_TEXTS)
)


@pytest.mark.parametrize("system", ["", "Think."])
@pytest.mark.parametrize("name", BUILTIN_NAMES)
@given(prompt=TEXT.filter(str.strip), steps=st.lists(TEXT, max_size=3), answer=TEXT)
@settings(max_examples=15, deadline=None)
def test_messages_under_the_plain_template_are_the_training_example(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    system: str,
    prompt: str,
    steps: list[str],
    answer: str,
) -> None:
    if name != "chatml":
        # They trim, and a row that is not written as it is is dropped.
        answer = answer.strip() or "42"
    trace = source(
        0,
        prompt=prompt,
        steps=[{"i": i, "type": "t", "content": text} for i, text in enumerate(steps)],
        final_answer=answer,
    )
    fields = {"builtin": name, "system_instruction": system}
    dataset = Built(tmp_path_factory.mktemp("d"), [trace], chat_template=fields)
    (row,), (example,) = dataset.lines("chat"), dataset.lines("training_example")
    messages = [Message.model_validate(message) for message in row["messages"]]
    plain = ChatTemplate.built_in(name)
    assert plain.render(messages) == example["prompt"] + example["response"]
    assert (row["id"], row["metadata"]) == (example["id"], example["metadata"])


@pytest.mark.parametrize("kind", DERIVED)
def test_the_same_dataset_gives_the_same_bytes_in_another_store(tmp_path: Path, kind: DatasetFormat) -> None:
    first, second = Built(tmp_path / "a"), Built(tmp_path / "b", TRACES[::-1])
    assert first.file(kind).digest == second.file(kind).digest
    assert first.file(kind).path.endswith(".parquet" if "parquet" in kind else ".jsonl")


def test_a_file_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Built(tmp_path)
    first = dataset.file("chat_parquet")
    monkeypatch.setattr(DatasetFiles, "_derive", lambda *_: 1 / 0)
    assert dataset.file("chat_parquet") == first


def test_those_who_ask_at_the_same_time_share_one_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Built(tmp_path)
    files = DatasetFiles(dataset.store, dataset.bound)
    made, derive = [], DatasetFiles._derive

    def counted(self: DatasetFiles, whole: Dataset, file: StoredFile, kind: DatasetFormat) -> Any:
        made.append(kind)
        time.sleep(0.1)
        return derive(self, whole, file, kind)

    monkeypatch.setattr(DatasetFiles, "_derive", counted)
    with ThreadPoolExecutor(6) as threads:
        kinds: list[DatasetFormat] = ["chat_parquet", "chat"] * 3
        split = dataset.result.splits[0]
        found = list(threads.map(lambda kind: files.get(dataset.dataset, dataset.result, split, kind), kinds))
    assert sorted(made) == ["chat", "chat_parquet"]
    assert len({file.digest for file in found}) == 2


def artifact(dataset: Built, file: StoredFile) -> Path:
    return Path(dataset.store.uri(file.digest).removeprefix("file://"))


def test_a_damaged_source_is_an_error_that_names_it(tmp_path: Path) -> None:
    dataset = Built(tmp_path)
    source_file = artifact(dataset, dataset.result.splits[0].files["trace"])
    source_file.write_bytes(source_file.read_bytes().replace(b"What", b"Whet"))
    with pytest.raises(DataLoss, match=str(source_file)) as caught:
        dataset.file("chat_parquet")
    assert caught.value.reason == "ARTIFACT_CORRUPT"
    source_file.unlink()
    with pytest.raises(DataLoss, match=str(source_file)) as caught:
        dataset.file("chat")
    assert caught.value.reason == "ARTIFACT_MISSING"
    assert not dataset.bound.files
    assert not list((tmp_path / "artifacts" / "tmp").iterdir())


def test_a_lost_derived_file_is_made_again_unless_it_would_differ(tmp_path: Path) -> None:
    dataset = Built(tmp_path)
    first = dataset.file("chat")
    artifact(dataset, first).unlink()
    assert dataset.file("chat") == first
    assert artifact(dataset, first).exists()
    bound = first.model_copy(update={"digest": "sha256:" + "0" * 64})
    dataset.bound.files[(dataset.result.digest, first.path)] = bound
    with pytest.raises(DataLoss, match=r"train/chat\.jsonl of datasets/d@1 was sha256:0000") as caught:
        dataset.file("chat")
    assert caught.value.reason == "DERIVED_FILE_CHANGED"


@pytest.mark.parametrize(("limit", "groups"), [("GROUP_ROWS", 4), ("GROUP_BYTES", 2)])
def test_row_groups_are_bounded(monkeypatch: pytest.MonkeyPatch, limit: str, groups: int) -> None:
    monkeypatch.setattr(derived, limit, {"GROUP_ROWS": 3, "GROUP_BYTES": 50}[limit])
    sink = io.BytesIO()
    rows = [{"id": str(n), "prompt": "12345", "response": "678", "metadata": {}} for n in range(10)]
    derived.write_parquet(sink, "training_example", iter(rows))
    assert pq.ParquetFile(io.BytesIO(sink.getvalue())).num_row_groups == groups


def test_an_empty_split_has_a_schema() -> None:
    sink = io.BytesIO()
    derived.write_parquet(sink, "chat", [])
    table = pq.read_table(io.BytesIO(sink.getvalue()))
    assert table.num_rows == 0
    assert table.schema.field("messages").type.value_type == pa.struct(
        [("role", pa.string()), ("content", pa.string())]
    )


def test_metadata_is_canonical_json(tmp_path: Path) -> None:
    table = Built(tmp_path).table("chat_parquet")
    texts = table.column("metadata").to_pylist()
    assert all(text.encode() == canonical_json(json.loads(text)) for text in texts)
