"""What a child told, folded into facts."""

from __future__ import annotations

from typing import Any

from tunix_rt_evaluator.evaluations.jobs import EvaluationFacts


def item(name: str) -> dict[str, Any]:
    generation = {
        "item_id": name,
        "prompt_tokens": 1,
        "prompt_token_digest": "d",
        "output": "o",
        "output_tokens": 1,
        "finish_reason": "stop",
    }
    return {"kind": "item", "time": 0.0, "generation": generation}


def event(kind: str, time: float, **fields: Any) -> dict[str, Any]:
    return {"kind": kind, "time": time, **fields}


def test_items_of_every_attempt_count_and_the_rest_only_of_this_one() -> None:
    facts = EvaluationFacts(2)
    facts.take(
        [
            event("attempt", 0.0, number=1),
            event("stage", 1.0, stage="generating"),
            item("a"),
            event("error", 2.0, code="INTERNAL", reason="WORKER_FAILED", message="m", metadata={}),
            event("exit", 3.0, code=1),
            event("attempt", 10.0, number=2),
            event("stage", 11.0, stage="loading the model"),
            event("stage", 13.5, stage="generating", completed=1, total=2, unit="items"),
        ]
    )
    assert facts.error is None
    assert facts.exit_code is None
    assert [entry.item_id for entry in facts.new_generations] == ["a"]
    facts.new_generations.clear()
    facts.take(
        [
            item("b"),
            event("progress", 14.0, stage="generating", completed=2, total=2, unit="items", eta_s=0.0),
            event("exit", 15.5, code=0),
        ]
    )
    assert [entry.item_id for entry in facts.new_generations] == ["b"]
    assert facts.exit_code == 0
    assert facts.progress is not None
    assert (facts.progress.completed, facts.progress.eta_s) == (2, 0.0)
    assert [(timing.stage, timing.duration_s) for timing in facts.stage_timings] == [
        ("loading the model", 2.5),
        ("generating", 2.0),
    ]


def test_items_before_a_change_of_engine_count_no_more() -> None:
    facts = EvaluationFacts(3)
    facts.take([event("attempt", 0.0, number=1), item("a"), item("b"), event("attempt", 1.0, number=2)])
    described = {
        "base_weights_digest": "w",
        "tokenizer_digest": "t",
        "chat_template": None,
        "chat_template_digest": "",
        "engine": "e",
        "package_versions": {},
        "runtime_settings": {},
        "device": "cpu",
        "code_revision": "r",
    }
    facts.take([event("facts", 2.0, facts=described, changed=["engine: d before, e now"]), item("b")])
    assert [entry.item_id for entry in facts.new_generations] == ["b"]
    assert facts.changed == ["engine: d before, e now"]
    assert facts.facts is None
    facts.take([event("attempt", 3.0, number=3), event("facts", 4.0, facts=described, changed=[]), item("c")])
    assert [entry.item_id for entry in facts.new_generations] == ["b", "c"]
    assert facts.facts is not None
