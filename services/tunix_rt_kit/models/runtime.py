"""The host of a process that runs a model: facts for manifests, and the environment of child processes.

It imports JAX only inside functions, so that servers may use the others.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

from tunix_rt_kit.errors import ResourceExhausted
from tunix_rt_kit.jobs.files import passed_on

Dtype = Literal["bfloat16", "float32"]
"""A type of weights and activations."""

OUT_OF_MEMORY: Final = "OUT_OF_MEMORY"

PACKAGES = (
    "flax",
    "google-tunix",
    "jax",
    "jaxlib",
    "ml_dtypes",
    "numpy",
    "optax",
    "qwix",
    "safetensors",
    "tokenizers",
)
"""The packages whose version can change a number."""

_ENVIRONMENT = ("GLIBC_TUNABLES", "JAX_PLATFORMS", "LIBTPU_INIT_ARGS", "XLA_FLAGS")
_JAX_SETTINGS = (
    "jax_default_dtype_bits",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
)
# Otherwise large temporaries are mapped anew at every step, and page faults cost more than arithmetic.
_MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=34359738368:glibc.malloc.top_pad=1073741824"
)

# Otherwise a GPU sums in any order, and two runs of one job differ.
_GPU_FLAG = "xla_gpu_deterministic_ops"
_GPU_DEVICE = Path("/dev/nvidiactl")

_PROCESSOR_FACTS = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16"})
_MAX_ISA: Final = re.compile(r"--xla_cpu_max_isa=(\w+)")
_ISAS_WITHOUT_BFLOAT16: Final = frozenset({"SSE4_2", "AVX", "AVX2", "AVX512", "AVX512_VNNI"})


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Version of each installed package of ``names``, by name."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def runtime_settings() -> dict[str, str]:
    """The settings of JAX and the environment variables that can change a number, where they are set."""
    import jax

    settings = {name: str(getattr(jax.config, name)) for name in _JAX_SETTINGS if hasattr(jax.config, name)}
    return settings | {name: os.environ[name] for name in _ENVIRONMENT if os.environ.get(name)}


def device() -> str:
    """Platform and kind of the device that JAX computes on, such as "gpu NVIDIA H100" or "cpu x86_64"."""
    import jax

    first = jax.devices()[0]
    kind = platform.machine() if first.platform == "cpu" else first.device_kind
    return f"{first.platform} {kind}"


def fast_dtype(platform: str) -> Dtype:
    """The type in which this host trains and generates faster, on a ``platform`` of JAX such as "cpu".

    A processor without instructions for bfloat16 emulates them, and so does XLA where ``XLA_FLAGS`` keeps it
    from using them.
    """
    limits = _MAX_ISA.findall(os.environ.get("XLA_FLAGS", ""))
    limited = bool(limits) and limits[-1].upper() in _ISAS_WITHOUT_BFLOAT16
    flags = set(processor_fact("flags").split())
    emulated = platform == "cpu" and (limited or not flags & _BFLOAT16_FLAGS)
    return "float32" if emulated else "bfloat16"


def chosen_dtype(asked: Dtype | Literal["auto"]) -> Dtype:
    """The type that was asked for; for "auto", ``fast_dtype`` of JAX's device."""
    import jax

    return fast_dtype(jax.default_backend()) if asked == "auto" else asked


@cache
def code_revision() -> str:
    """Version of tunix-rt, and its source revision where one is known: ``0.1.0+0123456789ab``.

    The revision is ``TUNIX_RT_REVISION``, or that of the git checkout that holds this file, with ``.dirty``
    if it has uncommitted changes.
    """
    try:
        version = metadata.version("tunix-rt")
    except metadata.PackageNotFoundError:
        version = "0.0.0"
    revision = os.environ.get("TUNIX_RT_REVISION") or _git_revision(Path(__file__).resolve().parents[3])
    return f"{version}+{revision}" if revision else version


def on_gpu() -> bool:
    """Whether this host has an NVIDIA GPU."""
    return _GPU_DEVICE.exists()


def child_environment(cache_dir: Path) -> dict[str, str]:
    """Environment variables of a child that runs a model, those of this process included.

    Compiled functions are kept in ``cache_dir``, or where JAX's own variable says. On a GPU, kernels are
    deterministic, unless ``XLA_FLAGS`` says something about that already.
    """
    variables = passed_on("models")
    variables |= {
        name: os.environ.get(name, value)
        for name, value in (
            ("JAX_COMPILATION_CACHE_DIR", str(cache_dir.absolute())),
            # The many small functions of a job take longer to compile than its one large one.
            ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
        )
    }
    if platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ:
        variables["GLIBC_TUNABLES"] = _MALLOC
    flags = os.environ.get("XLA_FLAGS", "")
    if on_gpu() and _GPU_FLAG not in flags:
        variables["XLA_FLAGS"] = f"{flags} --{_GPU_FLAG}=true".strip()
    return variables


@contextmanager
def advising(problem: str) -> Iterator[None]:
    """Turn a lack of memory, on a device or here, into ResourceExhausted (OUT_OF_MEMORY).

    ``problem`` says what does not fit, and what takes less.
    """
    try:
        yield
    except Exception as error:
        import jax

        detail = str(error)
        ran_out = isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in detail
        if not ran_out and not isinstance(error, MemoryError):
            raise
        first = next(iter(detail.splitlines()), "")[:200]
        raise ResourceExhausted(f"{problem} ({first or 'no more memory'})", reason=OUT_OF_MEMORY) from error


def processor() -> str:
    """The processor's model, which XLA compiles for, and the cores of this process, which share the work."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = processor_fact("model name") or platform.processor() or platform.machine()
    return f"{name}, {cores} cores"


def processor_fact(name: str) -> str:
    """What Linux says of the first processor, such as its ``flags``; empty where it says nothing."""
    try:
        lines = _PROCESSOR_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}\t")), "")


def give_back_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc.

    Compiling takes as much memory as a training step, in heaps that a step cannot use.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _git_revision(root: Path) -> str:
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=.dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
