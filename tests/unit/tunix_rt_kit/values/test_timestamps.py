from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tunix_rt_kit.convert import timestamp


@given(st.datetimes(timezones=st.timezones()))
def test_a_moment_is_the_same_as_a_timestamp(moment: datetime) -> None:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return
    expected = Timestamp()
    expected.FromDatetime(moment)
    assert timestamp(moment) == expected
