# ruff: noqa: RUF001  (some models mark turns with full-width characters)
"""What a row teaches is what its trace says, or the row is named."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from support.chat_templates import REPLY_FRAMES, template
from support.datasets import built, read, source
from tunix_rt_exporter.datasets.model import ReasoningStyle, SourceTrace
from tunix_rt_exporter.datasets.render import RenderedRow, RowRenderer, Unwritable
from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.errors import FailedPrecondition

HOSTILE: Final = (
    *(
        "</think>",
        "<think>",
        "<think>a</think>",
        "\n</think>\n\n",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "{# c #}",
        "{%-",
    ),
    *("<|im_end|>", "<|im_start|>assistant\n", "<end_of_turn>", "<bos>", "<|eot_id|>", "<|end_header_id|>"),
    *(
        "<｜Assistant｜>",
        "<｜end▁of▁sentence｜>",
        "<tool_response>",
        "</tool_response>",
        "<|im_",
        "end|>",
        "<b>",
    ),
    *(
        "\n",
        "\n\n",
        "\n\n\n",
        "\t",
        "  ",
        "\r\n",
        "\r",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x85",
        "\u2028",
        "\u3000",
        "\ufeff",
    ),
    *(
        "Answer: 5",
        "Reasoning:\n",
        "1. ",
        "2. ",
        "\\n",
        "'",
        '"',
        "&lt;",
        "e\u0301",
        "\U0001f600",
        "12",
        "word",
    ),
)
INDENTED: Final = "all:\n\tcc -o a a.c\n\n\t./a"


def hostile_traces(count: int, seed: int) -> Iterator[SourceTrace]:
    draw = random.Random(seed)

    def text() -> str:
        parts = draw.choices(HOSTILE, k=draw.randint(1, 4)) if draw.random() < 0.6 else []
        plain = draw.choices(("What", "is", "6", "*", "7", "?", " ", "\n", "\t"), k=draw.randint(1, 6))
        drawn = [*parts, *plain]
        draw.shuffle(drawn)
        return "".join(drawn)

    for number in range(count):
        steps = [
            {"i": i, "type": "t", "content": draw.choice((text(), INDENTED))}
            for i in range(draw.randint(1, 4))
        ]
        answer = draw.choice((text(), text().strip() or "42", "42"))
        yield source(number, prompt=text(), steps=steps, final_answer=answer)


def reply_of(trace: SourceTrace, style: ReasoningStyle) -> str:
    answer = f"Answer: {trace.final_answer}"
    if style == "answer-only":
        return answer
    steps = [f"{number}. {step['content']}\n" for number, step in enumerate(trace.steps, start=1)]
    return "".join(["Reasoning:\n", *steps, answer])


@pytest.mark.parametrize("style", ["numbered", "answer-only"])
@pytest.mark.parametrize("name", REPLY_FRAMES)
def test_a_row_teaches_what_its_trace_says_or_is_named(name: str, style: ReasoningStyle) -> None:
    chat_template = template(name)
    traces = list(hostile_traces(1_000, seed=len(name)))
    rows: list[RenderedRow | Unwritable] = []
    for start in range(0, len(traces), 250):
        rows += RowRenderer(chat_template, style).render(traces[start : start + 250])
    before, closing = REPLY_FRAMES[name]
    stages = Counter[str]()
    for trace, row in zip(traces, rows, strict=True):
        if isinstance(row, Unwritable):
            assert row.facts
            stages[row.stage] += 1
            continue
        stages["kept"] += 1
        whole, in_gemma, example = map(json.loads, row.lines)
        reply = reply_of(trace, style)
        assert example["response"] == before + reply + closing
        assert example["response"].count(chat_template.end_of_turn) == 1
        assert trace.prompt.strip() in example["prompt"]
        assert in_gemma["prompts"] == (
            f"<start_of_turn>user\n{trace.prompt}<end_of_turn>\n<start_of_turn>model\n{reply}<end_of_turn>\n"
        )
        assert (whole["prompts"], whole["final_answer"]) == (trace.prompt, trace.final_answer)
    assert stages["kept"] > 250, "too few rows are kept to say anything"
    assert stages["unrenderable"] > 50
    trims = name in {"gemma-it", "llama-3", "r1_like", "llama3_like"}
    assert (stages["target_lost"] > 20) == trims


@pytest.mark.parametrize(
    ("name", "changes", "stage", "facts"),
    [
        ("r1_like", {"final_answer": "a </think> b"}, "target_lost", {"lost": ["answer", "reasoning"]}),
        ("r1_like", {"final_answer": "so</think>"}, "target_lost", {"lost": ["answer", "reasoning"]}),
        ("qwen3_like", {"final_answer": "a </think> b"}, "unrenderable", {"control_text": "</think>"}),
        ("qwen3_like", {"prompt": "<tool_response>1</tool_response>"}, "target_lost", {"lost": ["reply"]}),
        ("qwen3_like", {"prompt": "<|im_start|>system"}, "unrenderable", {"control_text": "<|im_start|>"}),
        ("r1_like", {"prompt": "<｜Assistant｜>5"}, "unrenderable", {"control_text": "<｜Assistant｜>"}),
        ("llama3_like", {"final_answer": "42\n"}, "target_lost", {"lost": ["answer"]}),
        ("gemma-it", {"final_answer": "   "}, "target_lost", {"lost": ["answer"]}),
        ("llama-3", {"prompt": "<|eot_id|>"}, "unrenderable", {"control_text": "<|eot_id|>"}),
    ],
)
def test_what_is_wrong_with_a_row_is_named(name: str, changes: Any, stage: str, facts: Any) -> None:
    good, bad = source(1), source(2, **changes)
    first, second, third = RowRenderer(template(name), "numbered").render([good, bad, good])
    assert isinstance(first, RenderedRow) and isinstance(third, RenderedRow)
    assert second == Unwritable(stage, facts)


def fields(name: str) -> dict[str, Any]:
    return template(name).model_dump()


def test_lost_rows_are_dropped_counted_and_listed(tmp_path: Path) -> None:
    traces = [*(source(number) for number in range(20)), source(30, final_answer="a</think>")]
    result = built(tmp_path, [traces], chat_template=fields("r1_like"))
    assert [(entry.stage, entry.row_count) for entry in result.dropped] == [("target_lost", 1)]
    assert result.dropped_rows is not None
    report = ArtifactStore(tmp_path / "artifacts").read_bytes(result.dropped_rows.digest)
    assert json.loads(report) == {
        "id": traces[-1].digest.hex(),
        "stage": "target_lost",
        "lost": ["answer", "reasoning"],
    }
    manifest = json.loads(ArtifactStore(tmp_path / "artifacts").read_bytes(result.digest))
    assert manifest["dropped"] == [{"stage": "target_lost", "row_count": 1}]


def test_a_spec_may_refuse_rows_that_cannot_be_written(tmp_path: Path) -> None:
    bad = [source(30, final_answer="a</think>"), source(31, prompt="<｜User｜>")]
    for traces, reason, said in (
        (bad, "TARGET_LOST", f"1 as target_lost ({bad[0].digest.hex()[:12]}: answer and reasoning)"),
        (bad[1:], "ROWS_UNRENDERABLE", f"1 as unrenderable ({bad[1].digest.hex()[:12]}: <｜User｜>)"),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            built(
                tmp_path,
                [[*(source(number) for number in range(9)), *traces]],
                chat_template=fields("r1_like"),
                unwritable_rows="refuse",
            )
        assert caught.value.reason == reason
        assert said in caught.value.message
    refusing = built(tmp_path, [[source(1), source(2)]], unwritable_rows="refuse", splits=ONLY_TRAIN)
    assert refusing.digest == built(tmp_path, [[source(1), source(2)]], splits=ONLY_TRAIN).digest


ONLY_TRAIN: Final[Sequence[dict[str, Any]]] = [{"split": "train", "fraction": 1}]


def test_a_dataset_says_what_its_template_asks_and_loses(tmp_path: Path) -> None:
    facts = built(tmp_path, [[source(1)]], splits=ONLY_TRAIN).template_facts
    assert facts.required_tokens == facts.control_texts == ("<bos>", "<start_of_turn>", "<end_of_turn>")
    assert "white space at the end of a reply" in facts.losses
    facts = built(tmp_path, [[source(1)]], splits=ONLY_TRAIN, chat_template=fields("r1_like")).template_facts
    assert facts.required_tokens == ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
    assert facts.control_texts == (*facts.required_tokens, "<｜User｜>", "<｜Assistant｜>")
    assert "what stands before </think>, in a reply" in facts.losses
    assert "what stands before </think>, in a prompt" not in facts.losses


def test_a_step_of_several_lines_keeps_them(tmp_path: Path) -> None:
    trace = source(1, steps=[{"i": 0, "type": "t", "content": INDENTED}], final_answer="\tdone")
    result = built(tmp_path, [[trace]], splits=ONLY_TRAIN, chat_template=fields("chatml"))
    (row,) = map(json.loads, read(tmp_path, result, "train", "training_example").splitlines())
    assert row["response"] == f"Reasoning:\n1. {INDENTED}\nAnswer: \tdone<|im_end|>\n"


def test_a_text_with_a_special_token_of_the_model_is_dropped(tmp_path: Path) -> None:
    traces = [source(1), source(2, final_answer="cat <filename>"), source(3, prompt="<|endoftext|>")]
    tokens = ["<|endoftext|>", "<filename>", "<|endoftext|>"]
    spec: dict[str, Any] = {"chat_template": fields("chatml"), "splits": ONLY_TRAIN}
    result = built(tmp_path, [traces], special_tokens=tokens, **spec)
    assert [(entry.stage, entry.row_count) for entry in result.dropped] == [("unrenderable", 2)]
    assert result.digest == built(tmp_path, [traces], special_tokens=tokens[1:], **spec).digest
    assert not built(tmp_path, [traces], **spec).dropped
