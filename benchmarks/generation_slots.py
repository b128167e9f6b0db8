"""The evaluator's own engine: ``python -m benchmarks.generation_slots TASK``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flax import nnx

from benchmarks.generation_peer import PAD, Task, answer, told
from tunix_rt_evaluator.evaluations.model import Decoding
from tunix_rt_evaluator.worker.compiled import CompiledFunctions
from tunix_rt_evaluator.worker.engine import Prompt, Request
from tunix_rt_evaluator.worker.local import BaseWeights, Generator
from tunix_rt_kit.models.hf_folder import read_config
from tunix_rt_kit.models.pretrained import make_mesh


def generator(task: Task) -> Generator:
    """The engine, compiled."""
    mesh, folder = make_mesh(), Path(task.base_model)
    graph, state = nnx.split(BaseWeights(folder, mesh).model(None, task.dtype))
    return Generator(
        state,
        CompiledFunctions(graph, task.dtype, mesh),
        Decoding(max_new_tokens=task.max_new_tokens, batch_size=task.rows),
        stop_ids=[task.stop] if task.stop >= 0 else [],
        pad_id=PAD,
        context_length=read_config(folder).context_length,
        longest=task.longest,
    )


def main(task: Task) -> None:
    made: list[Generator] = []

    def generate(prompts: Sequence[list[int]]) -> list[list[int]]:
        # The first call compiles, as it does with the peers.
        found = made[0] if made else generator(task)
        made[:] = [found]
        requests = [Request(Prompt(str(at), "", tuple(ids), str(at))) for at, ids in enumerate(prompts)]
        outputs = {output.request.prompt.item_id: output.ids for output in found.run(requests, lambda: None)}
        return [list(outputs[str(at)]) for at in range(len(prompts))]

    answer(task, generate)


if __name__ == "__main__":
    main(told())
