"""What a child process gets of this process's environment: what it needs to run, and no key or address that
it does not need."""

from __future__ import annotations

import os
from typing import Final, Literal

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
        *(
            "JAX_",
            "JAXLIB_",
            "XLA_",
            "PJRT_",
            "TF_CPP_",
            "TF_GPU_",
            "TF_XLA_",
            "TPU_",
            "LIBTPU_",
            "MEGASCALE_",
            "CUDA_",
            "CUDNN_",
        ),
        # Not all that begins so: NVIDIA_API_KEY is a key.
        *(
            "NVIDIA_VISIBLE_DEVICES",
            "NVIDIA_DRIVER_CAPABILITIES",
            "NVIDIA_TF32_OVERRIDE",
            "NCCL_",
            "ROCM_",
            "ROCR_",
            "HIP_",
            "HSA_",
            "OMP_",
            "KMP_",
            "MKL_",
            "OPENBLAS_",
        ),
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
