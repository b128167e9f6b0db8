"""Audits of supervision over a real channel, on both databases."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.exporting import Exporting, exporting
from support.serving import fields, refused
from support.tiny_model import make_tiny_model
from support.traces import step, trace
from tunix_rt import v1
from tunix_rt_exporter.audits import service as audits_service
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.one_database

CHATML = v1.ChatTemplate(builtin="chatml")
SPLITS = [v1.SplitFraction(split="train", fraction=0.8), v1.SplitFraction(split="test", fraction=0.2)]


@dataclass
class World:
    """An exporter, and a tokenizer of bytes in its artifact store."""

    exporting: Exporting
    model: Path
    store: ArtifactStore
    tokenizer: v1.ArtifactFile

    async def build(self, **spec: Any) -> v1.Dataset:
        return await self.exporting.build(**{"splits": SPLITS, "chat_template": CHATML, **spec})

    async def parts(self, name: str, **asked: Any) -> list[v1.AuditSupervisionResponse]:
        values = {"base_model": "tiny", "tokenizer": self.tokenizer} | asked
        call = self.exporting.exporter.AuditSupervision(v1.AuditSupervisionRequest(name=name, **values))
        return [part async for part in call]

    async def audit(self, name: str, **asked: Any) -> v1.SupervisionAudit:
        parts = await self.parts(name, **asked)
        assert all(part.HasField("progress") for part in parts[:-1])
        return parts[-1].audit

    async def listed(self, parent: str, **page: Any) -> v1.ListSupervisionAuditsResponse:
        request = v1.ListSupervisionAuditsRequest(parent=parent, **page)
        found: v1.ListSupervisionAuditsResponse = await self.exporting.exporter.ListSupervisionAudits(request)
        return found


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    async with exporting(tmp_path, database_url) as opened:
        model = make_tiny_model(tmp_path / "models" / "tiny")
        store = ArtifactStore(opened.settings.artifacts)
        stored = store.put_file(model / "tokenizer.json")
        yield World(opened, model, store, v1.ArtifactFile(digest=stored.digest))


async def test_figures_equal_those_of_the_rows(world: World) -> None:
    await world.exporting.add([trace(i) for i in range(40)])
    await world.exporting.add([trace(99, steps=[step(1, content="long " * 100)])])
    dataset = await world.build()
    audit = await world.audit(dataset.name, max_length=128, packing_lengths=[512, 128, 512])
    tokenizer = load_tokenizer(world.model)
    assert [split.split for split in audit.splits] == ["train", "test"]
    long = []
    for split in audit.splits:
        data = await world.exporting.read(dataset.name, split.split, v1.DATASET_FORMAT_TRAINING_EXAMPLE)
        rows = [json.loads(line) for line in data.splitlines()]
        prompts = [len(tokenizer.encode(row["prompt"])) for row in rows]
        responses = [len(tokenizer.encode(row["response"])) for row in rows]
        assert split.row_count == len(rows)
        assert split.token_count == sum(prompts) + sum(responses)
        assert split.supervised_token_count == sum(responses)
        assert sum(entry.row_count for entry in split.supervised_tokens) == len(rows)
        assert [entry.max_length for entry in split.packing] == [128, 512]
        cut = [row["id"] for row, p, r in zip(rows, prompts, responses, strict=True) if p + r > 128]
        assert list(split.truncated.example_row_ids) == cut
        assert list(split.end_unsupervised.example_row_ids) == cut
        assert split.unsupervised.row_count == 0
        long += cut
    assert len(long) == 1
    assert audit.dataset_digest == dataset.digest
    assert (audit.base_model, audit.max_length) == ("tiny", 128)
    assert audit.chat_template_digest == dataset.spec.chat_template.digest
    assert audit.tokenizer_digest == world.tokenizer.digest


async def test_the_report_is_an_artifact_of_canonical_json(world: World) -> None:
    await world.exporting.add([trace(i) for i in range(5)])
    dataset = await world.build()
    audit = await world.audit(dataset.name)
    data = world.store.read_bytes(audit.report.digest)
    report = json.loads(data)
    assert canonical_json(report) == data
    assert len(data) == audit.report.size_bytes
    assert report["format"] == "tunix-rt/supervision-audit/3"
    assert (report["dataset_digest"], report["max_length"]) == (dataset.digest, 256)
    assert report["splits"][0]["token_count"] == audit.splits[0].token_count


async def test_the_same_question_is_answered_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.exporting.add([trace(i) for i in range(30)])
    name = (await world.build()).name
    tokenizers = []
    read = audits_service.stored_tokenizer

    def counted(store: ArtifactStore, digest: str) -> Any:
        tokenizers.append(digest)
        time.sleep(0.5)
        return read(store, digest)

    monkeypatch.setattr(audits_service, "stored_tokenizer", counted)
    # More than there are threads for calls.
    first, *others = await asyncio.gather(*(world.audit(name, max_length=64) for _ in range(20)))
    assert len(tokenizers) == 1
    assert others == [first] * 19
    assert (await world.listed(name)).supervision_audits == [first]
    monkeypatch.setattr(audits_service, "stored_tokenizer", lambda *_: 1 / 0)
    assert await world.parts(name, max_length=64, packing_lengths=[64]) == [
        v1.AuditSupervisionResponse(audit=first)
    ]
    request = v1.GetSupervisionAuditRequest(name=first.name)
    assert await world.exporting.exporter.GetSupervisionAudit(request) == first
    assert first.name.startswith(f"{name}/supervisionAudits/")


async def test_each_other_question_is_another_audit(world: World) -> None:
    await world.exporting.add([trace(i) for i in range(5)])
    name = (await world.build()).name
    asked: list[dict[str, Any]] = [
        {},
        {"max_length": 64},
        {"base_model": "other"},
        {"packing_lengths": [64]},
    ]
    made = [await world.audit(name, **question) for question in asked]
    assert len({audit.name for audit in made}) == len(asked)
    page = await world.listed(name, page_size=3)
    assert list(page.supervision_audits) == made[:0:-1]
    rest = await world.listed(name, page_size=3, page_token=page.next_page_token)
    assert (list(rest.supervision_audits), rest.next_page_token) == (made[:1], "")
    by_model = await world.listed(name, order_by="base_model, create_time desc")
    newest = made[::-1]
    assert list(by_model.supervision_audits) == sorted(newest, key=lambda audit: audit.base_model)
    others = await world.listed(name, filter=v1.SupervisionAuditFilter(base_models=["other"]))
    assert [audit.base_model for audit in others.supervision_audits] == ["other"]
    for wrong in ({"order_by": "x"}, {"order_by": "base_model", "page_token": page.next_page_token}):
        assert fields(await refused(world.listed(name, **wrong))) == list(wrong)[-1:]


async def test_progress_tells_stage_and_rows(world: World) -> None:
    await world.exporting.add([trace(i) for i in range(30)])
    parts = await world.parts((await world.build()).name)
    told = [part.progress for part in parts[:-1]]
    assert list(dict.fromkeys((step.stage, step.unit, step.total) for step in told)) == [
        ("counting tokens", "rows", 30),
        ("packing", "splits", 2),
    ]
    assert [step.completed for step in told if step.stage == "counting tokens"][-1] == 30


async def test_wrong_questions_name_their_fields(world: World) -> None:
    await world.exporting.add([trace(0), trace(1)])
    name = (await world.build(splits=[v1.SplitFraction(split="train", fraction=1.0)])).name
    wrong: list[tuple[dict[str, Any], list[str]]] = [
        ({"base_model": ""}, ["base_model"]),
        ({"max_length": -1}, ["max_length"]),
        ({"max_length": (1 << 20) + 1}, ["max_length"]),
        ({"packing_lengths": [8, 0]}, ["packing_lengths[1]"]),
        ({"packing_lengths": range(1, 18)}, ["packing_lengths"]),
        ({"tokenizer": None}, ["tokenizer.digest"]),
    ]
    for asked, named in wrong:
        error = await refused(world.parts(name, **asked))
        assert (error.code, error.reason, fields(error)) == ("INVALID_ARGUMENT", "AUDIT_INVALID", named)
    missing = v1.ArtifactFile(digest="sha256:" + "0" * 64)
    error = await refused(world.parts(name, tokenizer=missing))
    assert (error.code, error.reason, fields(error)) == (
        "NOT_FOUND",
        "TOKENIZER_NOT_FOUND",
        ["tokenizer.digest"],
    )
    other = v1.ArtifactFile(digest=world.store.put_bytes(b'{"version": "1.0"}').digest)
    error = await refused(world.parts(name, tokenizer=other))
    assert (error.code, error.reason, fields(error)) == (
        "INVALID_ARGUMENT",
        "TOKENIZER_INVALID",
        ["tokenizer.digest"],
    )
    error = await refused(world.parts("datasets/none@1"))
    assert (error.code, error.reason) == ("NOT_FOUND", "DATASET_NOT_FOUND")
    assert not (await world.listed(name)).supervision_audits
    for audit_name in (f"{name}/supervisionAudits/{'0' * 32}", "datasets/none@1/supervisionAudits/0"):
        request = v1.GetSupervisionAuditRequest(name=audit_name)
        assert (await refused(world.exporting.exporter.GetSupervisionAudit(request))).code == "NOT_FOUND"


async def test_a_template_whose_end_is_not_one_token_is_refused(world: World) -> None:
    await world.exporting.add([trace(i) for i in range(3)])
    name = (await world.build(chat_template=v1.ChatTemplate(builtin="llama-3"))).name
    error = await refused(world.parts(name))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "CHAT_TEMPLATE_MISMATCH")
    assert "'<|eot_id|>', which is not one token of tiny's tokenizer" in error.message


async def test_damaged_or_missing_rows_are_named_and_nothing_is_kept(world: World) -> None:
    await world.exporting.add([trace(i) for i in range(3)])
    dataset = await world.build()
    path = Path(dataset.splits[0].files[2].file.uri.removeprefix("file://"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Answer", b"Anzwer"))
    error = await refused(world.parts(dataset.name))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_CORRUPT")
    assert path.name in error.message
    path.unlink()
    error = await refused(world.parts(dataset.name))
    assert (error.code, error.reason) == ("DATA_LOSS", "ARTIFACT_MISSING")
    assert not (await world.listed(dataset.name)).supervision_audits
    path.write_bytes(whole)
    assert (await world.audit(dataset.name)).splits


async def test_a_dataset_that_is_not_complete_is_refused(world: World) -> None:
    await world.exporting.add([trace(0)])
    failed = await world.build(filter=v1.TraceFilter(sources=["nobody"]))
    assert failed.state == v1.Dataset.STATE_FAILED
    error = await refused(world.parts(failed.name))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "DATASET_NOT_READY")
