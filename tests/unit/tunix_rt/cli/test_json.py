"""What commands write with `--json`: documents as their schemas say, errors included, and nothing else."""

from __future__ import annotations

import importlib.abc
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checked_documents
import pytest
import typer
from checked_documents import SCHEMAS, UndocumentedJson, check
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from support.threaded import fake_server
from tunix_rt import v1
from tunix_rt.cli.__main__ import main as entry_point
from tunix_rt.cli.documents import STDERR, Extended, Lines, as_document, kind_name
from tunix_rt.cli.main import app
from tunix_rt.cli.session import Session, SharedOptions

ROOT: Any = typer.main.get_command(app)


def commands(group: Any = ROOT) -> Iterator[tuple[str, Any]]:
    for word in group.list_commands(None):
        command = group.get_command(None, word)
        if hasattr(command, "list_commands"):
            yield from ((f"{word} {inner}", one) for inner, one in commands(command))
        else:
            yield word, command


COMMANDS = dict(commands())
KINDS = {
    kind_name(kind): kind
    for command in COMMANDS.values()
    for kind in command.callback.prints
    if not isinstance(kind, Lines)
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def error(result: Result) -> dict[str, Any]:
    """The one document on stderr, with nothing else there and nothing on stdout."""
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    document: dict[str, Any] = json.loads(line)
    assert document["exit_code"] == result.exit_code
    return document


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_says_what_it_writes_as_json(words: str) -> None:
    kinds = COMMANDS[words].callback.prints
    told = f"give the @command of `tunix-rt {words}` a prints=KIND, which --json writes; then run: make proto"
    assert kinds, told
    names = [kind.kind if isinstance(kind, Lines) else kind for kind in kinds]
    missing = [
        name for name in map(kind_name, filter(None, names)) if not (SCHEMAS / f"{name}.json").is_file()
    ]
    assert not missing, f"docs/reference/json lacks {missing}; run: make proto"


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_schemas_are_schemas_of_their_own(path: Path) -> None:
    schema = json.loads(path.read_text())
    Draft202012Validator.check_schema(schema)
    referred = {text.split('"')[0] for text in path.read_text().split('"#/$defs/')[1:]}
    assert referred == set(schema["$defs"])


MESSAGES = {name: kind for name, kind in KINDS.items() if hasattr(kind, "DESCRIPTOR")}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_the_same_fields_whatever_is_set(name: str) -> None:
    empty, full = MESSAGES[name](), filled(MESSAGES[name]())
    documents = [as_document(message) for message in (empty, full)]
    for document in documents:
        check(document, [name])
    assert list(documents[0]) == list(documents[1]) == [field.name for field in empty.DESCRIPTOR.fields]


def filled(message: Any, depth: int = 6) -> Any:
    """The message with something in each field, and in all that it holds."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.GetOptions().map_entry:
            values = getattr(message, field.name)
            values["b"] = values["a"] = 7 if field.message_type.fields_by_name["value"].cpp_type < 3 else "7"
        elif field.message_type:
            inner = getattr(message, field.name)
            inner = inner.add() if field.is_repeated else inner
            fill_in(inner, depth)
        else:
            value = scalar(field)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
    return message


def fill_in(message: Message, depth: int) -> None:
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.Struct":
            message.update({"n": 3, "half": 0.5, "deep": {"z": [1, None], "a": -0.0}})  # type: ignore[attr-defined]
        case "google.protobuf.Value":
            message.number_value = 3  # type: ignore[attr-defined]
        case "google.protobuf.Any":
            from google.rpc.error_details_pb2 import ErrorInfo

            message.Pack(ErrorInfo(reason="R", domain="tunix-rt"))  # type: ignore[attr-defined]
        case "google.protobuf.Timestamp" | "google.protobuf.Duration":
            message.seconds = 90  # type: ignore[attr-defined]
        case _:
            message.SetInParent()
            if depth:
                filled(message, depth - 1)


def scalar(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kinds = {field.CPPTYPE_STRING: "text", field.CPPTYPE_BOOL: True, field.CPPTYPE_DOUBLE: 0.5}
    return b"bytes" if field.type == field.TYPE_BYTES else kinds.get(field.cpp_type, 7)


def test_numbers_are_numbers_and_seeds_of_64_bits_strings() -> None:
    spec = as_document(v1.TrainingSpec(seed=2**64 - 1, max_steps=10))
    assert (spec["seed"], spec["max_steps"], spec["epochs"]) == (str(2**64 - 1), 10, None)
    assert as_document(v1.TrainingSpec())["seed"] == "0"
    assert as_document(v1.TrainingPlan(memory_bytes={"weights": 5}))["memory_bytes"] == {"weights": 5}
    assert as_document(v1.Trace(sequence=2**40))["sequence"] == 2**40


def test_integers_of_metadata_stay_integers() -> None:
    trace = v1.Trace()
    trace.metadata.update({"count": 3, "share": 0.25, "inner": {"b": [1, 2.5], "a": 1e300}, "nothing": None})
    shown = json.dumps(as_document(trace)["metadata"])
    assert shown == '{"count": 3, "inner": {"a": 1e+300, "b": [1, 2.5]}, "nothing": null, "share": 0.25}'
    assert as_document(v1.Trace())["metadata"] == {}


def test_of_the_kinds_of_a_grader_the_chosen_one_is_there() -> None:
    item = v1.EvalItem(id="a", grader=v1.Grader(numeric=v1.NumericGrader(tolerance=0.5)))
    grader = as_document(item)["grader"]
    assert list(grader) == ["numeric"]
    assert (grader["numeric"]["tolerance"], grader["numeric"]["relative_tolerance"]) == (0.5, None)
    assert as_document(v1.EvaluationSpec(checkpoint="c"))["base_model"] is None


def test_a_job_that_failed_says_why_as_json() -> None:
    job = v1.TrainingJob(state=v1.TrainingJob.STATE_FAILED)
    job.error.code = 3
    fill_in(job.error.details.add(), 0)
    document = as_document(job)
    check(document, ["training-job"])
    [detail] = document["error"]["details"]
    assert (detail["reason"], detail["metadata"]) == ("R", {})


@pytest.mark.parametrize(
    ("arguments", "option", "told"),
    [
        (["traces", "list", "--limt", "3"], "--limt", "No such option"),
        (["traces", "list", "--limit", "many"], "--limit", "should be a valid integer"),
        (["traces", "list", "--limit"], "--limit", "requires an argument"),
        (["traces", "show"], "TRACE", "Missing argument"),
        (["train", "start", "-m", "tiny"], "--dataset", "Missing option"),
        (["trace", "list"], None, "No such command 'trace'"),
        (["runs", "list"], None, "Here it is called 'train'"),
        (["train", "rename", "a"], None, "Here it is called 'update'"),
        (["evaluation", "rm", "a"], None, "Here it is called 'delete'"),
        (["train", "list", "--tag", "a,b"], "--tag", "for several: --tag a --tag b"),
        (["evalset", "import", "x"], None, "give a FILE or --from-dataset"),
        (["evalset", "import", "x", "t", "-f", "gsm8k", "--grader", "no"], "--grader", "no grader"),
        (["traces", "generate", "--families", "alchemy"], None, "alchemy"),
        (["up", "--port", "50917"], "--port", "give --listen 127.0.0.1:50917"),
        (["up", "--host", "0.0.0.0", "--port", "1"], "--host", "give --listen 0.0.0.0:1"),
    ],
)
def test_wrong_usage_is_a_document(arguments: list[str], option: str | None, told: str) -> None:
    for given in ([*arguments, "--json"], ["--json", *arguments]):
        # An option without its argument would take what comes next.
        if given[-2] == "--limit":
            continue
        found = error(run(*given))
        assert (found["code"], found["reason"], found["exit_code"]) == ("INVALID_ARGUMENT", "USAGE", 2)
        assert told in found["message"]
        assert [violation["option"] for violation in found["violations"]] == ([option] if option else [])


def test_a_group_without_a_command_is_wrong_usage() -> None:
    for given in (["--json", "traces"], ["--json"]):
        assert error(run(*given))["message"] == "Missing command."


def test_an_error_of_the_server_is_a_document(tmp_path: Path) -> None:
    found = error(run("traces", "import", str(tmp_path / "none.jsonl"), "--json"))
    assert found["exit_code"] == 1
    assert "none.jsonl" in found["message"]


@pytest.mark.parametrize(
    ("raised", "exit_code", "reason"),
    [
        (KeyboardInterrupt(), 130, "INTERRUPTED"),
        (SystemExit(143), 143, "TERMINATED"),
        (typer.Abort(), 1, "ABORTED"),
    ],
)
def test_what_ends_a_command_from_outside_is_a_document(
    raised: BaseException, exit_code: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Session) -> None:
        raise raised

    monkeypatch.setattr(Session, "connect", interrupted)
    found = error(run("traces", "list", "--json"))
    assert (found["exit_code"], found["reason"], found["code"]) == (exit_code, reason, "CANCELLED")


# A shell that runs the tests in the background makes them, and their children, ignore SIGINT.
_AS_IN_A_TERMINAL = (
    "import signal; from tunix_rt.cli.__main__ import main; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); main()"
)


@pytest.mark.parametrize(
    ("name", "exit_code", "reason"), [("SIGINT", 130, "INTERRUPTED"), ("SIGTERM", 143, "TERMINATED")]
)
def test_a_signal_leaves_a_document(name: str, exit_code: int, reason: str) -> None:
    number = signal.Signals[name]

    class Signalling(v1.TraceStoreServicer):
        """Signals to who calls, and gives no answer."""

        def ListTraces(self, _: v1.ListTracesRequest, __: Any) -> v1.ListTracesResponse:
            called.wait(10)
            process.send_signal(number)
            ended.wait(10)
            return v1.ListTracesResponse()

    called, ended = threading.Event(), threading.Event()
    with fake_server(lambda server: v1.add_TraceStoreServicer_to_server(Signalling(), server)) as address:
        process = subprocess.Popen(
            [sys.executable, "-c", _AS_IN_A_TERMINAL, "traces", "list", "--json", "--server", address],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        called.set()
        out, err = process.communicate(timeout=30)
        ended.set()
    assert (process.returncode, out) == (exit_code, ""), err
    document = json.loads(err)
    assert (document["exit_code"], document["reason"]) == (exit_code, reason)


@pytest.mark.parametrize(
    ("name", "exit_code", "reason"), [("SIGINT", 130, "INTERRUPTED"), ("SIGTERM", 143, "TERMINATED")]
)
def test_a_signal_while_the_command_line_is_loaded_is_told_too(
    name: str,
    exit_code: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Signalling(importlib.abc.MetaPathFinder):
        """Signals to this process when it loads the command line."""

        def find_spec(self, module: str, *_: Any) -> None:
            if module == "tunix_rt.cli.main":
                signal.raise_signal(signal.Signals[name])

    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.delitem(sys.modules, "tunix_rt.cli.main")
    monkeypatch.setattr(sys, "meta_path", [Signalling(), *sys.meta_path])
    told = []
    try:
        for option in ("--json", "--limit=1"):
            monkeypatch.setattr(sys, "argv", ["tunix-rt", "traces", "list", option])
            with pytest.raises(SystemExit) as left:
                entry_point()
            assert left.value.code == exit_code
            told.append(capsys.readouterr().err)
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    document = json.loads(told[0])
    check(document, ["error"])
    assert (document["exit_code"], document["reason"]) == (exit_code, reason)
    assert told[1] == f"error: {document['message']}\n"


def test_help_and_version_are_no_documents() -> None:
    assert run("traces", "list", "--json", "--help").stdout.strip().startswith("Usage:")
    assert run("--version", "--json").stdout.startswith("tunix-rt ")


def test_an_undocumented_field_fails(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(SharedOptions(as_json=True), prints=(KINDS["deleted-resources"],))
    session.print_json({"deleted": ["traces/a"]})
    for wrong in ({"deleted": [], "more": 1}, {"deleted": None}, {}):
        with pytest.raises(UndocumentedJson, match=r"deleted-resources\.json"):
            session.print_json(wrong)
    with pytest.raises(UndocumentedJson, match="make proto"):
        Session(SharedOptions(), prints=(Extended("Nowhere", None, None),)).print_json({})
    assert json.loads(capsys.readouterr().out) == {"deleted": ["traces/a"]}


def test_documents_are_checked_where_all_of_them_are_written() -> None:
    assert checked_documents.__name__ in sys.modules
    assert {kind_name(kind) for kind in STDERR} == {"error", "notice"}
    session = sys.modules["tunix_rt.cli.session"]
    assert session.document_text.__module__ == checked_documents.__name__  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["traces", "generate", "-n", "20", "-o", "-"], "trace-line"),
        (["evalset", "generate", "e", "-n", "20", "-o", "-"], "eval-item-line"),
    ],
)
def test_lines_are_as_their_schema_says(arguments: list[str], kind: str) -> None:
    lines = run(*arguments).stdout.splitlines()
    assert len(lines) == 20
    for line in lines:
        check(json.loads(line), [kind])
