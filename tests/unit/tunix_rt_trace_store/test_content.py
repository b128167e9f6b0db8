from __future__ import annotations

import json
from typing import Any

from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.artifacts import digest_json
from tunix_rt_trace_store.content import rendered
from tunix_rt_trace_store.model import TraceContent

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
steps = st.lists(
    st.fixed_dictionaries({"i": st.integers(0, 2**31 - 1), "type": texts, "content": texts}), max_size=3
)
contents = st.fixed_dictionaries(
    {
        "trace_version": texts,
        "prompt": texts,
        "steps": steps,
        "final_answer": texts,
        "metadata": st.dictionaries(texts, values, max_size=3),
        "source": texts,
    }
)


@given(contents)
def test_the_digest_is_that_of_the_canonical_form(content: TraceContent) -> None:
    trace = rendered(content, 100)
    assert trace.content_digest == digest_json(content)


@given(contents)
def test_steps_and_metadata_read_back_as_they_were(content: Any) -> None:
    trace = rendered(content, 100)
    assert json.loads(trace.steps_json) == content["steps"]
    read, written = Struct(), Struct()
    read.update(json.loads(trace.metadata_json))
    written.update(content["metadata"])
    assert read == written
