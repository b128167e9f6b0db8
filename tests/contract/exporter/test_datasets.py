# ruff: noqa: ARG002  (gRPC hands every method a request)
"""What a dataset holds, and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from support.exporting import ALL_TRAIN, Exporting, exporting, failure, real_store, rows, split
from support.serving import fields, refused, served
from support.traces import step, trace
from tunix_rt import v1
from tunix_rt_exporter.wiring import ExporterSettings, build
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.serving.server import BuiltService, ServiceRegistration

STATE = v1.Dataset.State
EXAMPLE = v1.DATASET_FORMAT_TRAINING_EXAMPLE


async def test_a_dataset_from_traces_to_bytes(world: Exporting) -> None:
    await world.add([trace(i) for i in range(60)])
    queued = await world.create()
    assert queued.name == "datasets/d@1"
    assert queued.spec.as_of == 60
    assert [(s.split, s.fraction) for s in queued.spec.splits] == [
        ("train", 0.8),
        ("validation", 0.1),
        ("test", 0.1),
    ]
    assert queued.spec.chat_template.builtin == "gemma-it"
    assert queued.spec.chat_template.digest == ChatTemplate.built_in("gemma-it").digest
    assert queued.spec.reasoning_style == v1.REASONING_STYLE_NUMBERED
    dataset = await world.ended(queued.name)
    assert dataset.state == STATE.STATE_SUCCEEDED
    assert (dataset.trace_count, list(dataset.dropped)) == (60, [])
    assert [s.split for s in dataset.splits] == ["train", "validation", "test"]
    assert sum(s.row_count for s in dataset.splits) == 60
    assert dataset.splits[0].row_count > 30
    assert dataset.create_time.ToNanoseconds() <= dataset.start_time.ToNanoseconds()
    assert dataset.start_time.ToNanoseconds() <= dataset.end_time.ToNanoseconds()
    for part in dataset.splits:
        assert [file.format for file in part.files] == [1, 2, 3]
        for file in part.files:
            data = await world.read(dataset.name, part.split, file.format)
            assert len(data) == file.file.size_bytes
            assert file.file.digest == "sha256:" + hashlib.sha256(data).hexdigest()
            found = rows(data)
            assert len(found) == part.row_count
            assert data == b"".join(canonical_json(row) + b"\n" for row in found)
    assert dataset == await world.exporter.GetDataset(v1.GetDatasetRequest(name=dataset.name))


async def test_the_digest_is_that_of_the_manifest(world: Exporting) -> None:
    await world.add([trace(i) for i in range(5)])
    dataset = await world.build(splits=ALL_TRAIN)
    assert dataset.digest == dataset.manifest.digest
    data = ArtifactStore(world.settings.artifacts).read_bytes(dataset.digest)
    manifest = json.loads(data)
    assert data == canonical_json(manifest)
    assert manifest["chat_template_digest"] == dataset.spec.chat_template.digest
    assert manifest["splits"][0]["files"]["trace"]["digest"] == dataset.splits[0].files[0].file.digest
    assert manifest["distinct_traces"] == 5


async def test_what_is_asked_is_what_is_trained_on(world: Exporting) -> None:
    await world.add([trace(3)])
    template = v1.ChatTemplate(builtin="chatml", system_instruction="Think.")
    dataset = await world.build(splits=ALL_TRAIN, chat_template=template)
    (row,) = rows(await world.read(dataset.name, kind=EXAMPLE))
    asked = ChatTemplate.built_in("chatml", system_instruction="Think.")
    assert row["prompt"] == asked.render([Message(role="user", content="What is 3 + 1?")], True)
    assert row["response"] == "Reasoning:\n1. We have 3.\n2. 3 + 1 = 4\nAnswer: 4<|im_end|>\n"
    assert row["metadata"]["source_trace_id"] == row["id"]
    statistics = dataset.statistics
    assert statistics.steps.mean == 2
    assert statistics.prompt_characters.maximum == len(row["prompt"])
    assert statistics.response_characters.median == len(row["response"])


async def test_answer_only(world: Exporting) -> None:
    await world.add([trace(3)])
    dataset = await world.build(splits=ALL_TRAIN, reasoning_style=v1.REASONING_STYLE_ANSWER_ONLY)
    (row,) = rows(await world.read(dataset.name, kind=EXAMPLE))
    assert row["response"] == "Answer: 4<end_of_turn>\n"


async def test_a_models_own_template(world: Exporting) -> None:
    await world.add([trace(i) for i in range(3)])
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    dataset = await world.build(
        splits=ALL_TRAIN, chat_template=v1.ChatTemplate(jinja=source, eos_token="</s>")
    )
    assert dataset.state == STATE.STATE_SUCCEEDED
    for row in rows(await world.read(dataset.name, kind=EXAMPLE)):
        assert row["prompt"].endswith("</s>[assistant]")
        assert row["response"].endswith("</s>")


async def test_the_filter_is_the_trace_stores(world: Exporting) -> None:
    wanted = [trace(i, source="wanted", metadata={"n": i}) for i in range(4)]
    await world.add([*wanted, trace(9, source="other", metadata={"n": 1})])
    equals = v1.MetadataCondition(key="n", equals=Value(number_value=1))
    chosen = v1.TraceFilter(sources=["wanted"], metadata=[equals])
    dataset = await world.build(filter=chosen, splits=ALL_TRAIN)
    assert dataset.trace_count == 1
    assert dataset.spec.filter == chosen


async def test_duplicates_are_dropped(world: Exporting) -> None:
    await world.add([trace(i % 3) for i in range(9)])
    dataset = await world.build(splits=ALL_TRAIN)
    assert [(d.stage, d.row_count) for d in dataset.dropped] == [("duplicate", 6)]
    assert dataset.splits[0].row_count == 3


async def test_selection(world: Exporting) -> None:
    await world.add([trace(i) for i in range(10)])
    await world.add([trace(0)])
    newest = await world.build("newest", selection=v1.Selection(latest=3), splits=ALL_TRAIN)
    prompts = {row["prompts"] for row in rows(await world.read(newest.name))}
    assert prompts == {f"What is {i} + 1?" for i in (8, 9, 0)}
    assert ("selection", 7) in [(d.stage, d.row_count) for d in newest.dropped]
    some = [
        rows(
            await world.read(
                (
                    await world.build(
                        f"r{seed}", seed=seed, selection=v1.Selection(random=4), splits=ALL_TRAIN
                    )
                ).name
            )
        )
        for seed in range(4)
    ]
    assert {len(found) for found in some} == {4}
    assert len({tuple(row["id"] for row in found) for found in some}) == 4
    more = await world.build("more", selection=v1.Selection(random=400), splits=ALL_TRAIN)
    assert more.splits[0].row_count == 10


async def test_decontamination(world: Exporting) -> None:
    world.eval_sets.known["evalSets/a"] = ["  what IS 1 +\n1?", "unrelated"]
    world.eval_sets.known["evalSets/b"] = ["What is 2 + 1?", "What is 3 + 1?"]
    await world.add([trace(i) for i in range(6)])
    dataset = await world.build(splits=ALL_TRAIN, eval_sets=["evalSets/a", "evalSets/b"])
    left = {row["prompts"] for row in rows(await world.read(dataset.name))}
    assert left == {f"What is {i} + 1?" for i in (0, 4, 5)}
    dropped = {(d.stage, d.reason): d.row_count for d in dataset.dropped}
    assert dropped == {
        ("contaminated", "gives away an item of evalSets/a"): 1,
        ("contaminated", "gives away an item of evalSets/b"): 2,
    }
    plain = await world.build("plain", splits=ALL_TRAIN)
    assert plain.digest != dataset.digest


async def test_a_trace_that_the_template_cannot_take_is_dropped(world: Exporting) -> None:
    await world.add([trace(0), trace(1, final_answer="<end_of_turn>"), trace(2)])
    dataset = await world.build(splits=ALL_TRAIN)
    assert [(d.stage, d.row_count) for d in dataset.dropped] == [("unrenderable", 1)]
    assert dataset.splits[0].row_count == 2


async def test_new_traces_move_no_old_row(world: Exporting) -> None:
    await world.add([trace(i) for i in range(40)])
    before = await world.build("d", version="1")
    await world.add([trace(i) for i in range(40, 120)])
    after = await world.build("d", version="2")

    async def placed(dataset: v1.Dataset) -> dict[str, str]:
        return {
            row["id"]: part.split
            for part in dataset.splits
            for row in rows(await world.read(dataset.name, part.split))
        }

    old, new = await placed(before), await placed(after)
    assert len(new) == 120
    assert old.items() <= new.items()


async def test_one_prompt_is_never_in_two_splits(world: Exporting) -> None:
    await world.add(
        [trace(i, prompt=f"  Prompt {i % 10} " if i % 2 else f"prompt  {i % 10}") for i in range(50)]
    )
    dataset = await world.build(splits=[split("train", 0.5), split("test", 0.5)])
    places: dict[str, set[str]] = {}
    for part in dataset.splits:
        for row in rows(await world.read(dataset.name, part.split)):
            places.setdefault(" ".join(row["prompts"].lower().split()), set()).add(part.split)
    assert len(places) == 10
    assert all(len(found) == 1 for found in places.values())


async def test_the_same_spec_gives_the_stored_dataset(world: Exporting) -> None:
    await world.add([trace(i) for i in range(5)])
    first = await world.build(splits=ALL_TRAIN)
    assert await world.build(splits=ALL_TRAIN) == first
    await world.add([trace(9, source="unrelated")])
    source = v1.TraceFilter(sources=["tests"])
    filtered = await world.build("f", filter=source, splits=ALL_TRAIN)
    await world.add([trace(10, source="unrelated")])
    assert await world.build("f", filter=source, splits=ALL_TRAIN) == filtered


class ScoredStore(v1.TraceStoreServicer):
    """One trace that always matches; ``newest`` is the number of the newest commit."""

    newest = 1

    async def StreamTraces(self, request: v1.StreamTracesRequest, context: Any) -> AsyncIterator[Any]:
        yield v1.StreamTracesResponse(header=v1.StreamTracesHeader(as_of=request.as_of or self.newest))
        message = trace(1, sequence=1, content_digest=f"sha256:{1:064x}")
        yield v1.StreamTracesResponse(batch=v1.TraceBatch(traces=[message]))

    async def ListTraces(self, request: v1.ListTracesRequest, context: Any) -> v1.ListTracesResponse:
        return v1.ListTracesResponse(traces=[trace(1, sequence=1)])

    def built(self) -> BuiltService:
        def add(server: grpc.aio.Server) -> None:
            v1.add_TraceStoreServicer_to_server(self, server)

        return BuiltService(ServiceRegistration("tunix_rt.v1.TraceStore", add), lambda: None, lambda: None)


async def test_a_score_of_later_may_change_what_a_filter_takes(tmp_path: Path) -> None:
    store = ScoredStore()
    good = v1.TraceFilter(scores=[v1.ScoreCondition(criterion="judge", minimum=1)])
    async with exporting(tmp_path, "", store.built()) as world:
        every = await world.build("every", splits=ALL_TRAIN)
        first = await world.build(filter=good, splits=ALL_TRAIN)
        assert await world.build(filter=good, splits=ALL_TRAIN) == first
        store.newest = 2
        assert fields(await refused(world.create(filter=good, splits=ALL_TRAIN))) == ["spec.as_of"]
        assert await world.build("every", splits=ALL_TRAIN) == every


async def test_a_bound_version_is_refused_to_others(world: Exporting) -> None:
    results = await world.add([trace(i) for i in range(5)])
    await world.build(splits=ALL_TRAIN)
    for change, field in (
        ({"splits": ALL_TRAIN, "seed": 1}, "seed"),
        ({"splits": [split("train", 0.5), split("x", 0.5)]}, "splits"),
        ({"splits": ALL_TRAIN, "as_of": 4}, "as_of"),
        ({"splits": ALL_TRAIN, "chat_template": v1.ChatTemplate(builtin="chatml")}, "chat_template"),
    ):
        error = await refused(world.create(**change))
        assert (error.code, error.reason) == ("ALREADY_EXISTS", "DATASET_VERSION_BOUND")
        assert fields(error) == [f"spec.{field}"]
    await world.store.DeleteTrace(v1.DeleteTraceRequest(name=results[0].name))
    assert fields(await refused(world.create(splits=ALL_TRAIN))) == ["spec.as_of"]
    await world.add([trace(7)])
    assert fields(await refused(world.create(splits=ALL_TRAIN))) == ["spec.as_of"]


async def test_request_ids(world: Exporting) -> None:
    await world.add([trace(i) for i in range(5)])
    first = await world.build(splits=ALL_TRAIN, request_id="r")
    await world.add([trace(9)])
    assert await world.build(splits=ALL_TRAIN, request_id="r") == first
    error = await refused(world.create("other", splits=ALL_TRAIN, request_id="r"))
    assert (error.code, error.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_a_failed_dataset_can_be_built_again(world: Exporting) -> None:
    await world.add([trace(0, source="x")])
    empty = await world.build(filter=v1.TraceFilter(sources=["y"]))
    assert empty.state == STATE.STATE_FAILED
    reason, message = failure(empty)
    assert reason == "DATASET_EMPTY"
    assert "matches the filter" in message
    assert not empty.digest
    await world.add([trace(1, source="x")])
    again = await world.build(filter=v1.TraceFilter(sources=["x"]), splits=ALL_TRAIN)
    assert (again.state, again.HasField("error")) == (STATE.STATE_SUCCEEDED, False)
    assert (again.spec.as_of, again.trace_count) == (2, 2)


async def test_nothing_left_and_an_empty_train_split_fail(world: Exporting) -> None:
    world.eval_sets.known["evalSets/a"] = ["What is 0 + 1?"]
    await world.add([trace(0)])
    leaked = await world.build("leaked", eval_sets=["evalSets/a"])
    assert failure(leaked) == (
        "DATASET_EMPTY",
        "the dataset would be empty: every matching trace was dropped: 1 as contaminated (gives away an "
        "item of evalSets/a)",
    )
    small = await world.build("small", splits=[split("train", 1e-9), split("rest", 1 - 1e-9)])
    assert failure(small)[0] == "DATASET_EMPTY"
    assert "'train'" in failure(small)[1]


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "id empty": ({"dataset_id": ""}, "SPEC_INVALID", "spec.dataset_id"),
    "id upper case": ({"dataset_id": "Mine"}, "SPEC_INVALID", "spec.dataset_id"),
    "id 65": ({"dataset_id": "d" * 65}, "SPEC_INVALID", "spec.dataset_id"),
    "version 33": ({"version": "1" * 33}, "SPEC_INVALID", "spec.version"),
    "version with @": ({"version": "1@2"}, "SPEC_INVALID", "spec.version"),
    "as_of negative": ({"as_of": -1}, "SPEC_INVALID", "spec.as_of"),
    "as_of in the future": ({"as_of": 9}, "AS_OF_INVALID", "spec.as_of"),
    "as_of huge": ({"as_of": 1 << 62}, "SPEC_INVALID", "spec.as_of"),
    "latest 0": ({"selection": v1.Selection(latest=0)}, "SPEC_INVALID", "spec.selection.latest"),
    "random -1": ({"selection": v1.Selection(random=-1)}, "SPEC_INVALID", "spec.selection.random"),
    "all false": ({"selection": v1.Selection(all=False)}, "SPEC_INVALID", "spec.selection.all"),
    "fractions below 1": ({"splits": [split("train", 0.5)]}, "SPEC_INVALID", "spec.splits"),
    "fraction 0": ({"splits": [split("train", 0), split("b", 1)]}, "SPEC_INVALID", "spec.splits[0].fraction"),
    "fraction NaN": ({"splits": [split("train", float("nan"))]}, "SPEC_INVALID", "spec.splits[0].fraction"),
    "split named twice": (
        {"splits": [split("a", 0.5), split("a", 0.5)]},
        "SPEC_INVALID",
        "spec.splits[1].split",
    ),
    "split name": ({"splits": [split("../x", 1)]}, "SPEC_INVALID", "spec.splits[0].split"),
    "template unknown": (
        {"chat_template": v1.ChatTemplate(builtin="llama-9")},
        "CHAT_TEMPLATE_UNKNOWN",
        "spec.chat_template",
    ),
    "template that fails": (
        {"chat_template": v1.ChatTemplate(jinja="{{ messages[7].content.x() }}", eos_token="</s>")},
        "CHAT_TEMPLATE_INVALID",
        "spec.chat_template",
    ),
    "template without eos": (
        {"chat_template": v1.ChatTemplate(jinja="{{ messages }}")},
        "CHAT_TEMPLATE_INVALID",
        "spec.chat_template",
    ),
    "built-in with eos": (
        {"chat_template": v1.ChatTemplate(builtin="chatml", eos_token="</s>")},
        "CHAT_TEMPLATE_INVALID",
        "spec.chat_template",
    ),
    "style unknown": ({"reasoning_style": 7}, "SPEC_INVALID", "spec.reasoning_style"),
    "similarity without near": (
        {"deduplication": v1.Deduplication(threshold=0.8)},
        "SPEC_INVALID",
        "spec.deduplication.threshold",
    ),
    "similarity low": (
        {"deduplication": v1.Deduplication(method=v1.Deduplication.METHOD_NEAR, threshold=0.4)},
        "SPEC_INVALID",
        "spec.deduplication.threshold",
    ),
    "duplicates unknown": (
        {"deduplication": v1.Deduplication(method=9)},  # type: ignore[arg-type]
        "SPEC_INVALID",
        "spec.deduplication.method",
    ),
    "groups apart": (
        {"split_group": v1.SplitGroup(near_duplicate_threshold=1)},
        "SPEC_INVALID",
        "spec.split_group.near_duplicate_threshold",
    ),
    "group by nothing": (
        {"split_group": v1.SplitGroup(metadata_field="")},
        "SPEC_INVALID",
        "spec.split_group.metadata_field",
    ),
    "group by no prompt": (
        {"split_group": v1.SplitGroup(prompt=False)},
        "SPEC_INVALID",
        "spec.split_group.prompt",
    ),
    "few words": (
        {"decontamination": v1.Decontamination(ngram_words=7)},
        "SPEC_INVALID",
        "spec.decontamination.ngram_words",
    ),
    "many words": (
        {"decontamination": v1.Decontamination(ngram_words=65)},
        "SPEC_INVALID",
        "spec.decontamination.ngram_words",
    ),
    "parent name": ({"parent": "base@1"}, "SPEC_INVALID", "spec.parent"),
    "eval set name": ({"eval_sets": ["a"]}, "SPEC_INVALID", "spec.eval_sets[0]"),
    "eval set twice": ({"eval_sets": ["evalSets/a", "evalSets/a"]}, "SPEC_INVALID", "spec.eval_sets[1]"),
    "eval set unknown": ({"eval_sets": ["evalSets/nope"]}, "EVAL_SET_NOT_FOUND", "spec.eval_sets[0]"),
    "filter condition": (
        {"filter": v1.TraceFilter(metadata=[v1.MetadataCondition(key="k")])},
        "FILTER_INVALID",
        "spec.filter.metadata[0].condition",
    ),
    "filter NaN": (
        {
            "filter": v1.TraceFilter(
                metadata=[v1.MetadataCondition(key="k", equals=Value(number_value=float("nan")))]
            )
        },
        "FILTER_INVALID",
        "spec.filter",
    ),
    "filter time": (
        {"filter": v1.TraceFilter(created_from=Timestamp(seconds=1 << 60))},
        "FILTER_INVALID",
        "spec.filter",
    ),
}


async def test_bad_specs_are_refused_at_once(world: Exporting) -> None:
    await world.add([trace(0)])
    for case, (change, reason, field) in WRONG.items():
        error = await refused(world.create(**{"dataset_id": "d", **change}))
        code = "NOT_FOUND" if reason == "EVAL_SET_NOT_FOUND" else "INVALID_ARGUMENT"
        assert (error.code, error.reason, fields(error)) == (code, reason, [field]), case
    assert not (await world.exporter.ListDatasets(v1.ListDatasetsRequest())).datasets


async def test_bad_reads(world: Exporting) -> None:
    await world.add([trace(0)])
    name = (await world.build(splits=ALL_TRAIN)).name
    size = len(await world.read(name))
    for error, reason, field in (
        (await refused(world.read(name, "dev")), "SPLIT_UNKNOWN", "split"),
        (await refused(world.read(name, kind=9)), "FORMAT_UNKNOWN", "format"),
        (await refused(world.read(name, offset=-1)), "OFFSET_INVALID", "offset"),
        (await refused(world.read(name, offset=size + 1)), "OFFSET_INVALID", "offset"),
    ):
        assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", reason, [field])
    for call in (
        world.exporter.GetDataset(v1.GetDatasetRequest(name="datasets/x@1")),
        world.exporter.CancelDataset(v1.CancelDatasetRequest(name="datasets/x@1")),
        world.read("datasets/x@1"),
        world.ended("datasets/x@1"),
    ):
        error = await refused(call)
        assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")
    error = await refused(world.exporter.GetDataset(v1.GetDatasetRequest(name="datasets/x")))
    assert (error.code, fields(error)) == ("INVALID_ARGUMENT", ["name"])


async def test_reading_goes_on_from_an_offset(world: Exporting) -> None:
    big = [step(i, content="x" * 20_000) for i in range(40)]
    await world.add([trace(k, steps=big) for k in range(4)], batch=1)
    name = (await world.build(splits=ALL_TRAIN)).name
    whole = await world.read(name)
    assert len(whole) > 3 << 20
    for offset in (0, 1, 1 << 20, len(whole) - 1, len(whole)):
        assert await world.read(name, offset=offset) == whole[offset:]


async def test_a_damaged_or_missing_file_is_named(world: Exporting) -> None:
    await world.add([trace(0)])
    dataset = await world.build(splits=ALL_TRAIN)
    path = Path(dataset.splits[0].files[0].file.uri.removeprefix("file://"))
    path.write_bytes(path.read_bytes().replace(b"What", b"Thus"))
    error = await refused(world.read(dataset.name))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_CORRUPT")
    assert path.name in error.message
    path.unlink()
    error = await refused(world.read(dataset.name))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_MISSING")


async def test_pages(world: Exporting) -> None:
    await world.add([trace(0)])
    for i in range(5):
        await world.build(f"d{i}", splits=ALL_TRAIN)
    seen, token = [], ""
    while True:
        page = await world.exporter.ListDatasets(v1.ListDatasetsRequest(page_size=2, page_token=token))
        seen += [dataset.spec.dataset_id for dataset in page.datasets]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["d4", "d3", "d2", "d1", "d0"]
    for request, field in (
        (v1.ListDatasetsRequest(page_size=-1), "page_size"),
        (v1.ListDatasetsRequest(page_token="made-up"), "page_token"),
    ):
        assert fields(await refused(world.exporter.ListDatasets(request))) == [field]


async def test_databases_and_imports_leave_the_digest_unchanged(tmp_path: Path, postgres_url: str) -> None:
    traces = [trace(i, metadata={"ratio": i / 7, "n": i}) for i in range(50)]
    async with exporting(tmp_path / "a") as world:
        await world.add(traces)
        expected = await world.build()
        await world.add(traces[::-1], batch=7)
        again = await world.build(version="2")
    both = real_store(tmp_path / "b", postgres_url)
    async with exporting(tmp_path / "b", postgres_url, both) as world:
        await world.add(sorted(traces, key=lambda t: t.final_answer), batch=13)
        other = await world.build()
    assert {again.digest, other.digest} == {expected.digest}
    assert again.trace_count == 100


@pytest.mark.usefixtures("quick_retries")
async def test_a_trace_store_that_is_not_there(tmp_path: Path) -> None:
    settings = ExporterSettings(data_dir=tmp_path, trace_store_target="127.0.0.1:1")
    async with served(build(settings, asyncio.Event())) as channel:
        spec = v1.DatasetSpec(dataset_id="d")
        error = await refused(v1.ExporterStub(channel).CreateDataset(v1.CreateDatasetRequest(spec=spec)))
        assert (error.code, error.reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
        assert "trace store" in error.message


async def test_answers_of_models_are_left_out_unless_they_are_named(world: Exporting) -> None:
    await world.add([trace(number) for number in range(40)])
    await world.add([trace(50 + number, source="evaluation") for number in range(5)])
    dataset = await world.build("plain")
    assert dataset.spec.model_answers == v1.MODEL_ANSWERS_DROP
    assert [(drop.stage, drop.row_count) for drop in dataset.dropped] == [("model_answer", 5)]
    for dataset_id, spec, count in (
        ("named", {"filter": v1.TraceFilter(sources=["evaluation", "tests"])}, 45),
        ("kept", {"model_answers": v1.MODEL_ANSWERS_KEEP}, 45),
        ("dropped", {"filter": v1.TraceFilter(sources=["evaluation", "tests"])} | {"model_answers": 1}, 40),
    ):
        dataset = await world.build(dataset_id, **spec)
        assert sum(split.row_count for split in dataset.splits) == count
        kept = v1.MODEL_ANSWERS_KEEP if count == 45 else v1.MODEL_ANSWERS_DROP
        assert dataset.spec.model_answers == kept


async def test_prompts_of_eval_sets_that_nobody_named_are_noticed(world: Exporting) -> None:
    world.eval_sets.known |= {"evalSets/other": ["what is 3 + 1?"], "evalSets/named": ["What is 4 + 1?"]}
    await world.add(
        [trace(number, metadata={"reference_answer": str(number + (number > 1))}) for number in range(9)]
    )
    train = [v1.SplitFraction(split="train", fraction=1)]
    dataset = await world.build(eval_sets=["evalSets/named"], splits=train)
    told = [(notice.kind, notice.split, notice.reason, notice.rows.row_count) for notice in dataset.notices]
    assert told == [
        (
            v1.DatasetNotice.KIND_REFERENCE_ANSWER,
            "train",
            "the answer is not the metadata's reference_answer",
            2,
        ),
        (v1.DatasetNotice.KIND_EVAL_PROMPT, "train", "the prompt stands in evalSets/other", 1),
    ]
    assert len(dataset.notices[1].rows.example_row_ids) == 1


@pytest.mark.one_database
async def test_a_snapshot_that_was_never_set_is_explained(world: Exporting) -> None:
    results = await world.add([trace(i) for i in range(6)])
    wanted = v1.TraceFilter(sources=["tests"])
    await world.build(splits=ALL_TRAIN, filter=wanted)
    await world.build(splits=ALL_TRAIN, filter=wanted, version="2")
    await world.add([*(trace(i) for i in range(10, 29)), trace(40, source="other")])
    error = await refused(world.create(splits=ALL_TRAIN, filter=wanted))
    assert (error.reason, error.metadata["fields"]) == ("DATASET_VERSION_BOUND", "as_of")
    ways = "set version 3, or as_of 6"
    assert error.message == f"datasets/d@1 was built from snapshot 6, and 19 traces were added since: {ways}"
    assert [violation.field for violation in error.violations] == ["spec.as_of"]
    assert "19 traces were added since snapshot 6" in error.violations[0].description
    # Both ways out lead somewhere.
    assert (await world.create(splits=ALL_TRAIN, filter=wanted, as_of=6)).name == "datasets/d@1"
    assert (await world.build(splits=ALL_TRAIN, filter=wanted, version="3")).trace_count == 25
    # Of a difference that was asked for, too, the other is explained.
    error = await refused(world.create(splits=ALL_TRAIN, filter=wanted, seed=3))
    assert "as_of, seed differ" in error.message
    assert [ways.replace("3", "4") in entry.description for entry in error.violations] == [True, False]
    # What was asked for is not explained away.
    error = await refused(world.create(splits=ALL_TRAIN, filter=wanted, as_of=7))
    assert error.violations[0].description == "is 7, but 6 is stored"
    await world.build("e", splits=ALL_TRAIN, filter=wanted, version="first")
    await world.store.DeleteTrace(v1.DeleteTraceRequest(name=results[0].name))
    error = await refused(world.create("e", splits=ALL_TRAIN, filter=wanted, version="first"))
    assert "some of its traces were deleted or got other scores since: set another version" in error.message
