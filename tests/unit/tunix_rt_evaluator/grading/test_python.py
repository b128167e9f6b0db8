"""Graders that users write: what they may return, what stops them, and what they cannot reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.timing import cheaply
from tunix_rt_evaluator.eval_sets.model import EvalItem
from tunix_rt_evaluator.grading import python_worker
from tunix_rt_evaluator.grading.graders.python import PythonGraders
from tunix_rt_evaluator.grading.model import Verdict
from tunix_rt_evaluator.grading.service import Grading
from tunix_rt_kit.canonical import digest_bytes
from tunix_rt_kit.errors import FailedPrecondition

WHOLE = "def grade(output, item):\n"


@pytest.fixture(scope="module")
def grading() -> Iterator[Grading]:
    made = Grading(python=PythonGraders("sandboxed", cpu_s=1))
    yield made
    made.close()


def item(source: str, **settings: Any) -> EvalItem:
    grader = {"kind": "python", "source": source} | settings
    return EvalItem(
        id="q1",
        prompt="7 * 8?",
        accepted_answers=("56",),
        grader=grader,
        category="sums",
        metadata={"level": 3},
    )


def graded(grading: Grading, body: str, output: str = "It is 56", **settings: Any) -> Verdict:
    return grading.grade(item(f"{WHOLE}    {body}\n", **settings), output)


def problem(grading: Grading, source: str, **settings: Any) -> str:
    """What is wrong with a source before it grades anything."""
    settled = item(source, **settings).grader
    found = [description for _, description in grading.settings_problems(settled, ())]
    return found[0] if found else next(iter(grading.admitted([settled], keep=False)))[1]


@pytest.mark.parametrize(
    ("body", "correct", "score"),
    [
        ("return output.endswith(item['accepted_answers'][0])", True, None),
        ("return item['metadata']['level'] == 4", False, None),
        ("return 0.5", True, 0.5),
        ("return 0.49", False, 0.49),
        ("return 1", True, 1.0),
        ("return {'score': True}", True, None),
        (
            "return item['prompt'] == '7 * 8?' and item['category'] == 'sums' and item['id'] == 'q1'",
            True,
            None,
        ),
        ("return item['truncated']", False, None),
    ],
)
def test_a_grade_is_what_the_function_returns(
    grading: Grading, body: str, correct: bool, score: float | None
) -> None:
    verdict = graded(grading, body)
    assert (verdict.error, verdict.correct, verdict.score) == ("", correct, score)


def test_a_result_may_say_what_it_read_and_why(grading: Grading) -> None:
    verdict = graded(grading, "return {'score': 0.7, 'answer': '56', 'explanation': 'close'}", threshold=0.8)
    assert verdict == Verdict(extracted_answer="56", correct=False, score=0.7, explanation="close")


def test_an_output_that_was_cut_is_graded_and_the_function_is_told(grading: Grading) -> None:
    source = f"{WHOLE}    return item['truncated']\n"
    assert grading.grade(item(source), "It is 5", cut=True).correct


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("return 1 / 0", "line 2, `return 1 / 0`, raises ZeroDivisionError: division by zero"),
        ("raise SystemExit", "line 2, `raise SystemExit`, raises SystemExit"),
        ("return 'yes'", "returned 'yes' (str); True, False or a number from 0 to 1 would be right"),
        ("return None", "returned None (NoneType); True"),
        ("return 2.0", "returned 2.0 (float); True"),
        ("return -0.1", "returned -0.1 (float); True"),
        ("return float('nan')", "returned nan (float); True"),
        ("return float('inf')", "returned inf (float); True"),
        ("return [True]", "returned [True] (list); True"),
        ("return {'score': 1, 'reason': ''}", "holds reason; score, answer and explanation would be right"),
        ("return {'explanation': ''}", "holds no score; score"),
        ("return {'score': 1, 'answer': 5}", "returned 5 (int) as answer; a text would be right"),
        ("return len('x' * (1 << 30)) > 0", "needs more than 512 MiB of memory"),
        ("return grade(output, item)", "raises RecursionError"),
        ("return open('/etc/passwd').read() == ''", "raises PermissionError: a grader may not open files"),
        ("return __import__('soc' + 'ket') is None", "raises ImportError: a grader may not import socket"),
        ("import datetime; return datetime.date.today().year > 0", "a grader has no clock"),
    ],
)
def test_what_is_no_grade_is_an_error_and_neither_right_nor_wrong(
    grading: Grading, body: str, why: str
) -> None:
    verdict = graded(grading, body)
    assert why in verdict.error
    assert verdict.error.startswith("the grader grade gave no grade: ")
    assert not verdict.correct


def test_a_grader_that_loops_is_ended_and_the_next_answer_is_graded(
    grading: Grading,
) -> None:
    verdict = graded(grading, "while True: pass")
    assert verdict.error.endswith("it is not done after 1 s of CPU time")
    assert graded(grading, "return True").correct


# What a hostile grader finds in the modules that its own modules import.
REACH = "import statistics; system = statistics.sys.modules['os']; "


@pytest.mark.parametrize(
    "body",
    [
        "return system.fork() >= 0",
        "return system.open('/etc/passwd', 0) > 0",
        "return system.kill(system.getppid(), 9) is None",
        "return system.execv('/bin/true', ['true'])",
        "return len(system.listdir('/')) > 0",
        "return system.unlink('/tmp/x') is None",
        "return len(system.urandom(4)) == 4",
        "return statistics.sys.modules['_socket' if '_socket' in statistics.sys.modules else 'posix'].pipe()",
    ],
)
def test_the_kernel_keeps_a_grader_from_all_but_computing(grading: Grading, body: str) -> None:
    verdict = graded(grading, REACH + body)
    assert "PermissionError: [Errno 1]" in verdict.error or "NotImplementedError" in verdict.error


def test_a_grader_sees_no_variable_of_the_server(grading: Grading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNIX_RT_SECRET", "x")
    assert graded(grading, REACH + "return dict(system.environ) == {}").correct


def test_nothing_of_one_answer_reaches_another(grading: Grading) -> None:
    source = "seen = []\n" + WHOLE + "    seen.append(output)\n    return len(seen) == 1\n"
    assert all(grading.grade(item(source), str(number)).correct for number in range(3))


# What an attacker does: read the process's own memory around an object, a page at a time.
SEARCH = """
import json, re
def grade(output, item):
    ctypes = json.codecs.builtins.__import__('sys').modules['ctypes']
    lowest, found = id(bytes(3000)) & ~0xFFF, b''
    for page in range(120):
        found = ctypes.string_at(lowest - 4096 * page, 4096) + found
    word = ''.join(('SECRET', '-', r'[A-Z]+'))
    others = {each for each in re.findall(word.encode(), found)} - {b'SECRET' + b'-OWN'}
    return {'score': not others, 'explanation': ', '.join(map(repr, sorted(others)))}
"""


def test_no_caller_reads_what_another_sent_or_was_answered(grading: Grading) -> None:
    filler = "#" + "p" * 3_000
    for number in range(3):
        source = f"{filler}\n{WHOLE}    return {{'score': 1, 'explanation': 'SECRET-' + 'ANSWERED' * 400}}\n"
        sent = f"{source}# SECRET-VICTIM {number}{filler}"
        assert grading.grade(item(sent), f"SECRET-OUTPUT {filler}").correct
    verdict = grading.grade(item(SEARCH), "SECRET-OWN")
    assert (verdict.error, verdict.explanation, verdict.correct) == ("", "", True)


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_a_grader_may_have_dataclasses(grading: Grading, future: str) -> None:
    source = (
        f"{future}from dataclasses import dataclass\nfrom typing import ClassVar\n@dataclass\nclass Found:\n"
        f"    text: str\n    most: ClassVar[int] = 3\n{WHOLE}    return Found(output).text == output\n"
    )
    assert grading.grade(item(source), "5").correct


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        ("(x for x in output)", "a generator"),
        ("map(str, output)", "a map"),
        ("grade", "a function"),
        ("object()", "an object"),
        ("{'score': 1, 'answer': object()}", "an object as answer"),
    ],
)
def test_an_object_is_no_grade_and_not_taken_for_two(grading: Grading, returned: str, kind: str) -> None:
    assert f"returned {kind}" in graded(grading, f"return {returned}").error


def test_an_error_that_names_an_object_is_one_error(grading: Grading) -> None:
    assert "ValueError: <object object at 0x...>" in graded(grading, "raise ValueError(object())").error


@pytest.mark.parametrize("number", ["Fraction(1, 2)", "Decimal('0.5')"])
def test_exact_numbers_are_grades(grading: Grading, number: str) -> None:
    body = f"from fractions import Fraction; from decimal import Decimal; return {number}"
    assert graded(grading, body).score == 0.5
    assert "would be right" in graded(grading, body + " + 1").error


def test_a_decimal_that_is_no_number_is_no_grade(grading: Grading) -> None:
    body = "from decimal import Decimal; return Decimal('{}')"
    assert "would be right" in graded(grading, body.format("nan")).error
    assert "gave no grade" in graded(grading, body.format("snan")).error


GRADE = '{"score": 1.0, "graded": true, "answer": "%s", "explanation": ""}'


@pytest.mark.parametrize(
    "reply",
    [
        GRADE % "\\ud800",
        GRADE % "\\u0000",
        GRADE % ("x" * 30_000),
        '{"error": "\\ud800\\u0000"}',
        '{"error": [1]}',
        '{"score": ' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"score": ' + "9" * 5_000 + "}",
        '{"score": NaN, "graded": true, "answer": "", "explanation": ""}',
        "[]",
        "\\xff",
    ],
)
def test_a_forged_reply_is_no_grade_and_the_next_answer_is_graded(grading: Grading, reply: str) -> None:
    # Its pipe is the only file that is open behind the standard ones.
    write = "[write(n, output.encode()) for n in range(3, 64)]; system._exit(0)"
    body = REACH + "system.write and None\n    def write(n, data):\n        try: system.write(n, data)\n"
    body += f"        except OSError: pass\n    {write}"
    verdict = graded(grading, body, reply)
    assert verdict.error
    assert not verdict.correct
    verdict.error.encode()
    assert "\0" not in verdict.error
    assert graded(grading, "return True").correct


def test_modules_that_compute_may_be_imported(grading: Grading) -> None:
    body = (
        "import datetime, re, decimal, fractions; return datetime.datetime.strptime('2024-02-29', '%Y-%m-%d')"
    )
    assert graded(grading, body + ".strftime('%d') == '29' and re.search('5.', output) is not None").correct


@pytest.mark.parametrize(
    "body",
    [
        "import statistics; return statistics.NormalDist().samples(1)[0] % 1",
        "return (id(object()) >> 12) % 997 / 997",
        REACH + "return statistics.sys.modules['time'].time() % 1",
    ],
)
def test_a_grader_that_differs_between_two_calls_is_refused_by_name(grading: Grading, body: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        graded(grading, body)
    assert caught.value.reason == "GRADER_NOT_DETERMINISTIC"
    assert "graded one answer to item 'q1' twice and differently" in caught.value.message


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def grade(:", f"line 1: it is no Python {python_worker._python()}: invalid syntax"),
        ("x = 1", "it has no function grade; it defines no function"),
        ("def score(output, item): return 1", "it has no function grade; its functions are score"),
        ("grade = 5", "it has no function grade"),
        ("def grade(output): return 1", "grade(output) cannot be called as grade(output, item)"),
        ("def grade(a, b, c): return 1", "cannot be called as grade(output, item)"),
        ("async def grade(output, item): return 1", "grade is asynchronous or a generator"),
        (
            "import socket\n" + WHOLE + "  return 1",
            "line 1: a grader may not import socket: it has no network",
        ),
        (WHOLE + "  from urllib.request import urlopen\n", "line 2: a grader may not import urllib.request"),
        ("from . import x\n" + WHOLE + "  return 1", "line 1: a grader may not import ."),
        ("import random\n" + WHOLE + "  return 1", "may not import random: the same answer must always get"),
        (WHOLE + "  return 1\n1 / 0", "line 3, `1 / 0`, raises ZeroDivisionError"),
        ("while True: pass", "it is not done after 1 s of CPU time"),
        ("-" * 30_000 + "1", "it nests too deep"),
        ("(" * 1_000, "too many nested parentheses"),
        ("x\0", "holds a NUL character"),
        ("x" * 65_537, "has 65,537 bytes; at most 65,536 would be right"),
        ("", "is empty; the source code of a Python module would be right"),
    ],
)
def test_what_is_wrong_with_a_source_is_said_before_it_grades(
    grading: Grading, source: str, why: str
) -> None:
    assert why in problem(grading, source)


def test_a_source_that_is_not_kept_is_asked_for(grading: Grading) -> None:
    assert "is not known here" in problem(grading, "", source_digest=f"sha256:{'0' * 64}")


def test_the_version_names_the_source_and_the_function(grading: Grading) -> None:
    source = WHOLE + "  return 1"
    version = grading.version(item(source).grader)
    assert version.startswith(f"python/1 source={digest_bytes(source.encode())} function=grade python=3.")
    assert grading.version(item(source + " ").grader) != version


def test_a_stored_grader_keeps_its_digest_and_not_its_source() -> None:
    settled = item(WHOLE + "  return 1").grader
    assert "source" not in settled.stored().model_dump()
    assert settled.stored().digest == settled.digest


def test_nobodys_grader_runs_unless_the_server_allows_it() -> None:
    grading = Grading()
    for act in (
        lambda: graded(grading, "return True"),
        lambda: list(grading.admitted([item(WHOLE + "  return 1").grader])),
    ):
        with pytest.raises(FailedPrecondition) as caught:
            act()
        assert caught.value.reason == "PYTHON_GRADERS_OFF"
        assert "TUNIX_RT_EVALUATOR_PYTHON_GRADERS=sandboxed" in caught.value.message
    grading.close()


def test_where_the_kernel_cannot_close_the_process_only_ones_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_worker, "_CALLS", {})
    sandboxed, own = PythonGraders("sandboxed"), PythonGraders("trusted")
    with pytest.raises(FailedPrecondition) as caught:
        sandboxed.require_allowed()
    assert caught.value.reason == "PYTHON_GRADERS_NOT_CONFINED"
    assert "files, other processes and the network" in caught.value.message
    own.require_allowed()
    assert own.warnings[0].startswith("this computer cannot keep a grader from files")


def test_a_kernel_that_refuses_the_filter_runs_nobody_elses_grader(tmp_path: Path) -> None:
    """As on an unknown processor: the worker itself refuses, whatever the server thinks of its platform."""
    script = tmp_path / "worker.py"
    text = Path(python_worker.__file__).read_text()
    script.write_text(text.replace("refused: int = library", "refused: int = 1 or library"))
    graders = PythonGraders("sandboxed")
    for worker in graders._workers:
        worker._script = script
    with pytest.raises(FailedPrecondition) as caught:
        graders.problem(item(WHOLE + "  return 1").grader)
    assert caught.value.reason == "PYTHON_GRADERS_NOT_CONFINED"
    graders.close()


def test_a_hundred_answers_take_a_second_or_two(grading: Grading) -> None:
    with cheaply(10):
        for number in range(100):
            assert graded(grading, "return True", str(number)).correct
