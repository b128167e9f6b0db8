"""The devices of a job, laid out as its spec asks."""

from __future__ import annotations

import jax

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trainer.model import MeshShape


def make_mesh(shape: MeshShape) -> jax.sharding.Mesh:
    """The first ``fsdp * tp`` devices as a mesh with these two axes; use it as ``with make_mesh(shape):``.

    Raises:
        FailedPrecondition: MESH_INVALID, there are not that many.
    """
    devices, wanted = jax.devices(), shape.fsdp * shape.tp
    if wanted > len(devices):
        raise FailedPrecondition(
            f"spec.mesh: fsdp {shape.fsdp} x tp {shape.tp} takes {wanted} devices; this host has "
            f"{len(devices)} ({devices[0].platform})",
            reason="MESH_INVALID",
            metadata={"wanted": str(wanted), "devices": str(len(devices))},
        )
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh(
        (shape.fsdp, shape.tp), ("fsdp", "tp"), axis_types=axis_types, devices=devices[:wanted]
    )
