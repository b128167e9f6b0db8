"""What redaction replaces, what it leaves alone, and that nothing else of a trace changes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.conversations import call, conversation, turn
from tunix_rt import v1
from tunix_rt.redaction import KINDS, Redactor, UnknownKindError

PLANTED = {
    "EMAIL": [
        "ann@example.com",
        "j\u00f6rg.m\u00fcller+x@b\u00fccher.example",
        "o'brien_1@mail.example.co.uk",
    ],
    "PHONE": [
        "+1 415 555 2671",
        "(415) 555-2671",
        "415-555-2671",
        "+49 (0)30 901820",
        "0171 2345678",
        "06.12.34.56.78",
    ],
    "CARD": ["4111 1111 1111 1111", "5555555555554444", "3782 822463 10005", "6011-1111-1111-1117"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606"],
    "IP_ADDRESS": ["203.0.113.7", "10.1.2.33", "2001:db8::8a2e:370:7334"],
    "AWS_KEY": ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"],
    "GITHUB_TOKEN": ["ghp_16C7e42F292c6912E7710c838347Ae178B4a", "github_pat_11ABCDEFG0aBcDeFgHiJkL_mNoPq"],
    "API_KEY": [
        "sk-proj-4f9Xq7LmZr2TvB8nKcW1",
        "sk-ant-api03-Zz9Yy8Xx7Ww6Vv5",
        "sk-abcdefghijklmnopqrstuvwxyz",
        "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    ],
    "SLACK_TOKEN": ["xoxb-123456789012-AbCdEfGhIjKl", "xapp-1-A0123-4567-abcdef"],
    "JWT": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"],
    "PRIVATE_KEY": ["-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq\n-----END RSA PRIVATE KEY-----"],
    "PASSWORD": ["ann:s3cret@localhost"],
}
LEFT_ALONE = [
    "3.141592653589793, 1,234,567, 12 345 678 and 0.4111111111111111",
    "2024-01-02, 01.02.2024 12 Uhr, 12:30:45, from 09-10 to 11-12",
    "5 10 15 20 25 30 35 40 45 50",
    "1234567890123456 is no card: its check digit is wrong",
    "pip install x==1.2.3.4, version 1.2.3.4, v1.2.3.4, 127.0.0.1:8080, a[1::2], std::vector",
    "Bearer of bad news; Authorization: Bearer authentication",
    "risk-averse-behaviour-of-agents, sk-learn, task-1",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "@app.route, lodash@4.17.21, x @ y",
    "100 * 200 = 20000, +1 and -1, 2^10 = 1024, x = 1000000007",
]
# Texts around a value; what touches it is no letter or digit, which would make another value of it.
around = st.text(st.sampled_from('ab \u00e9\u4e2d,;!?\n"{}[]<>'), max_size=12)


def planted() -> st.SearchStrategy[str]:
    """A value, as it stands in a text."""
    values = [
        f"postgres://{value}/x" if kind == "PASSWORD" else value
        for kind in PLANTED
        for value in PLANTED[kind]
    ]
    return st.sampled_from(values)


texts = st.builds(lambda before, value, after: f"{before} {value} {after}", around, planted(), around)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(around | texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(around | texts, values, max_size=3)


@st.composite
def traces(draw: st.DrawFn) -> v1.Trace:
    """A trace of either form, with values anywhere."""
    metadata = draw(objects)
    if draw(st.booleans()):
        steps = [
            v1.TraceStep(i=i, type="reason", content=text)
            for i, text in enumerate(draw(st.lists(texts, max_size=3)))
        ]
        made = v1.Trace(
            trace_version="1.0", prompt=draw(texts), steps=steps, final_answer=draw(texts), source="mine"
        )
        made.metadata.update(metadata)
        return made
    text = draw(texts)
    cut = draw(st.integers(0, len(text)))
    arguments = json.dumps(
        draw(objects), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))
    )
    return conversation(
        turn("user", text[:cut], text[cut:]),
        turn("assistant", reasoning=draw(texts), tool_calls=[call("look_up", arguments, "c1")]),
        turn("tool", draw(texts | objects.map(json.dumps)), tool_call_id="c1", name="look_up"),
        turn("assistant", draw(texts)),
        tools=[{"name": "look_up", "description": draw(texts), "parameters": {"type": "object"}}],
        metadata=metadata,
    )


def strings(value: Any) -> list[str]:
    """All texts and keys of a trace, with those of JSON within texts."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    if not isinstance(value, str):
        return [json.dumps(value)]
    try:
        inside = json.loads(value)
    except ValueError:
        return [value]
    return [value, *(strings(inside) if isinstance(inside, (dict, list)) else [])]


def sent(trace: v1.Trace) -> list[str]:
    """Every text that goes to the server, and the texts that are read as one."""
    found = strings(MessageToDict(trace))
    return [*found, *("".join(part.text for part in message.content) for message in trace.messages)]


def shape(value: Any) -> Any:
    """A document without its texts."""
    if isinstance(value, dict):
        return sorted((shape(inner) for inner in value.values()), key=repr)
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "" if isinstance(value, str) else value


SPLIT_BEFORE_ITS_MARK = conversation(
    turn("user", "postgres:", "//ann:s3cret@localhost/x"), turn("assistant", "x")
)


@settings(max_examples=150, deadline=None)
@given(traces())
@example(SPLIT_BEFORE_ITS_MARK)
def test_no_value_is_sent_from_anywhere_and_the_rest_stays(trace: v1.Trace) -> None:
    before = v1.Trace()
    before.CopyFrom(trace)
    redactor = Redactor()
    redacted = redactor.trace(trace)
    found = sent(redacted)
    for kind, planted_values in PLANTED.items():
        for value in planted_values:
            assert not any(value in text for text in found), kind
    assert trace == before
    assert shape(MessageToDict(before.metadata)) == shape(MessageToDict(redacted.metadata))
    assert [step.i for step in redacted.steps] == [step.i for step in before.steps]
    for old, new in zip(before.messages, redacted.messages, strict=True):
        assert (old.role, len(old.content), old.tool_call_id) == (
            new.role,
            len(new.content),
            new.tool_call_id,
        )
        for was, is_now in zip(old.tool_calls, new.tool_calls, strict=True):
            assert shape(json.loads(was.arguments_text)) == shape(json.loads(is_now.arguments_text))
    again = Redactor()
    assert again.trace(redacted) == redacted
    assert not again.counts
    assert Redactor().trace(trace).SerializeToString(deterministic=True) == redacted.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in PLANTED for value in PLANTED[kind]])
@pytest.mark.parametrize("text", ["{}", "see {}.", '"{}"', "\u8bf7\u770b{}\u8c22\u8c22", "a, {}; b", "({})"])
def test_a_value_of_each_kind_becomes_a_placeholder_of_that_kind(kind: str, value: str, text: str) -> None:
    whole = f"postgres://{value}/x" if kind == "PASSWORD" else value
    redactor = Redactor()
    redacted = redactor.text(text.format(whole))
    assert redacted.startswith(text.format("\0").partition("\0")[0])
    assert f"<{kind}_1>" in redacted
    assert value not in redacted
    assert redactor.counts == {kind: 1}


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_is_no_such_value_stays(text: str) -> None:
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Authorization: Bearer abc123def456", "Authorization: Bearer <BEARER_TOKEN_1>"),
        ("ann@example.com, Ann@Example.com, bob@example.com", "<EMAIL_1>, <EMAIL_1>, <EMAIL_2>"),
        ("4111 1111 1111 1111 or 4111111111111111, 12/25", "<CARD_1> or <CARD_1>, 12/25"),
        ("<EMAIL_1> is ann@example.com", "<EMAIL_1> is <EMAIL_2>"),
        ("phone: 4155552671; 4155552671 again", "phone: <PHONE_1>; <PHONE_1> again"),
        ('{"a": "ann\\u0040example.com", "a": 1e3}', '{"a": "<EMAIL_1>", "a": 1e3}'),
        (
            '{"phone": 4155552671, "n": 12345678901234567890}',
            '{"phone": "<PHONE_1>", "n": 12345678901234567890}',
        ),
        ('{"authorization":"Bearer abc123def"}', '{"authorization":"Bearer <BEARER_TOKEN_1>"}'),
        ("https://x.example/?mail=ann%40example.com", "https://x.example/?mail=<EMAIL_1>"),
        (
            "-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bqAAAA\nMIIE and more",
            "<PRIVATE_KEY_1>\nMIIE and more",
        ),
        (
            "aws_secret_access_key = " + "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "aws_secret_access_key = <AWS_KEY_1>",
        ),
    ],
)
def test_how_values_are_replaced(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


def test_a_key_that_stands_in_several_steps_is_found() -> None:
    steps = [
        "Read -----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED",
        "MIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY----- done",
    ]
    trace = v1.Trace(steps=[v1.TraceStep(i=i, content=text) for i, text in enumerate(steps)])
    redacted = Redactor().trace(trace)
    assert [step.content for step in redacted.steps] == ["Read <PRIVATE_KEY_1>", " done"]


def test_two_keys_of_one_object_stay_two() -> None:
    trace = v1.Trace(prompt="x")
    trace.metadata.update({"ann@example.com": 1, "Ann@example.com": 2})
    redacted = Redactor().trace(trace)
    assert sorted(redacted.metadata.fields) == ["<EMAIL_1>", "<EMAIL_2>"]
    assert re.fullmatch(r"<EMAIL_\d>", Redactor().text("ANN@example.com"))


def test_kinds_can_be_skipped() -> None:
    assert Redactor(["IP_ADDRESS"]).text("ann@10.1.2.33 bob@example.com") == "ann@10.1.2.33 <EMAIL_1>"
    assert set(PLANTED) | {"BEARER_TOKEN"} == set(KINDS)
    with pytest.raises(UnknownKindError, match="'NAME' is no kind; expected one of PRIVATE_KEY, "):
        Redactor(["NAME"])


def test_nothing_found_gives_the_same_trace() -> None:
    trace = v1.Trace(prompt="What is 2 + 3?")
    assert Redactor().trace(trace) is trace


@pytest.mark.parametrize(
    "text",
    [
        "export OPENAI_API_KEY=abcd1234efgh5678",
        '{"api_key": "abcd1234efgh5678"}',
        '{"body": "{\\"client_secret\\": \\"abcd1234efgh5678\\"}"}',
        "access_token: 'abcd1234efgh5678'",
    ],
)
def test_a_key_is_known_by_its_name_where_nothing_else_tells_it(text: str) -> None:
    found = Redactor().text(text)
    assert found == text.replace("abcd1234efgh5678", "<API_KEY_1>")
    for plain in ("api_key = settings_of_v2_here.get()", "API_KEY=your_api_key_goes_here"):
        assert Redactor().text(plain) == plain
