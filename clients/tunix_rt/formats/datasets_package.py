"""Data sets that the `datasets` package loads: of the hub, or of a folder on this computer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tunix_rt.errors import FormatError

INSTALL_DATASETS: Final = "pip install 'tunix-rt[datasets]'"
_HUB_FILE: Final = re.compile(r"hf://datasets/(?P<id>[^@]+)@(?P<revision>[^/]+)/.+")
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
    try:
        import datasets
    except ModuleNotFoundError:
        raise FormatError(
            0, f"`datasets`, which loads {name}, is not installed: {INSTALL_DATASETS}"
        ) from None
    folder = Path(name)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if folder.is_dir() and any((folder / one).is_file() for one in _SAVED):
            return _saved(datasets, folder, split)
        return _built(datasets, name, configs, split, revision)
    except FormatError:
        raise
    except Exception as error:
        # Whatever it raises of networks, logins, caches and files.
        why = " ".join(str(error).split())[:200] or type(error).__name__
        otherwise = (
            "" if folder.is_dir() else "; download it where there is a network, and give its folder or files"
        )
        raise FormatError(0, f"cannot be loaded by `datasets` ({why}){otherwise}", file=name) from error
    finally:
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
    found = next((match for one in urls if (match := _HUB_FILE.fullmatch(one))), None)
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
