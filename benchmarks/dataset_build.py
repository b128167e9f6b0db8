"""Building a dataset from traces and reading it, beside Hugging Face ``datasets`` doing the same from memory.

Trace store and exporter are processes of their own, on SQLite. The build drops exact duplicates and makes
three splits; all are read as ``tunix_sft`` through the client. The peer maps the same rows to the same text,
shuffles, splits and writes JSON lines, once from rows that are in its memory already.

``python -m benchmarks.dataset_build --data gsm8k_train.jsonl --count 1000000`` measures a longer one; the
peer is left out above 100,000 traces, as it holds everything in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt import Client, jobs, v1
from tunix_rt.formats import read_traces, trace_from_json
from tunix_rt.generate import capacity, generate_traces
from tunix_rt.importing import import_traces
from tunix_rt_kit.chat import trace_text

COUNT: Final = 30_000
REPEATS: Final = 3
MOST_FOR_PEER: Final = 100_000
SPLITS: Final = {"train": 0.8, "validation": 0.1, "test": 0.1}
_NUMBER: Final = re.compile(r"\d+")


def run(data: Path | None = None, count: int = COUNT, repeats: int = REPEATS) -> dict[str, float]:
    """Rows a second of build and reading, the median of the repeats; the exporter's peak memory in MB."""
    with tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder, ExitStack() as stack:
        store = stack.enter_context(_server("tunix_rt_trace_store", Path(folder) / "store"))
        exporter = stack.enter_context(
            _server("tunix_rt_exporter", Path(folder) / "exporter", "--trace-store-target", store.address)
        )
        targets = f"trace-store={store.address},exporter={exporter.address}"
        unused = f"trainer={store.address},evaluator={store.address}"
        with Client(f"{targets},{unused}") as client:
            import_traces(client, traces(data, count), batch_size=1_000)
            ours, peers = [], []
            for repeat in range(repeats):
                ours.append(_ours(client, repeat, count))
                if count <= MOST_FOR_PEER:
                    peers.append(_peer(traces(data, count)))
        figures = {
            "rows": count,
            "build_rows_per_second": _median([count / each.build_s for each in ours]),
            "read_rows_per_second": _median([count / each.read_s for each in ours]),
            "microseconds_per_row": round(_middle([each.build_s for each in ours]) / count * 1e6, 1),
            "exporter_peak_rss_mb": round(exporter.peak_rss() / 1e6),
        }
        if peers:
            whole = _middle([each.build_s + each.read_s for each in ours])
            figures["whole_seconds"] = round(whole, 2)
            figures["datasets_seconds"] = round(_middle(peers), 2)
            figures["datasets_to_ours"] = round(_middle(peers) / whole, 2)
    return figures


def traces(data: Path | None, count: int) -> Iterator[v1.Trace]:
    """``count`` traces, those of the file again and again with another first number in each prompt."""
    if data is None:
        generated = generate_traces(min(count, capacity(), 7_473), seed=1)
        rows = [trace_from_json(json.dumps(trace.to_dict())) for trace in generated]
    else:
        rows = list(read_traces(data))
    for number in range(count):
        trace = v1.Trace()
        trace.CopyFrom(rows[number % len(rows)])
        round_ = number // len(rows)
        if round_:
            trace.prompt = _NUMBER.sub(lambda found, k=round_: f"{int(found[0]) + k}", trace.prompt, count=1)
            trace.final_answer += f" ({round_})"
        trace.source = "benchmark"
        yield trace


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

    def rendered(row: dict[str, Any]) -> dict[str, str]:
        return {"prompts": trace_text("gemma-it", row["prompt"], row["steps"], row["final_answer"])}

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


@dataclass(frozen=True, slots=True)
class _Server:
    address: str
    process_id: int

    def peak_rss(self) -> int:
        """The largest resident set so far, in bytes (Linux)."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


@contextmanager
def _server(module: str, folder: Path, *options: str) -> Iterator[_Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", module, "serve", "--listen", f"127.0.0.1:{port}"]
    command += ["--data-dir", str(folder), "--log-level", "warning", *options]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}) as process:
        try:
            _wait_until_it_listens(port, process)
            yield _Server(f"127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    raise RuntimeError(f"the server ended with {process.returncode} before it listened")


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _median(rates: Sequence[float]) -> float:
    return round(_middle(rates))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataset_build", description=__doc__)
    parser.add_argument("--data", type=Path, help="file of traces; left out, generated ones")
    parser.add_argument("--count", type=int, default=COUNT, help="traces (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="default: %(default)s")
    given = parser.parse_args()
    print(json.dumps({"benchmark": "dataset-build", **run(given.data, given.count, given.repeats)}))


if __name__ == "__main__":
    main()
