"""The whole loop on a tiny real model: traces, dataset, Tunix SFT, evaluations, report."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunix_rt_local
from support.tiny_model import ONE_LAYER, make_tiny_model
from tunix_rt import Client, v1
from tunix_rt.loop import LoopConfig, run_loop

pytestmark = pytest.mark.slow

LOOP = {
    "name": "embedded",
    "traces": {"generate": {"count": 40, "seed": 5}},
    "dataset": {"id": "embedded", "splits": {"train": 0.8, "test": 0.2}, "chat_template": "model"},
    "training": {"base_model": "tiny", "max_steps": 3, "rows_per_batch": 2, "lora": {"rank": 4}},
    "evaluation": {"max_new_tokens": 8},
}


@pytest.mark.usefixtures("optimized_processes")
def test_the_whole_loop_runs_and_a_second_run_on_a_new_folder_ends_in_the_same_digests(
    tmp_path: Path,
) -> None:
    summaries = []
    for run in ("first", "second"):
        data_dir = tmp_path / run
        make_tiny_model(data_dir / "models" / "tiny", config=ONE_LAYER)
        config = LoopConfig.model_validate({**LOOP, "output_dir": tmp_path / f"{run}-out"})
        with tunix_rt_local.embedded(data_dir) as server, Client(server.address) as client:
            result = run_loop(config, client)
            losses = [metrics.loss for metrics in result.report.training_metrics]
            digests = [result.dataset.digest, result.checkpoint.digest]
            answers = [
                evaluation.manifest.results_digest
                for evaluation in (result.report.base, result.report.candidate)
            ]
        assert len(losses) == 3
        assert result.report.contamination.state == v1.Contamination.STATE_LOOKED_UP
        assert "<html" in (tmp_path / f"{run}-out" / "report.html").read_text()
        summaries.append((losses, digests, answers))
    assert summaries[0] == summaries[1]
