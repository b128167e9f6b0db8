"""Conversations go into `trl` as they are exported, and it learns from them what our trainer does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from benchmarks.training_trl import RecordingTrainer
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from trl import SFTConfig

from support.chat_templates import template
from support.conversations import ADD, adding, call, conversation, turn
from support.exporting import ALL_TRAIN, exporting
from support.job_folder import OPTIMIZER, JobFolder
from support.tiny_model import make_tiny_model
from tunix_rt import v1
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.loss_mask import TokenExample, encode, parse_example
from tunix_rt_kit.models.tokenizer import load_tokenizer, read_tokenizer
from tunix_rt_kit.values import ChatTemplateFields
from tunix_rt_trainer.jobs.model import SplitFile
from tunix_rt_trainer.worker.batches import BatchPlan

TEMPLATE = template("trainer_like")
STEPS, ROWS, LENGTH, SEED = 5, 4, 768, 11
CONVERT = {
    "type": "function",
    "function": {
        "name": "convert",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string"}, "to": {"enum": ["m", 1]}},
        },
    },
}


def converting(number: int) -> v1.Trace:
    """Two tools, two calls at once, nested arguments, and a turn that is not to be learned."""
    first = '{"unit": "km", "to": {"m": [1, "x", null]}, "exact": true}'
    return conversation(
        turn("user", f"How far is {number} km in m?"),
        turn("assistant", "No idea.", train=v1.Message.TRAIN_NO),
        turn("user", "Do\ntry. 東京"),
        turn(
            "assistant", tool_calls=[call("convert", first, "a"), call("add", f'{{"b":{number},"a":0}}', "b")]
        ),
        turn("tool", f"{number}000", tool_call_id="a", name="convert"),
        turn("tool", str(number), tool_call_id="b", name="add"),
        turn("assistant", f"{number}000 m.", reasoning="Plain." if number % 2 else ""),
        tools=[CONVERT, ADD],
        metadata={"number": number},
    )


@pytest.fixture(scope="module")
async def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of conversations with two sets of tools, and without any, as files by format."""
    folder = tmp_path_factory.mktemp("exports")
    found = {}
    async with exporting(folder) as world:
        await world.add([converting(number) for number in range(8)])
        await world.add([adding(f"What is {number} + 3?", f"It is {number + 3}.") for number in range(8)])
        await world.add(
            [conversation(turn("user", f"Hi {number}"), turn("assistant", "Hi.")) for number in range(4)]
        )
        source = v1.ChatTemplate(jinja=TEMPLATE.source, eos_token="<|im_end|>")
        built = await world.build(splits=ALL_TRAIN, chat_template=source)
        assert not built.dropped
        for name, suffix in (
            ("chat", "jsonl"),
            ("chat_parquet", "parquet"),
            ("conversation_example", "jsonl"),
        ):
            found[name] = folder / f"{name}.{suffix}"
            kind = v1.DatasetFormat.Value(f"DATASET_FORMAT_{name.upper()}")
            found[name].write_bytes(await world.read(built.name, kind=kind))
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def ours(exports: dict[str, Path], model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The examples as our trainer has them, and the losses of its steps, told by its worker."""
    lines = exports["conversation_example"].read_bytes()
    job = JobFolder(
        tmp_path_factory.mktemp("job"),
        model.parent,
        method="full",
        lora=None,
        max_steps=STEPS,
        rows_per_batch=ROWS,
        max_length=LENGTH,
        packing=False,
        seed=SEED,
        optimizer=OPTIMIZER.model_copy(update={"learning_rate": 1e-3, "max_grad_norm": 0.0}),
        validation=False,
        validation_interval_steps=0,
    )
    (job.path / "data" / "train.jsonl").write_bytes(lines)
    examples = [parse_example(line, "train", 1) for line in lines.splitlines()]
    fields = {
        "train": SplitFile(digest=digest_bytes(lines), row_count=len(examples)),
        "chat_template": ChatTemplateFields(jinja=TEMPLATE.source, eos_token="<|im_end|>"),
        "chat_template_digest": TEMPLATE.digest,
        "turn_markers": TEMPLATE.markers,
    }
    job.next_attempt(inputs=job.worker.inputs.model_copy(update=fields))
    job.train()
    losses = [event["loss"] for event in job.events("metrics")]
    return encode(examples, load_tokenizer(model)), losses


def in_order(tokens: list[TokenExample]) -> list[int]:
    """The numbers of the rows in the order in which our job is fed."""
    plan = BatchPlan(
        [row.id for row in tokens],
        [len(row.ids) for row in tokens],
        row_length=LENGTH,
        rows_per_batch=ROWS,
        packing=False,
        seed=SEED,
        dataset_digest="sha256:d",
    )
    return [number for step in range(STEPS) for (number,) in plan.batch(step)]


@pytest.mark.parametrize("name", ["chat", "chat_parquet"])
def test_five_steps_have_the_losses_of_trl(
    exports: dict[str, Path], model: Path, ours: Any, tmp_path: Path, name: str
) -> None:
    tokens, losses = ours
    order = in_order(tokens)
    kind = "parquet" if name.endswith("parquet") else "json"
    chat = datasets.load_dataset(kind, data_files=str(exports[name]), split="train", cache_dir=str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE.source
    trainer = RecordingTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(tmp_path / "trained"),
            assistant_only_loss=True,
            max_steps=STEPS,
            per_device_train_batch_size=ROWS,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=0.0,
            max_length=LENGTH,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=chat.select(order),
        processing_class=tokenizer,
        in_order=True,
    )
    for number, row in zip(order, trainer.train_dataset, strict=True):
        learned = [at for at, label in enumerate(row["labels"]) if label != -100]
        assert row["input_ids"] == list(tokens[number].ids)
        assert learned == [at for start, end in tokens[number].learned for at in range(start, end)]
    trainer.train()
    assert len(losses) == STEPS
    np.testing.assert_allclose(trainer.losses, losses, rtol=0, atol=1e-4)


def test_a_tokenizer_that_merges_pieces_gives_the_tokens_and_masks_of_transformers(
    exports: dict[str, Path], tmp_path: Path
) -> None:
    lines = exports["conversation_example"].read_bytes().splitlines()
    examples = [parse_example(line, "train", 1) for line in lines]
    texts = ["".join(segment.text for segment in example.segments) for example in examples]
    merging = Tokenizer(BPE())
    merging.pre_tokenizer = ByteLevel(add_prefix_space=False)
    merging.decoder = ByteLevelDecoder()
    controls = ["<|im_start|>", "<|im_end|>", "<pad>"]
    merging.train_from_iterator(
        texts, BpeTrainer(vocab_size=600, special_tokens=controls, initial_alphabet=ByteLevel.alphabet())
    )
    peer = PreTrainedTokenizerFast(tokenizer_object=merging, eos_token=controls[1], pad_token=controls[2])
    peer.chat_template = TEMPLATE.source
    peer.save_pretrained(tmp_path)
    ours = encode(examples, read_tokenizer(tmp_path))
    assert max(len(row.ids) / len(text.encode()) for row, text in zip(ours, texts, strict=True)) < 0.5
    chats = [json.loads(line) for line in exports["chat"].read_bytes().splitlines()]
    for row, chat in zip(ours, chats, strict=True):
        told = peer.apply_chat_template(
            chat["messages"],
            tools=chat.get("tools"),
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        learned = [at for start, end in row.learned for at in range(start, end)]
        assert told["input_ids"] == list(row.ids)
        assert [at for at, one in enumerate(told["assistant_masks"]) if one] == learned
