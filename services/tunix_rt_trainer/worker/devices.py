"""The devices of a job, laid out as its spec asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from tunix_rt_kit.errors import FailedPrecondition
from tunix_rt_trainer.jobs.model import MeshShape


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


@contextmanager
def dividing(shape: MeshShape) -> Iterator[None]:
    """Around what lays arrays out on the devices.

    Raises:
        FailedPrecondition: MESH_INVALID, a size of the model is no multiple of the devices that share it.
    """
    try:
        yield
    except ValueError as error:
        # JAX keeps the class to itself.
        if type(error).__name__ != "IndivisibleError":
            raise
        raise FailedPrecondition(
            f"spec.mesh: fsdp {shape.fsdp} x tp {shape.tp} does not divide the model: {error}",
            reason="MESH_INVALID",
            metadata={"fsdp": str(shape.fsdp), "tp": str(shape.tp)},
        ) from error
