from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_trace_store.traces.model import TraceStep
from tunix_rt_trace_store.traces.service import StepPair, align

steps = st.lists(st.sampled_from("abc"), max_size=8).map(lambda words: [step(word) for word in words])


def step(content: str, type: str = "compute") -> TraceStep:
    return {"i": 0, "type": type, "content": content}


@given(steps, steps)
def test_every_step_stands_once_and_in_order(base: list[TraceStep], other: list[TraceStep]) -> None:
    pairs = align(base, other)
    assert [pair.base_index for pair in pairs if pair.base_index is not None] == list(range(len(base)))
    assert [pair.other_index for pair in pairs if pair.other_index is not None] == list(range(len(other)))
    for pair in pairs:
        if pair.base_index is None or pair.other_index is None:
            assert pair.relation == ("only_other" if pair.base_index is None else "only_base")
        else:
            same = base[pair.base_index] == other[pair.other_index]
            assert (pair.relation == "same") == same


@given(steps)
def test_a_trace_is_the_same_as_itself(base: list[TraceStep]) -> None:
    assert {pair.relation for pair in align(base, base)} <= {"same"}


def test_white_space_does_not_count_but_the_kind_does() -> None:
    assert align([step("1  +\n1")], [step(" 1 + 1 ")]) == [StepPair("same", 0, 0)]
    assert align([step("a")], [step("a", "recall")]) == [StepPair("changed", 0, 0)]
