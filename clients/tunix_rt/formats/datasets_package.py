"""Data sets that the `datasets` package loads: of the hub, or of a folder on this computer."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tunix_rt.errors import FormatError
from tunix_rt.formats.parquet import row_line, wanted_columns

INSTALL_DATASETS: Final = "pip install 'tunix-rt[datasets]'"
_HUB_FILE: Final = re.compile(r"hf://datasets/(?P<id>[^@]+)@(?P<revision>[^/]+)/.+")
_ADDRESS: Final = re.compile(
    r"hf://datasets/(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<config>[^@/]+))?(?:@(?P<revision>[^@]+))?"
)
_SHOWN: Final = 8
_SAVED: Final = ("dataset_dict.json", "dataset_info.json")
_CARD_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows of a data set.

    Args:
        rows: the rows, in their order.
        files: the files that they are of, on this computer.
        config: the configuration; empty for a folder that has none.
        revision: the revision on the hub; empty for a folder.
        license: what its card says; empty if it says nothing.
    """

    rows: Sequence[Mapping[str, Any]]
    files: Sequence[Path]
    config: str
    revision: str
    license: str


def load(name: str, configs: Sequence[str], split: str, revision: str = "") -> Loaded:
    """Load one split of a data set.

    Args:
        name: its id on the hub, or a folder: Parquet, JSON lines or CSV as the hub has them, or what
            ``save_to_disk`` wrote.
        configs: the configuration: the first of these that it has, or its only one.
        split: the split.
        revision: a revision on the hub; empty for the newest.

    Raises:
        FormatError: it cannot be loaded, has no such part, or `datasets` is not installed.
    """
    folder = Path(name)
    otherwise = (
        "" if folder.is_dir() else "; download it where there is a network, and give its folder or files"
    )
    with _package(name, otherwise) as datasets:
        if folder.is_dir() and any((folder / one).is_file() for one in _SAVED):
            return _saved(datasets, folder, split)
        return _built(datasets, name, configs, split, revision)


@contextmanager
def _package(name: str, otherwise: str) -> Iterator[Any]:
    """The package, without bars and logs of its own; all that it raises is one FormatError."""
    try:
        import datasets
    except ModuleNotFoundError:
        raise FormatError(
            0, f"`datasets`, which loads {name}, is not installed: {INSTALL_DATASETS}"
        ) from None
    shown, log = datasets.is_progress_bar_enabled(), logging.getLogger("huggingface_hub")
    level = log.level
    datasets.disable_progress_bars()
    log.setLevel(logging.ERROR)
    try:
        yield datasets
    except (FormatError, GeneratorExit):
        raise
    except Exception as error:
        # Whatever it raises of networks, logins, caches and files.
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(0, f"cannot be loaded by `datasets` ({why}){otherwise}", file=name) from error
    finally:
        log.setLevel(level)
        if shown:
            datasets.enable_progress_bars()


def _saved(datasets: Any, folder: Path, split: str) -> Loaded:
    """What ``save_to_disk`` wrote: one split, or one folder for each."""
    loaded = datasets.load_from_disk(str(folder))
    if hasattr(loaded, "keys"):
        _check_split(folder.name, split, loaded.keys())
        loaded = loaded[split]
    elif loaded.split is not None and str(loaded.split) != split:
        _check_split(folder.name, split, [str(loaded.split)])
    files = [Path(one["filename"]) for one in loaded.cache_files]
    return Loaded(_Rows(loaded), files, "", "", _license(folder / "README.md"))


def _built(datasets: Any, name: str, configs: Sequence[str], split: str, revision: str) -> Loaded:
    there = datasets.get_dataset_config_names(name, revision=revision or None)
    config = next((one for one in configs if one in there), there[0] if len(there) == 1 else None)
    if config is None or (configs and configs[0] and configs[0] not in there and there != ["default"]):
        raise FormatError(0, f"has the configurations {_listed(there)}; give one: --config", file=name)
    builder = datasets.load_dataset_builder(name, config, revision=revision or None)
    given = builder.config.data_files or {}
    _check_split(name, split, given.keys())
    urls = [str(one) for one in given[split]]
    found = _on_hub(urls)
    builder.download_and_prepare()
    files = [Path(one) if Path(one).is_file() else Path(builder.dl_manager.download(one)) for one in urls]
    card = Path(name) / "README.md"
    if found:
        card = Path(builder.dl_manager.download(f"hf://datasets/{found['id']}@{found['revision']}/README.md"))
    return Loaded(
        _Rows(builder.as_dataset(split=split)),
        files,
        "" if config == "default" else config,
        found["revision"] if found else "",
        _license(card),
    )


@dataclass(frozen=True, slots=True)
class HubAddress:
    """``hf://datasets/OWNER/NAME[/CONFIG][@REVISION]``: a data set of the hub."""

    id: str
    config: str = ""
    revision: str = ""

    @classmethod
    def of(cls, text: str) -> HubAddress:
        """What a text says; raises FormatError."""
        found = _ADDRESS.fullmatch(text)
        if found is None:
            raise FormatError(
                0,
                "is no data set of the hub; hf://datasets/OWNER/NAME[/CONFIG][@REVISION] would be",
                file=text,
            )
        return cls(found["id"], found["config"] or "", found["revision"] or "")

    def __str__(self) -> str:
        config, revision = self.config and f"/{self.config}", self.revision and f"@{self.revision}"
        return f"hf://datasets/{self.id}{config}{revision}"


class HubRows:
    """The rows of one split of a data set of the hub, which are loaded as they are read.

    Args:
        address: the data set.
        split: the split.

    Attributes:
        origin: data set, configuration, split, and the revision that it had.
        total: how many rows there are, if the hub says so.

    Raises:
        FormatError: it cannot be loaded, has no such part, or `datasets` is not installed.
    """

    def __init__(self, address: HubAddress, split: str) -> None:
        self._name = str(address)
        with self._package() as datasets:
            config = _config_of(datasets, address)
            builder = datasets.load_dataset_builder(address.id, config, revision=address.revision or None)
            given = builder.config.data_files or {}
            splits = builder.info.splits or {}
            _check_split(self._name, split, given or splits)
            found = _on_hub(str(one) for one in given.get(split, ()))
            self._dataset = builder.as_streaming_dataset(split=split)
        revision = found["revision"] if found else address.revision
        facts = {"dataset": address.id, "config": config, "split": split, "revision": revision}
        self.origin = {key: value for key, value in facts.items() if value and value != "default"}
        self.total: int | None = splits[split].num_examples if split in splits else None

    def lines(self, columns: Mapping[str, str] | None = None) -> io.BufferedReader:
        """The rows as a file of JSON lines, which raises FormatError; ``columns`` as for Parquet."""
        return io.BufferedReader(_Lines(self._name, self._lines(columns)))

    def _lines(self, columns: Mapping[str, str] | None) -> Iterator[bytes]:
        wanted: Mapping[str, str] | None = None
        with self._package():
            for row in self._dataset:
                if columns and wanted is None:
                    wanted = wanted_columns(columns, list(row), self._name)
                fields = {field: row[name] for field, name in wanted.items()} if wanted else dict(row)
                yield row_line(fields) + b"\n"

    def _package(self) -> Any:
        return _package(
            self._name,
            "; are its name and the network right? One that is gated or private needs HF_TOKEN, a token of "
            "an account that may read it. Or download its files elsewhere, and import these",
        )


class _Lines(io.RawIOBase):
    """Lines as an open file."""

    def __init__(self, name: str, lines: Iterator[bytes]) -> None:
        self.name = name
        self._lines = lines
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._lines, b""))
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken


def _config_of(datasets: Any, address: HubAddress) -> str:
    there = datasets.get_dataset_config_names(address.id, revision=address.revision or None)
    wanted = address.config or ("default" if "default" in there else there[0] if len(there) == 1 else "")
    if wanted not in there:
        example = HubAddress(address.id, "CONFIG", address.revision)
        raise FormatError(
            0, f"has the configurations {_listed(there)}; give one: {example}", file=str(address)
        )
    return str(wanted)


class _Rows(Sequence[Mapping[str, Any]]):
    """Rows of `datasets` as plain values."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, at: Any) -> Any:
        return self._dataset[at]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self._dataset)


def _on_hub(urls: Iterable[str]) -> re.Match[str] | None:
    """Id and revision in the first of the addresses that is a file of the hub's."""
    return next((match for one in urls if (match := _HUB_FILE.fullmatch(one))), None)


def _check_split(name: str, split: str, there: Any) -> None:
    splits = [str(one) for one in there]
    if split not in splits:
        raise FormatError(0, f"has no split {split}; it has {_listed(splits)}: --split", file=name)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _license(card: Path) -> str:
    """The licence that the card of a data set names, "" if it names none."""
    try:
        with card.open("rb") as file:
            head = file.read(_CARD_BYTES).decode("utf-8", "replace")
        fields = yaml.safe_load(head.split("---")[1]) if head.startswith("---") else {}
    except (OSError, yaml.YAMLError, IndexError):
        return ""
    found = fields.get("license") if isinstance(fields, dict) else None
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found or "")
