"""Training computes the losses that TRL and `peft` compute."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.options import Options
from benchmarks.training import Training

from support.tiny_model import make_tiny_model


def test_five_steps_have_the_losses_of_trl(tmp_path: Path) -> None:
    data = tmp_path / "sums.jsonl"
    rows = [
        {"question": f"{number} + {number}?", "answer": f"Twice {number}.\n#### {2 * number}"}
        for number in range(40)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    base = make_tiny_model(tmp_path / "tiny")
    training = Training(Options(data=data, count=len(rows), base_model=base), tmp_path)
    assert training.loss_difference() < 1e-4
