"""The files of a benchmark, from the hub or from one's own disk, and the eval set that their rows become."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tunix_rt import v1
from tunix_rt.errors import FormatError
from tunix_rt.files import open_regular
from tunix_rt.formats.benchmarks import BadRow, Benchmark
from tunix_rt.formats.datasets_package import load
from tunix_rt.formats.eval_items import MAX_ITEMS
from tunix_rt.formats.grading import give_grader
from tunix_rt.formats.lines import check_keys, keys_of, read_failures, read_lines
from tunix_rt.formats.parquet import is_parquet, parquet_file

_SUFFIXES: Final = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".jsonl.zst")
_HUB_TIMEOUT_S: Final = 10.0
_BATCH: Final = 500
_BLOCK: Final = 1 << 20
_SHOWN: Final = 8
_MAX_BYTES: Final = 512 << 20
INSTALL_HUB: Final = "pip install 'tunix-rt[hub]'"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a benchmark is wanted.

    Args:
        config: a configuration of the data set; empty for the benchmark's own.
        split: a split; empty for the benchmark's own.
        revision: a revision of the data set on the hub; empty for the newest.
        limit: how many rows: the first ones, or with a ``seed`` as many drawn by it; None for all.
        seed: the draw depends on it and on the number of rows alone.
        bare: leave the benchmark's instruction out of the prompts.
    """

    config: str = ""
    split: str = ""
    revision: str = ""
    limit: int | None = None
    seed: int | None = None
    bare: bool = False


@dataclass(frozen=True, slots=True)
class BenchmarkItems:
    """An eval set without an id, and where each item came from.

    Args:
        eval_set: the items with their origin.
        places: of each item, its file and the number of its row, from 1.
        bad_rows: what is wrong with the rows that became no item.
    """

    eval_set: v1.EvalSet
    places: Sequence[tuple[str, int]]
    bad_rows: Sequence[FormatError]

    def without(self, wrong: Sequence[tuple[int, str]]) -> BenchmarkItems:
        """The same without the items at some places, for what is wrong with each."""
        left = {at for at, _ in wrong}
        eval_set = v1.EvalSet()
        eval_set.CopyFrom(self.eval_set)
        del eval_set.items[:]
        eval_set.items.extend(item for at, item in enumerate(self.eval_set.items) if at not in left)
        bad = [FormatError(self.places[at][1], why, file=self.places[at][0]) for at, why in wrong]
        places = [place for at, place in enumerate(self.places) if at not in left]
        return BenchmarkItems(eval_set, places, [*self.bad_rows, *bad])


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of a part of a data set, each with its file and number, and what is known of the part."""

    rows: Sequence[tuple[str, int, Any]]
    files: Sequence[v1.EvalSetFile]
    hub_id: str
    config: str
    split: str
    revision: str
    license: str


def read_benchmark(
    benchmark: Benchmark,
    wanted: Wanted,
    files: Sequence[Path] = (),
    *,
    dataset: str = "",
    skip: bool = False,
) -> BenchmarkItems:
    """The items of a benchmark, read from ``files`` (or folders), or without any from the hub.

    Args:
        benchmark: which.
        wanted: which part of it.
        files: files as the hub has them, Parquet or JSON lines, or folders that hold such files.
        dataset: load this by the `datasets` package instead: an id on the hub, or a folder.
        skip: leave bad rows out instead of raising the first.

    Raises:
        FormatError: a row is not what the benchmark's rows are, by its file and number; there is no such
            file; the hub cannot be reached, or what reads from it is not installed.
    """
    part = _loaded(benchmark, wanted, dataset) if dataset else _read(benchmark, wanted, files)
    name = ", ".join(file.file_name for file in part.files)
    if not part.rows:
        raise FormatError(0, "holds no row", file=name)
    items, places, bad = _items(benchmark, wanted, part.config, part.rows, skip=skip)
    _check_count(benchmark, len(items), name)
    eval_set = v1.EvalSet(items=items, origin=_origin(benchmark, wanted, part))
    if benchmark.grader_source:
        give_grader(
            eval_set, v1.Grader(python=v1.PythonGrader(source=benchmark.grader_source, function="grade"))
        )
    return BenchmarkItems(eval_set, places, bad)


def _read(benchmark: Benchmark, wanted: Wanted, files: Sequence[Path]) -> _Part:
    """The part of files, or of the hub."""
    config, split = wanted.config or benchmark.config, wanted.split or benchmark.split
    pattern = re.compile(
        benchmark.files.replace("{config}", re.escape(config)).replace("{split}", re.escape(split))
    )
    paths, revision = list(_own(files, pattern, split)), ""
    if not files:
        paths, revision = _from_hub(benchmark, pattern, wanted.revision)
    elif not all(_is_named(path, pattern) for path in paths):
        # Of a file with another name it is not known what it holds.
        config = wanted.config
        split = split if all(path.name.startswith(split) for path in paths) else wanted.split
    rows = [(path.name, number, row) for path in paths for number, row in _rows(path)]
    facts = [_facts(path) for path in paths]
    return _Part(rows, facts, benchmark.hub_id, config, split, revision, benchmark.license)


def _loaded(benchmark: Benchmark, wanted: Wanted, dataset: str) -> _Part:
    """The part that the `datasets` package loads."""
    split = wanted.split or benchmark.split
    configs = [wanted.config] if wanted.config else [benchmark.config] if benchmark.config else []
    loaded = load(dataset, configs, split, wanted.revision)
    rows = [(dataset, number, row) for number, row in enumerate(loaded.rows, start=1)]
    own = Path(dataset).is_dir()
    hub_id = benchmark.hub_id if own else dataset
    license = loaded.license or (benchmark.license if hub_id == benchmark.hub_id else "not stated")
    facts = [_facts(path) for path in loaded.files]
    return _Part(rows, facts, hub_id, loaded.config, split, loaded.revision, license)


def _items(
    benchmark: Benchmark, wanted: Wanted, config: str, rows: Sequence[tuple[str, int, Any]], *, skip: bool
) -> tuple[list[v1.EvalItem], list[tuple[str, int]], list[FormatError]]:
    """The items of the rows that are wanted, where each stands, and what is wrong with the others."""
    items, places, bad = [], [], []
    for at in _chosen(len(rows), wanted):
        name, number, row = rows[at]
        try:
            items.append(benchmark.item(row, at + 1, config, bare=wanted.bare))
            places.append((name, number))
        except BadRow as error:
            bad.append(FormatError(number, str(error), file=name))
            if not skip:
                raise bad[-1] from None
    return items, places, bad


def _origin(benchmark: Benchmark, wanted: Wanted, part: _Part) -> v1.EvalSetOrigin:
    """Where the items come from."""
    rule = benchmark.rule or f"{benchmark.name}/{benchmark.version}"
    return v1.EvalSetOrigin(
        benchmark=benchmark.name,
        mapping=f"{rule}{' bare' if wanted.bare else ''}",
        hub_id=part.hub_id,
        config=part.config,
        split=part.split,
        revision=part.revision,
        license=part.license,
        citation=benchmark.citation,
        files=[*part.files, *(_facts(path) for path in benchmark.made_of)],
        row_count=len(part.rows),
        selection=_selection(wanted, len(part.rows)),
    )


def _chosen(count: int, wanted: Wanted) -> Sequence[int]:
    """Which rows are taken, in their order."""
    if wanted.limit is None or wanted.limit >= count:
        return range(count)
    if wanted.seed is None:
        return range(wanted.limit)
    drawn = sorted(range(count), key=lambda at: hashlib.sha256(f"{wanted.seed}:{at}".encode()).digest())
    return sorted(drawn[: wanted.limit])


def _selection(wanted: Wanted, count: int) -> str:
    if wanted.limit is None or wanted.limit >= count:
        return "all"
    return (
        f"the first {wanted.limit}" if wanted.seed is None else f"{wanted.limit} drawn by seed {wanted.seed}"
    )


def _check_count(benchmark: Benchmark, count: int, name: str) -> None:
    if not count:
        raise FormatError(0, f"holds no row that {benchmark.name} can be asked by", file=name)
    if count > MAX_ITEMS:
        raise FormatError(
            0,
            f"holds {count:,} items, and an eval set has at most {MAX_ITEMS:,}; take a part: --limit 1000 "
            "--seed 1, or another --config",
            file=name,
        )


def _own(given: Sequence[Path], pattern: re.Pattern[str], split: str) -> Iterator[Path]:
    """The files of a user's own: those that are named, and in folders those that the hub would have, or whose
    names begin as the split."""
    for path in given:
        if not path.is_dir():
            _check_file(path)
            yield path
            continue
        with read_failures(str(path)):
            # As deep as the hub's folders are: nobody waits for a whole disk to be searched.
            inside = sorted(file for depth in ("*", "*/*") for file in path.glob(depth) if file.is_file())
        found = [file for file in inside if pattern.fullmatch(file.relative_to(path).as_posix())]
        found = found or [
            file for file in inside
            if file.parent == path and file.name.startswith(split) and file.name.endswith(_SUFFIXES)
        ]  # fmt: skip
        if not found:
            there = ", ".join(file.relative_to(path).as_posix() for file in inside[:_SHOWN]) or "nothing"
            raise FormatError(
                0,
                f"holds no file like {_plain(pattern)} or {split}.jsonl; it holds {there}",
                file=str(path),
            )
        yield from found


def _check_file(path: Path) -> None:
    with read_failures(str(path)), open_regular(path) as file:
        size = file.seek(0, 2)
    if size > _MAX_BYTES:
        raise FormatError(
            0, f"has {size:,} bytes; no file of a benchmark has more than {_MAX_BYTES:,}", file=str(path)
        )


def _is_named(path: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a file has a name, and lies in a folder, such as the hub's."""
    return re.search(rf"(?:^|/){pattern.pattern}$", path.absolute().as_posix()) is not None


def _plain(pattern: re.Pattern[str]) -> str:
    return re.sub(r"\\(.)", r"\1", pattern.pattern.replace(r"\d+-of-\d+", "00000-of-00001"))


def _from_hub(benchmark: Benchmark, pattern: re.Pattern[str], revision: str) -> tuple[list[Path], str]:
    """The files on the hub, downloaded into its own cache, and the revision that they are of."""
    otherwise = (
        f"download {_plain(pattern)} from https://huggingface.co/datasets/{benchmark.hub_id} where there is "
        "a network, and give the file: --from FILE"
    )
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise FormatError(
            0, f"{benchmark.name} needs huggingface-hub to come from the hub: {INSTALL_HUB}; or {otherwise}"
        ) from None
    try:
        info = huggingface_hub.HfApi().dataset_info(
            benchmark.hub_id, revision=revision or None, timeout=_HUB_TIMEOUT_S
        )
        names = sorted(entry.rfilename for entry in info.siblings or ())
        found = [name for name in names if pattern.fullmatch(name)]
        paths = [
            Path(
                huggingface_hub.hf_hub_download(
                    benchmark.hub_id, name, repo_type="dataset", revision=info.sha
                )
            )
            for name in found
        ]
    except Exception as error:
        # Whatever its client raises of networks, logins and caches.
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(0, f"{benchmark.hub_id} cannot be had from the hub ({why}); {otherwise}") from error
    if not paths:
        there = ", ".join(names[:_SHOWN])
        raise FormatError(
            0,
            f"{benchmark.hub_id} has no file {_plain(pattern)}; it has {there}; another --config or --split?",
        )
    return paths, str(info.sha or "")


def _facts(path: Path) -> v1.EvalSetFile:
    digest, size = hashlib.sha256(), 0
    with read_failures(str(path)), open_regular(path) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return v1.EvalSetFile(file_name=path.name, size_bytes=size, digest=f"sha256:{digest.hexdigest()}")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with their numbers from 1; of JSON lines, the numbers of their lines."""
    read: Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]
    with read_failures(str(path)):
        read = _parquet_rows if is_parquet(path) else _json_rows
    yield from read(path)


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    with parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        keys_of(line, number, path.name)
        check_keys(line, number, path.name)
        yield number, json.loads(line)
