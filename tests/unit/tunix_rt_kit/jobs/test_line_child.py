"""A child that answers line by line, and what it learns of this process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunix_rt_kit.jobs.line_child import LineChild

TELLS_ITS_ENVIRONMENT = """
import json, os, sys
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(dict(os.environ)), flush=True)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[LineChild]:
    script = tmp_path / "script.py"
    script.write_text(TELLS_ITS_ENVIRONMENT)
    made = LineChild(script)
    yield made
    made.close()


def test_a_child_gets_no_key_out_of_this_processs_environment(
    child: LineChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SOME_SERVICE_API_KEY", "HF_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "not to be seen")
    environment = json.loads(child.exchange(b"tell", 60.0))
    assert "not to be seen" not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]
    assert environment["PYTHONHASHSEED"] == "0"
