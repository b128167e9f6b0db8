"""Models that the tests here share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.base_model import Pulled, pulled_smollm2
from support.tiny_model import make_tiny_model


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulled]:
    """SmolLM2-135M-Instruct, pulled once for the session."""
    own = tmp_path_factory.getbasetemp()
    # A worker of pytest-xdist has a folder in that of the session.
    with pulled_smollm2(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) as pulled:
        yield pulled


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny random model, of the test's own."""
    return make_tiny_model(tmp_path / "tiny")
