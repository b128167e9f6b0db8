"""``transformers.generate``: ``python -m benchmarks.generation_transformers TASK``."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from benchmarks.generation_peer import PAD, Task, answer, by_batches, told


def main(task: Task) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        task.base_model, dtype=getattr(torch, task.dtype), attn_implementation="sdpa"
    ).eval()
    model.generation_config.eos_token_id = task.stop if task.stop >= 0 else None

    def batch(prompts: list[list[int]]) -> list[list[int]]:
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), PAD)
        mask = torch.zeros((len(prompts), longest), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=task.max_new_tokens,
                do_sample=False,
                pad_token_id=PAD,
            )
        return [row.tolist() for row in found[:, longest:]]

    answer(task, by_batches(task, batch))


if __name__ == "__main__":
    main(told())
