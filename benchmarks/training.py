"""LoRA training on a CPU, beside TRL's ``SFTTrainer`` and beside Tunix's ``PeftTrainer`` as it comes.

Each side is a process of its own, in turns. All train the same examples, rank 16 on all seven projections,
completions only, batches of 8 rows of 256 tokens, in the type that ``auto`` takes on this host. The steps
of one epoch count, after 2 to warm up. The peers run with the memory allocator as it comes (``trl``,
``tunix``), and TRL also with the allocator's settings that the trainer gives its processes
(``trl_same_malloc``). TRL trains padded rows and packed ones in the first turn; the faster goes on and
counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import data, training_job
from benchmarks.options import Options
from benchmarks.training_peer import Answer, Task, ask
from tunix_rt_kit.chat import ChatTemplate, trace_messages
from tunix_rt_kit.loss_mask import TextExample, TokenExample, encode
from tunix_rt_kit.models.runtime import fast_dtype
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.models.tokenizer import load_tokenizer
from tunix_rt_kit.packing import pack
from tunix_rt_trainer.worker.batches import BatchPlan

COUNT: Final = 256
COMPARED_STEPS: Final = 5
BASE_MODEL: Final = "smollm2-135m-instruct"
_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_TRL: Final = "benchmarks.training_trl"
_TUNIX: Final = "benchmarks.training_tunix"
# Adam moves a weight by about the learning rate: by this one none but zeros.
_NO_STEP: Final = 1e-30


def run(options: Options) -> dict[str, Any]:
    """Supervised tokens a second, peak RSS in MB, their ratios, and how far losses are from TRL's."""
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
        return Training(options, Path(folder)).figures()


class Training:
    """The benchmark in ``folder``.

    Raises ValueError if the data holds no example that fits.
    """

    def __init__(self, options: Options, folder: Path) -> None:
        self._folder = folder
        self._repeats = options.repeats
        base = options.base_model or ModelStore(folder / "models").ensure(BASE_MODEL).path
        self._texts, self._tokens = _examples(options, base)
        self._task = Task(
            base_model=str(base.absolute()),
            tokens=self._token_file("tokens.json", self._tokens),
            rows_per_batch=8,
            length=256,
            rank=16,
            alpha=32.0,
            target_modules=_TARGETS,
            learning_rate=1e-3,
            warmup=2,
            dtype=fast_dtype("cpu"),
            packing=True,
        )
        self._jobs: list[training_job.Job] = []

    def figures(self) -> dict[str, Any]:
        """All that ``run`` returns; whether reruns are bit-equal only where there was more than one."""
        padded = replace(self._task, packing=False)
        malloc = training_job.tunables()
        sides: dict[str, Callable[[], Answer]] = {
            "tunix_rt": self._ours,
            "trl": lambda: ask(_TRL, padded, ""),
            "trl_packed": lambda: ask(_TRL, self._task, ""),
            "trl_same_malloc": lambda: ask(_TRL, padded, malloc),
            "trl_packed_same_malloc": lambda: ask(_TRL, self._task, malloc),
            "tunix": lambda: ask(_TUNIX, padded, ""),
        }
        answers = {name: [_told(name, measure())] for name, measure in sides.items()}
        for slower in _slower(answers, ("trl", "trl_packed"), ("trl_same_malloc", "trl_packed_same_malloc")):
            del sides[slower]
        for _ in range(self._repeats - 1):
            for name, measure in sides.items():
                answers[name].append(_told(name, measure()))
        speed = {
            name: median(each.supervised_tokens_per_second for each in found)
            for name, found in answers.items()
        }
        memory = {name: median(each.peak_rss_mb for each in found) for name, found in answers.items()}
        ours = speed["tunix_rt"]
        figures = {
            "examples": len(self._texts),
            "dtype": self._task.dtype,
            "repeats": self._repeats,
            "supervised_tokens_per_second": {name: round(value, 1) for name, value in speed.items()},
            "median_step_seconds": {
                name: round(median(second for each in found for second in each.seconds), 2)
                for name, found in answers.items()
            },
            "peak_rss_mb": memory,
            "ratio_to_trl": round(ours / max(speed["trl"], speed["trl_packed"]), 2),
            "ratio_to_trl_same_malloc": round(
                ours / max(speed["trl_same_malloc"], speed["trl_packed_same_malloc"]), 2
            ),
            "ratio_to_tunix": round(ours / speed["tunix"], 2),
            "memory_over_tunix": round(memory["tunix_rt"] / memory["tunix"], 2),
            "time_outside_steps_over_steps": round(median(job.outside_steps for job in self._jobs), 4),
            "float32_loss_difference_to_trl": self.loss_difference(),
        }
        if len(self._jobs) > 1:
            figures["reruns_are_bit_equal"] = len({job.weights for job in self._jobs}) == 1
        return figures

    def _ours(self) -> Answer:
        rows = len(pack([len(row.ids) for row in self._tokens], self._task.length))
        epoch = -(-rows // self._task.rows_per_batch)
        job = self._job(f"job-{len(self._jobs)}", self._task, self._task.warmup + epoch)
        self._jobs.append(job)
        return job.answer

    def loss_difference(self) -> float:
        """Largest relative difference of the losses of the first steps, in float32 from the same adapter."""
        task = replace(self._task, packing=False, dtype="float32", warmup=0)
        fresh = self._job("fresh-adapter", replace(task, learning_rate=_NO_STEP), 1)
        ours = self._job("float32", task, COMPARED_STEPS).answer.losses
        same = replace(
            task,
            tokens=self._token_file("ordered.json", self._as_fed(task)),
            adapter=str(fresh.checkpoint),
            steps=COMPARED_STEPS,
        )
        theirs = ask(_TRL, same, training_job.tunables()).losses
        return max(abs(one / other - 1) for one, other in zip(ours, theirs, strict=True))

    def _job(self, name: str, task: Task, steps: int) -> training_job.Job:
        return training_job.train(self._folder / name, task, self._texts, steps, self._folder / "cache")

    def _as_fed(self, task: Task) -> list[TokenExample]:
        """The examples in the order in which a job is fed."""
        plan = BatchPlan(
            [row.id for row in self._tokens],
            [len(row.ids) for row in self._tokens],
            row_length=task.length,
            rows_per_batch=task.rows_per_batch,
            packing=task.packing,
            seed=training_job.SEED,
            dataset_digest=training_job.DATASET_DIGEST,
        )
        return [self._tokens[number] for step in range(COMPARED_STEPS) for (number,) in plan.batch(step)]

    def _token_file(self, name: str, examples: Sequence[TokenExample]) -> str:
        rows = [
            {
                "input_ids": row.ids,
                "completion_mask": [int(at >= row.learned[0][0]) for at in range(len(row.ids))],
            }
            for row in examples
        ]
        path = self._folder / name
        path.write_text(json.dumps(rows), encoding="utf-8")
        return str(path)


def _told(name: str, answer: Answer) -> Answer:
    """Show what was measured, as the whole takes hours."""
    speed, memory = answer.supervised_tokens_per_second, answer.peak_rss_mb
    print(f"training  {name}: {speed:.1f} supervised tokens/s, {memory:,.0f} MB", file=sys.stderr, flush=True)
    return answer


def _slower(answers: Mapping[str, Sequence[Answer]], *pairs: tuple[str, str]) -> list[str]:
    """Of each pair the side with the fewer tokens a second."""
    return [min(pair, key=lambda name: answers[name][0].supervised_tokens_per_second) for pair in pairs]


def _examples(options: Options, base: Path) -> tuple[list[TextExample], list[TokenExample]]:
    """The first examples of the data that fit into a row."""
    count = options.count or COUNT
    template = ChatTemplate.built_in("chatml")
    texts = [
        TextExample.answering(
            f"{number:064}",
            *template.split_example(
                trace_messages(trace.prompt, [step.content for step in trace.steps], trace.final_answer)
            ),
        )
        for number, trace in enumerate(data.traces(options, 2 * count))
    ]
    pairs = zip(texts, encode(texts, load_tokenizer(base)), strict=True)
    fitting = list(islice((pair for pair in pairs if len(pair[1].ids) <= 256), count))
    if not fitting:
        raise ValueError("the data holds no example of at most 256 tokens")
    return [text for text, _ in fitting], [tokens for _, tokens in fitting]
