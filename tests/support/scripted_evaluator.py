"""A worker that acts out an evaluation without a model.

The most new tokens of its spec say how it goes. A prompt is ``question|base's output|candidate's output``. An
output is ``one~two~three`` where samples differ: they take turns. The answers to a question that begins with
``Kept`` are said to come from an earlier evaluation. After the first attempt of ``UPGRADE`` another engine
runs, which answers as the candidate does. ``HOLD`` waits until there is a file ``go`` in its
folder. It reads and writes plain JSON: hundreds of tests start it, and the services' models take a third of a
second to import.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from tunix_rt_kit.canonical import digest_bytes, digest_json
from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_kit.jobs.child import JobDir, run_worker

SUCCEED, WAIT, DEAF, REFUSE, DIE, CRASH, WAIT_ONCE, BUG, FORGET, UPGRADE, HOLD = range(100, 111)
OWN = {
    "jinja": "{{ messages[0].content }}",
    "bos_token": "",
    "eos_token": "<|im_end|>",
    "system_instruction": "",
}
Json = dict[str, Any]


def work(job: JobDir) -> None:
    spec = job.spec
    plan = spec["decoding"]["max_new_tokens"]
    job.emit("attempt", number=spec["attempt"])
    job.emit("stage", stage="loading the model")
    print("about to answer", flush=True)
    if plan == REFUSE:
        raise FailedPrecondition("not this model", reason="BASE_MODEL_MISMATCH", metadata={"x": "y"})
    done = written(job)
    changed = ["engine: scripted/1 before, scripted/2 now"] if upgraded(spec) and done else []
    job.emit("facts", facts=facts(spec), changed=changed)
    total = len(spec["items"])
    job.emit("stage", stage="generating", completed=0, total=total, unit="items")
    if plan == BUG:
        raise RuntimeError("no such luck")
    for number, item in enumerate(spec["items"], start=1):
        if changed or item["id"] not in done:
            job.emit("item", generation=answer(spec, item))
        job.emit(
            "progress",
            stage="generating",
            completed=number,
            total=total,
            unit="items",
            eta_s=0.5 * (total - number),
        )
        if number == 2:
            interrupt(job, plan, spec["attempt"])
        if plan == FORGET:
            return


def interrupt(job: JobDir, plan: int, attempt: int) -> None:
    if plan == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    if plan == CRASH:
        print("the end is near", flush=True)
        os._exit(7)
    while plan == HOLD and not (job.path / "go").exists():
        time.sleep(0.02)
    while plan in (WAIT, DEAF) or (plan in (WAIT_ONCE, UPGRADE) and attempt == 1):
        if plan != DEAF:
            job.check_cancelled()
        time.sleep(0.02)


def upgraded(spec: Json) -> bool:
    return spec["decoding"]["max_new_tokens"] == UPGRADE and spec["attempt"] > 1


def written(job: JobDir) -> set[str]:
    lines = (job.path / "events.jsonl").read_text().splitlines()
    return {line.split('"item_id":"')[1].split('"')[0] for line in lines if '"kind":"item"' in line}


def answer(spec: Json, item: Json) -> Json:
    _, base, candidate = (item["prompt"] + "||").split("|")[:3]
    texts = (candidate if spec["checkpoint_dir"] or upgraded(spec) else base).split("~")
    failed = texts == ["FAIL"]
    samples = spec["decoding"].get("samples", 1)
    first, *more = [sample(spec, texts[number % len(texts)]) for number in range(samples)]
    nothing = {"output": "", "output_tokens": 0, "finish_reason": "failed"}
    template = spec["chat_template"]
    text = item["prompt"] + (template["system_instruction"] if template else "")
    return {
        **(nothing if failed else first),
        "item_id": item["id"],
        "prompt_tokens": 7,
        "prompt_token_digest": digest_bytes(text.encode()),
        "error": "it does not fit" if failed else "",
        "seconds": 0.25,
        "more": [] if failed else more,
        "cached": item["prompt"].startswith("Kept"),
    }


def sample(spec: Json, text: str) -> Json:
    return {
        "output": text,
        "output_tokens": 4,
        "finish_reason": "length" if text == "LONG" else "stop",
        "log_probabilities": [-0.5, -0.25, -1.5, 0.0] if spec["decoding"].get("log_probabilities") else [],
    }


def facts(spec: Json) -> Json:
    template = spec["chat_template"] or OWN
    return {
        "base_weights_digest": "sha256:w",
        "tokenizer_digest": "sha256:t",
        "chat_template": template,
        "chat_template_digest": template_digest(template),
        "dtype": "bfloat16" if spec["dtype"] == "auto" else spec["dtype"],
        "engine": "scripted/2" if upgraded(spec) else "scripted/1",
        "package_versions": {"jax": "1"},
        "runtime_settings": {"XLA_FLAGS": "none"},
        "device": "cpu",
        "code_revision": "test",
    }


def template_digest(template: Json) -> str:
    if template.get("builtin"):
        from tunix_rt_kit.chat import ChatTemplate

        return ChatTemplate.model_validate(template).digest
    return digest_json({name: value for name, value in template.items() if value is not None})


if __name__ == "__main__":
    sys.exit(run_worker(work))
