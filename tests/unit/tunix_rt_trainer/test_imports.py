"""No server process imports a model library."""

from __future__ import annotations

import subprocess
import sys

CHECK = """
import sys
import tunix_rt_trainer.__main__
heavy = {"jax", "jaxlib", "flax", "optax", "qwix", "orbax", "tunix", "numpy", "torch"}
print(*sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_the_server_runs_without_a_model_library() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
