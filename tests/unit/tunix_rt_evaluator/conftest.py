"""What the evaluator's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.tiny_model import ONE_LAYER, make_tiny_model


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds the model "tiny"."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny_model(folder / "tiny", config=ONE_LAYER | {"max_position_embeddings": 256})
    return folder
