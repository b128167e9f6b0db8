"""Building a dataset from traces and reading it, beside Hugging Face ``datasets`` doing the same from memory.

Trace store and exporter are processes of their own, on SQLite. The build drops exact duplicates and makes
three splits; all are read as ``tunix_sft`` through the client. The peer maps the same rows to the same text,
shuffles, splits and writes JSON lines, once from rows that are in its memory already. It is left out above
100,000 traces, as it holds everything in memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import data
from benchmarks.measure import peak_rss
from benchmarks.options import Options
from benchmarks.processes import exporter, trace_store
from tunix_rt import Client, jobs, v1
from tunix_rt.importing import import_traces
from tunix_rt_kit.chat import ChatTemplate, render_response

COUNT: Final = 30_000
MOST_FOR_PEER: Final = 100_000
SPLITS: Final = {"train": 0.8, "validation": 0.1, "test": 0.1}


def run(options: Options) -> dict[str, Any]:
    """Rows a second of build and reading, medians of interleaved repeats; the exporter's peak RSS in MB."""
    count = options.count or COUNT
    ours: list[_Seconds] = []
    peers: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder,
        trace_store(f"sqlite:///{folder}/traces.db") as store,
        exporter(store.address) as server,
        peak_rss({"exporter": server.process}) as peaks,
        # These two are not called.
        Client(
            f"trace-store={store.address},exporter={server.address},"
            f"trainer={server.address},evaluator={server.address}"
        ) as client,
    ):
        import_traces(client, data.variants(options, count))
        for repeat in range(options.repeats):
            ours.append(_ours(client, repeat, count))
            if count <= MOST_FOR_PEER:
                peers.append(_peer(data.variants(options, count)))
    build = median(each.build_s for each in ours)
    figures: dict[str, Any] = {
        "rows": count,
        "repeats": options.repeats,
        "build_rows_per_second": round(count / build),
        "build_microseconds_per_row": round(build / count * 1e6, 1),
        "read_rows_per_second": round(count / median(each.read_s for each in ours)),
        "peak_rss_mb_exporter": peaks["exporter"],
    }
    if peers:
        whole = median(each.build_s + each.read_s for each in ours)
        figures["whole_seconds"] = round(whole, 2)
        figures["datasets_seconds"] = round(median(peers), 2)
        figures["ratio_to_datasets"] = round(median(peers) / whole, 2)
    return figures


@dataclass(frozen=True, slots=True)
class _Seconds:
    build_s: float
    read_s: float


def _ours(client: Client, repeat: int, count: int) -> _Seconds:
    begun = time.perf_counter()
    created = client.exporter.create_dataset(
        v1.DatasetSpec(
            dataset_id="benchmark",
            version=f"{repeat}",
            splits=[v1.SplitFraction(split=split, fraction=share) for split, share in SPLITS.items()],
            seed=repeat,
        )
    )
    dataset = jobs.wait_for_dataset(client, created.name)
    built = time.perf_counter()
    lines = sum(
        client.exporter.read_dataset(dataset.name, split, format=v1.DATASET_FORMAT_TUNIX_SFT).count(b"\n")
        for split in SPLITS
    )
    read = time.perf_counter()
    if lines + sum(dropped.row_count for dropped in dataset.dropped) != count:
        raise RuntimeError(f"{lines} rows were read, of {count} traces")
    return _Seconds(built - begun, read - built)


def _peer(messages: Iterator[v1.Trace]) -> float:
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()
    rows = [
        {
            "id": str(number),
            "prompt": trace.prompt,
            "steps": [step.content for step in trace.steps],
            "final_answer": trace.final_answer,
        }
        for number, trace in enumerate(messages)
    ]

    gemma = ChatTemplate.built_in("gemma-it")

    def rendered(row: dict[str, Any]) -> dict[str, str]:
        turn = (row["prompt"], render_response(row["steps"], row["final_answer"]))
        ((prompt, response),) = gemma.split_turns([turn])
        return {"prompts": prompt.removeprefix(gemma.start_of_text) + response}

    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder:
        begun = time.perf_counter()
        whole = datasets.Dataset.from_list(rows)
        mapped = whole.map(rendered, remove_columns=["prompt", "steps"]).shuffle(seed=1)
        rest = mapped.train_test_split(test_size=0.2, seed=1)
        held_out = rest["test"].train_test_split(test_size=0.5, seed=1)
        for name, part in (
            ("train", rest["train"]),
            ("validation", held_out["train"]),
            ("test", held_out["test"]),
        ):
            part.to_json(Path(folder) / f"{name}.jsonl")
        return time.perf_counter() - begun
