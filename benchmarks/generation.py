"""Greedy generation on a CPU, beside Tunix's ``Sampler`` and ``transformers.generate``.

Each side is a process of its own, in turns, 16 answers at a time; what compiles is a first batch of its own.
Three cases: 32 and 128 prompts with answers of 96 tokens each, and 64 prompts whose answers end where the
model ends them, after 256 tokens at the latest. In the first turn of the first case every side runs in both
types; the faster one goes on and counts.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import data
from benchmarks.generation_peer import Answer, Task, ask
from benchmarks.options import Options
from tunix_rt_kit.chat import ChatTemplate, Message
from tunix_rt_kit.models.runtime import child_environment
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer

BASE_MODEL: Final = "smollm2-135m-instruct"
ROWS: Final = 16
_SIDES: Final = {
    "tunix_rt": "benchmarks.generation_slots",
    "sampler": "benchmarks.generation_sampler",
    "transformers": "benchmarks.generation_transformers",
}
_DTYPES: Final = ("bfloat16", "float32")
_NEVER: Final = -1
_CASES: Final = {"32_prompts": (32, 96, False), "128_prompts": (128, 96, False), "mixed": (64, 256, True)}

Answers = dict[str, dict[str, list[Answer]]]
"""By side and type."""


def run(options: Options) -> dict[str, Any]:
    """Per case: tokens a second, seconds of the first batch, ratios; and how many texts are equal."""
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
        base = options.base_model or ModelStore(Path(folder) / "models").ensure(BASE_MODEL).path
        prompts, stop = _prompts(options, base)
        figures: dict[str, Any] = {"repeats": options.repeats}
        running = [(side, dtype) for side in _SIDES for dtype in _DTYPES]
        for case, (count, new, stops) in _CASES.items():
            task = Task(
                base_model=str(base.absolute()),
                prompts=prompts[: options.count or count],
                longest=max(map(len, prompts)),
                max_new_tokens=new,
                rows=ROWS,
                dtype="",
                stop=stop if stops else _NEVER,
            )
            answers: Answers = {}
            for _ in range(options.repeats):
                for side, dtype in running:
                    found = _told(case, f"{side}_{dtype}", _ask(task, side, dtype, Path(folder) / "cache"))
                    answers.setdefault(side, {}).setdefault(dtype, []).append(found)
                running = [(side, _faster(found)) for side, found in answers.items()]
            figures[case] = _figures(answers)
        return figures


def _ask(task: Task, side: str, dtype: str, cache: Path) -> Answer:
    variables = child_environment(cache) if side == "tunix_rt" else {}
    return ask(_SIDES[side], replace(task, dtype=dtype), variables)


def _told(case: str, name: str, answer: Answer) -> Answer:
    """Show what was measured, as the whole takes long."""
    print(
        f"generation  {case} {name}: {answer.tokens_per_second:.1f} tokens/s, first batch "
        f"{answer.first_batch_seconds:.1f} s, {answer.peak_rss_mb:,.0f} MB",
        file=sys.stderr,
        flush=True,
    )
    return answer


def _faster(answers: Mapping[str, Sequence[Answer]]) -> str:
    """The type of a side's faster answers."""
    return max(answers, key=lambda dtype: _speed(answers[dtype]))


def _speed(answers: Sequence[Answer]) -> float:
    return median(answer.tokens_per_second for answer in answers)


def _figures(answers: Answers) -> dict[str, Any]:
    best = {side: _speed(found[_faster(found)]) for side, found in answers.items()}
    runs = {f"{side}_{dtype}": runs for side, found in answers.items() for dtype, runs in found.items()}
    ours, theirs = answers["tunix_rt"], answers["transformers"]
    return {
        "tokens": sum(map(len, ours[_faster(ours)][0].tokens)),
        "tokens_per_second": {name: round(_speed(found), 1) for name, found in runs.items()},
        "first_batch_seconds": {
            name: round(median(answer.first_batch_seconds for answer in found), 1)
            for name, found in runs.items()
        },
        "peak_rss_mb": {name: median(answer.peak_rss_mb for answer in found) for name, found in runs.items()},
        "ratio_to_sampler": round(best["tunix_rt"] / best["sampler"], 2),
        "ratio_to_transformers": round(best["tunix_rt"] / best["transformers"], 2),
        "answers_as_by_transformers": {
            dtype: _equal(ours[dtype][0].tokens, theirs[dtype][0].tokens) for dtype in ours if dtype in theirs
        },
        "reruns_equal": all(answer.tokens == found[0].tokens for found in ours.values() for answer in found),
    }


def _equal(ours: list[list[int]], theirs: list[list[int]]) -> str:
    same = sum(one == other for one, other in zip(ours, theirs, strict=True))
    return f"{same} of {len(ours)}"


def _prompts(options: Options, base: Path) -> tuple[list[list[int]], int]:
    """Token ids of prompts, and the token that ends an answer."""
    template, tokenizer = ChatTemplate.built_in("chatml"), load_tokenizer(base)
    count = options.count or max(count for count, *_ in _CASES.values())
    texts = [
        template.render([Message(role="user", content=trace.prompt)], add_generation_prompt=True)
        for trace in data.traces(options, count)
    ]
    (stop,) = tokenizer.encode(template.end_of_turn)
    return [list(tokenizer.encode(text)) for text in texts], stop
