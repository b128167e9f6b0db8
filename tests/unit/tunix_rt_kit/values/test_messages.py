"""Values and messages whose fields have the same names turn into each other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tunix_rt import v1
from tunix_rt_kit.convert import from_message, to_message


class Adapter(BaseModel):
    rank: int = 16
    alpha: float | None = None
    target_modules: tuple[str, ...] = ()


class Spec(BaseModel):
    base_model: str = ""
    method: Literal["lora", "qlora", "full"] = "lora"
    lora: Adapter | None = None
    max_steps: int | None = None
    packing: bool = True
    seed: int = 0


OTHER_FIELDS = set(v1.TrainingSpec.DESCRIPTOR.fields_by_name) - set(Spec.model_fields)

adapters = st.builds(
    Adapter,
    rank=st.integers(-5, 5),
    alpha=st.none() | st.floats(allow_nan=False),
    target_modules=st.lists(st.text(max_size=3)).map(tuple),
)
specs = st.builds(
    Spec,
    base_model=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    method=st.sampled_from(["lora", "qlora", "full"]),
    lora=st.none() | adapters,
    max_steps=st.none() | st.integers(-(2**63), 2**63 - 1),
    packing=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)


@given(specs)
def test_a_value_comes_back_from_its_message(spec: Spec) -> None:
    message = to_message(spec, v1.TrainingSpec, unset=OTHER_FIELDS)
    assert Spec(**from_message(message, Spec)) == spec
    assert v1.TuningMethod.Name(message.method) == f"TUNING_METHOD_{spec.method.upper()}"


def test_what_is_not_set_is_left_out_and_what_is_unknown_is_digits() -> None:
    assert from_message(v1.TrainingSpec(), Spec) == {}
    assert from_message(v1.TrainingSpec(method=9), Spec)["method"] == "9"


def test_a_field_that_nobody_thought_of_raises() -> None:
    with pytest.raises(AttributeError, match="rows_per_batch"):
        to_message(Spec(), v1.TrainingSpec, unset=OTHER_FIELDS - {"rows_per_batch"})


class State(StrEnum):
    QUEUED = "QUEUED"


class Failure(BaseModel):
    code: str
    reason: str
    message: str
    metadata: Mapping[str, str]


class Timing(BaseModel):
    stage: str
    duration_s: float


class Job(BaseModel):
    state: State
    error: Failure
    stage_timings: tuple[Timing, ...]
    create_time: datetime


def test_states_times_and_errors() -> None:
    job = Job(
        state=State.QUEUED,
        error=Failure(code="NOT_FOUND", reason="GONE", message="is gone", metadata={"name": "x"}),
        stage_timings=(Timing(stage="training", duration_s=1.5),),
        create_time=datetime(2026, 11, 30, 1, 2, 3, 456_789, UTC),
    )
    others = set(v1.TrainingJob.DESCRIPTOR.fields_by_name) - set(Job.model_fields)
    message = to_message(job, v1.TrainingJob, unset=others)
    assert message.state == v1.TrainingJob.STATE_QUEUED
    assert isinstance(message.error, Status) and message.error.message == "is gone"
    assert message.stage_timings[0].duration.ToTimedelta().total_seconds() == 1.5
    assert message.create_time.ToDatetime(UTC) == job.create_time
    read = from_message(message, Job)
    assert (read["state"], read["stage_timings"]) == ("QUEUED", [{"stage": "training", "duration_s": 1.5}])
    assert read["create_time"] == job.create_time
