"""The exports go into `datasets` and `trl` as they are. Needs the extra `peers`: `make test-peers`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from support.exporting import exporting
from support.tiny_model import make_tiny_model
from support.traces import trace
from tunix_rt import v1

ROWS = 12
FORMATS = {
    "trace": v1.DATASET_FORMAT_TRACE,
    "tunix_sft": v1.DATASET_FORMAT_TUNIX_SFT,
    "training_example": v1.DATASET_FORMAT_TRAINING_EXAMPLE,
    "chat": v1.DATASET_FORMAT_CHAT,
    "training_example_parquet": v1.DATASET_FORMAT_TRAINING_EXAMPLE_PARQUET,
    "chat_parquet": v1.DATASET_FORMAT_CHAT_PARQUET,
}


@pytest.fixture
async def exports(tmp_path: Path) -> Mapping[str, Path]:
    """A dataset of ``ROWS`` rows in one split, as a file in each format."""
    found = {}
    async with exporting(tmp_path) as world:
        await world.add([trace(number) for number in range(ROWS)])
        built = await world.build(
            splits=[v1.SplitFraction(split="train", fraction=1.0)],
            chat_template=v1.ChatTemplate(builtin="chatml", system_instruction="Think."),
        )
        for name, kind in FORMATS.items():
            base = name.removesuffix("_parquet")
            found[name] = tmp_path / f"{base}.{'jsonl' if base == name else 'parquet'}"
            found[name].write_bytes(await world.read(built.name, kind=kind))
    return found


def loaded(path: Path) -> Any:
    """The rows of a file as a `datasets.Dataset`."""
    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(path.parent / "cache")
    )


@pytest.mark.parametrize("name", FORMATS)
def test_datasets_loads_it(exports: Mapping[str, Path], name: str) -> None:
    rows = loaded(exports[name])
    assert rows.num_rows == ROWS
    assert {"id", "metadata"} < set(rows.column_names)
    assert len(set(rows["id"])) == ROWS


def test_lines_and_parquet_load_as_the_same_texts(exports: Mapping[str, Path]) -> None:
    for kind, columns in (("chat", ["id", "messages"]), ("training_example", ["id", "prompt", "response"])):
        lines, table = loaded(exports[kind]), loaded(exports[f"{kind}_parquet"])
        assert lines.select_columns(columns).to_list() == table.select_columns(columns).to_list()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chat", {}),
        ("chat_parquet", {}),
        ("tunix_sft", {"dataset_text_field": "prompts"}),
        ("training_example", {"completion_only_loss": True}),
    ],
)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_sft_trainer_learns_from_it(
    exports: Mapping[str, Path],
    tmp_path: Path,
    name: str,
    options: dict[str, str],
    lora: bool,
) -> None:
    folder = make_tiny_model(tmp_path / "model")
    rows = loaded(exports[name])
    if name == "training_example":
        # The one name that trl has otherwise, as the guide says.
        rows = rows.rename_column("response", "completion")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(tmp_path / "trained"),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            max_length=256,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            **options,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"]) if lora else None,
    )
    before = {key: value.detach().clone() for key, value in trainer.model.named_parameters()}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 20 and math.isfinite(loss) for loss in losses)
    changed = [key for key, value in trainer.model.named_parameters() if not torch.equal(before[key], value)]
    assert changed
    assert all("lora" in key for key in changed) == lora


def test_trl_sees_the_text_that_the_trainer_of_tunix_rt_sees(
    exports: Mapping[str, Path], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "model"))
    chat, examples = loaded(exports["chat"]), loaded(exports["training_example"])
    for row, example in zip(chat, examples, strict=True):
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        assert text == example["prompt"] + example["response"]
