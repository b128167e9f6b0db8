"""Facts for manifests, and the environment of children that run a model."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tunix_rt_kit.models import runtime


@pytest.fixture(autouse=True)
def _forget() -> None:
    runtime.code_revision.cache_clear()


def test_package_versions_are_those_that_run() -> None:
    assert runtime.package_versions()["jax"] == jax.__version__


def test_runtime_settings_name_what_jax_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    settings = runtime.runtime_settings()
    assert settings["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    assert settings["jax_enable_x64"] == "False"


def test_device_is_named() -> None:
    assert runtime.device().split()[0] == jax.devices()[0].platform


@pytest.mark.parametrize(
    ("cpuinfo", "xla_flags", "platform", "dtype"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16\n", "", "cpu", "bfloat16"),
        ("flags\t\t: amx_bf16\n", "", "cpu", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f\n", "", "cpu", "float32"),
        ("flags\t\t: avx512_bf16\n", "--xla_cpu_max_isa=AVX2", "cpu", "float32"),
        ("flags\t\t: avx512_bf16\n", "--xla_cpu_max_isa=avx512_vnni --xla_dump_to=d", "cpu", "float32"),
        ("flags\t\t: avx512_bf16\n", "--xla_cpu_max_isa=AVX512_BF16", "cpu", "bfloat16"),
        ("flags\t\t: avx512_bf16\n", "--xla_cpu_max_isa=AVX2 --xla_cpu_max_isa=AMX", "cpu", "bfloat16"),
        ("flags\t\t: avx2\n", "--xla_cpu_max_isa=AMX", "cpu", "float32"),
        ("Features\t: asimd bf16\n", "", "cpu", "float32"),
        (None, "", "cpu", "float32"),
        ("flags\t\t: avx2\n", "", "gpu", "bfloat16"),
        ("flags\t\t: avx2\n", "--xla_cpu_max_isa=AVX2", "tpu", "bfloat16"),
    ],
)
def test_a_host_computes_in_float32_where_bfloat16_would_be_emulated(
    cpuinfo: str | None,
    xla_flags: str,
    platform: str,
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    facts = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        facts.write_text(cpuinfo)
    monkeypatch.setattr(runtime, "_PROCESSOR_FACTS", facts)
    monkeypatch.setenv("XLA_FLAGS", xla_flags)
    assert runtime.fast_dtype(platform) == dtype
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert [runtime.chosen_dtype(asked) for asked in ("auto", "bfloat16", "float32")] == [
        dtype,
        "bfloat16",
        "float32",
    ]


def test_a_given_revision_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNIX_RT_REVISION", "abc123")
    assert runtime.code_revision().endswith("+abc123")


def test_a_folder_that_is_no_checkout_has_no_revision(tmp_path: Path) -> None:
    assert runtime._git_revision(tmp_path) == ""
    (tmp_path / ".git").mkdir()
    assert runtime._git_revision(tmp_path) == ""


def test_a_child_keeps_its_compiled_programs_and_a_given_malloc_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    variables = runtime.child_environment(tmp_path)
    assert variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert float(variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) == 0
    assert variables["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=1"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert runtime.child_environment(tmp_path)["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "--xla_gpu_deterministic_ops=true"),
        ("--xla_dump_to=x", "--xla_dump_to=x --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
    ],
)
def test_a_child_with_a_gpu_computes_deterministically_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(runtime, "_GPU_DEVICE", tmp_path)
    assert runtime.child_environment(tmp_path).get("XLA_FLAGS") == expected
    monkeypatch.setattr(runtime, "_GPU_DEVICE", tmp_path / "none")
    assert runtime.child_environment(tmp_path).get("XLA_FLAGS", "") == given


_FREES = """
import psutil
from tunix_rt_kit.models import runtime

# Too small to be mapped one by one; the last one keeps the heap from shrinking by itself.
blocks = [bytearray(100_000) for _ in range(2_000)]
del blocks[:-1]
before = psutil.Process().memory_info().rss
runtime.give_back_memory()
print(before - psutil.Process().memory_info().rss)
"""


def test_freed_memory_is_given_back(tmp_path: Path) -> None:
    environment = {**os.environ, **runtime.child_environment(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _FREES], env=environment, capture_output=True, text=True, check=True
    )
    given_back = int(done.stdout)
    assert given_back > 100_000_000 or platform.libc_ver()[0] != "glibc"
