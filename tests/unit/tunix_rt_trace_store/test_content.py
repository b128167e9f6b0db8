from __future__ import annotations

import json
from typing import Any

from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt import v1
from tunix_rt_kit.canonical import digest_json
from tunix_rt_trace_store import convert
from tunix_rt_trace_store.traces.model import TraceContent
from tunix_rt_trace_store.traces.validation import rendered

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
# Adding 0.0 makes 0.0 of -0.0, which canonical JSON writes as 0 and messages tell from it.
floats = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | floats
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
    trace = rendered(content, b"encoded")
    assert trace.content_digest == digest_json(content)


def message_of(content: Any) -> v1.Trace:
    written = dict(content)
    metadata = written.pop("metadata")
    message = v1.Trace(**{**written, "steps": [v1.TraceStep(**step) for step in written["steps"]]})
    message.metadata.update(metadata)
    return message


@given(contents)
def test_a_trace_reads_back_as_it_was_written(content: Any) -> None:
    written = message_of(content)
    draft = convert.draft(written)
    assert convert.content(draft.encoded) == draft.content
    assert v1.Trace.FromString(draft.encoded) == written


@given(contents)
def test_filters_see_the_metadata_as_it_was_written(content: Any) -> None:
    read, written = Struct(), Struct()
    read.update(json.loads(rendered(content, b"encoded").metadata_json))
    written.update(content["metadata"])
    assert read == written


def test_what_the_contract_lacks_or_the_server_gives_is_not_kept() -> None:
    plain = v1.Trace(trace_version="1.0", prompt="p", steps=[v1.TraceStep(i=1, type="t", content="c")])
    written = v1.Trace.FromString(plain.SerializeToString() + b"\xf2\x3f\x04more")
    written.name, written.sequence, written.content_digest = "traces/mine", 7, "sha256:no"
    assert convert.draft(written) == convert.draft(plain)
