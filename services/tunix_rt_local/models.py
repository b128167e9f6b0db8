"""Base models of this computer's data folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.errors import class_of
from tunix_rt_kit.errors import DomainError
from tunix_rt_kit.models import ModelStore

if TYPE_CHECKING:
    from tunix_rt_kit.models.verify import VerifyReport

MODELS = "models"


def pull(name: str, data_dir: Path, progress: Callable[[str, int, int], None] | None = None) -> Path:
    """Fetch a catalogued base model, one of the hub (``hf://organisation/name``) or a GGUF file into
    ``data_dir`` unless it is there; returns its folder.

    ``progress`` gets the stage, and how much of it is done of how much. Raises TunixRtError.
    """
    try:
        return Path(ModelStore(data_dir / MODELS).ensure(_named(name), progress).path)
    except DomainError as error:
        raise _client_error(error) from error


def verify(name: str, data_dir: Path) -> VerifyReport:
    """Compare Tunix's logits with those of transformers on real prompts, in float32. Raises TunixRtError."""
    # Loads JAX: only this command needs it, not the server.
    from tunix_rt_kit.models.verify import verify as verify_folder

    try:
        return verify_folder(ModelStore(data_dir / MODELS).resolve(_named(name)).path)
    except DomainError as error:
        raise _client_error(error) from error


def _named(name: str) -> str:
    """A file may be named from where the user stands."""
    return str(Path(name).absolute()) if name.endswith(".gguf") else name


def _client_error(error: DomainError) -> Exception:
    return class_of(error.code)(error.message, code=error.code, reason=error.reason, metadata=error.metadata)
