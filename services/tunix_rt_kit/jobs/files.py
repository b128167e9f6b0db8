"""What parent and child share: a job's files, its processes, and what a child gets of the environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import psutil

from tunix_rt_kit.canonical import canonical_json

SPEC = "spec.json"
EVENTS = "events.jsonl"
LOG = "worker.log"
PID = "worker.pid"
LOCK = "worker.lock"
CANCEL = "cancel"
HEARTBEAT = "heartbeat"
OWNER = "owner"
LOCKED = 4
"""Exit code of a child in whose folder another one works."""
_BLOCK = 1 << 16
_SAME_START_S = 2.0
# Of /proc/PID/stat, from the third field on, which comes after the name in brackets: proc_pid_stat(5).
_START_FIELD = 19

Group = Literal["models", "network", "packages", "mlflow", "wandb"]
"""What a child does besides running Python: compute with a model library, call others over HTTP, fetch
packages with pip, report to a tracking service."""

# Names, and beginnings of names that end in "_". Names are compared in upper case, as proxies have both.
_PYTHON: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TMP", "TEMP", "TZ", "LANG", "LANGUAGE", "LC_", "XDG_"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONFAULTHANDLER", "PYTHONUTF8", "PYTHONIOENCODING"),
    *("PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV"),
    # Where packages are that were installed for one user.
    *("PYTHONUSERBASE", "PYTHONNOUSERSITE"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "COVERAGE_"),
)
_GROUPS: Final[dict[Group, tuple[str, ...]]] = {
    "models": (
        *("JAX_", "JAXLIB_", "XLA_", "PJRT_", "TF_CPP_", "TF_GPU_", "TF_XLA_", "TPU_", "LIBTPU_"),
        # Not all that begins so: NVIDIA_API_KEY is a key.
        *("CUDA_", "CUDNN_", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE"),
        *("MEGASCALE_", "NCCL_", "ROCM_", "ROCR_", "HIP_", "HSA_", "OMP_", "KMP_", "MKL_", "OPENBLAS_"),
        *("GLIBC_TUNABLES", "MALLOC_", "RAYON_", "TOKENIZERS_PARALLELISM"),
    ),
    "network": (
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    ),
    "packages": ("PIP_", "NETRC"),
    "mlflow": ("MLFLOW_", "DATABRICKS_"),
    "wandb": ("WANDB_", "NETRC"),
}


def write_atomically(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``; a crash leaves the old content or the new one. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def record_pid(folder: Path, pid: int) -> None:
    """Write down that the process ``pid`` does the job, with its start, for ids are given anew. Raises
    OSError, and psutil.NoSuchProcess if it has ended."""
    record = {
        "pid": pid,
        "start_time": psutil.Process(pid).create_time(),
        "start": process_start(pid),
        "machine_start": machine_start(),
    }
    write_atomically(folder / PID, canonical_json(record))


def recorded_process(record: Mapping[str, Any]) -> psutil.Process | None:
    """The process that ``record_pid`` wrote down; None if it has ended, whoever has its id by now."""
    pid = int(record["pid"])
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if "start" in record:
            same = record["machine_start"] == machine_start() and record["start"] == process_start(pid)
        else:
            # Written by an earlier version, by the wall clock.
            same = abs(process.create_time() - float(record["start_time"])) < _SAME_START_S
        if same and alive(process):
            return process
    return None


def is_process(pid: int, start: float) -> bool:
    """Whether the process ``pid`` of this machine began at ``start`` and has not ended."""
    with suppress(psutil.NoSuchProcess):
        return process_start(pid) == start and alive(psutil.Process(pid))
    return False


def process_start(pid: int) -> float:
    """When a process began: seconds since the machine did, on Linux, for the wall clock may be set meanwhile;
    elsewhere since 1970. Raises psutil.NoSuchProcess."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return psutil.Process(pid).create_time()


def machine_start() -> str:
    """What tells this start of this machine from others; the same for every one where there is no /proc."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def alive(process: psutil.Process) -> bool:
    """Whether a process has not ended."""
    try:
        # A process is a zombie as soon as its first thread ended. While others run, it holds its files.
        ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return process.is_running() and not ended
    except psutil.NoSuchProcess:
        return False


def line_start(descriptor: int, position: int) -> int:
    """Where in a file the line begins that ``position`` lies in: after the last line break before it."""
    while position:
        begin = max(0, position - _BLOCK)
        found = os.pread(descriptor, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0


def passed_on(*groups: Group) -> dict[str, str]:
    """The variables of this process that a Python needs, and those of ``groups``."""
    wanted = [*_PYTHON, *(name for group in groups for name in _GROUPS[group])]
    names = frozenset(wanted)
    beginnings = tuple(name for name in wanted if name.endswith("_"))
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() in names or name.upper().startswith(beginnings)
    }
