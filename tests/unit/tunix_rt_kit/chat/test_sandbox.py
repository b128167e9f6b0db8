"""A model's own Jinja template: what it may do, and that it cannot do harm."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection

import psutil
import pytest

from tunix_rt_kit.chat.sandbox import (
    CHILDREN,
    MAX_RENDERED_CHARS,
    MAX_SOURCE_BYTES,
    Beginnings,
    JinjaSandbox,
)
from tunix_rt_kit.errors import InvalidArgument

HELLO = {"messages": [{"role": "user", "content": "<b>héllo</b>"}], "add_generation_prompt": False}


@pytest.fixture(scope="module")
def sandbox() -> JinjaSandbox:
    return JinjaSandbox(cpu_seconds=1.0, wall_seconds=20)


def render(sandbox: JinjaSandbox, source: str) -> str:
    return sandbox.render(source, [HELLO])[0]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "user", "content": "<b>héllo</b>"}'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=True, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% for i in range(4) %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "013"),
        ("{% generation %}a{% endgeneration %}b", "ab"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),
        ("{{ missing }}{{ strftime_now is defined }}", "False"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = 7 %}{% endfor %}{{ ns.n }}", "7"),
    ],
)
def test_what_templates_need_works(sandbox: JinjaSandbox, source: str, text: str) -> None:
    assert render(sandbox, source) == text


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% for m in messages %}", "does not parse: line 1"),
        ("\n\n{{ 1 + }}", "does not parse: line 3"),
        ("{{ strftime_now('%Y') }}", "'strftime_now' is undefined"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ ''.__class__ }}", "reaches for '__class__'"),
        ("{{ ''['__class__'] }}", "reaches for '__class__'"),
        ("{{ '' | attr('__class__') }}", "reaches for '__class__'"),
        ("{{ '{0.__class__}'.format('') }}", "reaches for '__class__'"),
        ("{{ cycler.__init__.__globals__.os }}", "reaches for '__init__'"),
        ("{{ messages.append(1) }}", "reaches for 'append'"),
        ("{{ messages[0].update(role='x') }}", "reaches for 'update'"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "1 s of CPU"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "nests too deep"),
        ("{{ 'x' * 10000000000 }}", "512 MiB of memory"),
        ("{{ ('x' * 99999).replace('x', 'x' * 99999) }}", "512 MiB of memory"),
        ("{{ '%*d' | format(2000000000, 1) }}", "512 MiB of memory"),
        ("{% for i in range(9999) %}{{ 'x' * 1000 }}{% endfor %}", f"more than {MAX_RENDERED_CHARS} char"),
        ("x" * (MAX_SOURCE_BYTES + 1), f"longer than {MAX_SOURCE_BYTES} bytes"),
    ],
    ids=lambda text: text[:40],
)
def test_a_template_that_fails_is_one_clear_error(sandbox: JinjaSandbox, source: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        render(sandbox, source)
    assert caught.value.reason == "CHAT_TEMPLATE_INVALID"
    assert caught.value.message.startswith("chat_template.jinja ")
    assert problem in caught.value.message
    assert "\n" not in caught.value.message
    assert render(sandbox, "still here") == "still here"


def test_a_template_may_refuse_a_conversation(sandbox: JinjaSandbox) -> None:
    with pytest.raises(InvalidArgument, match="refuses the conversation: no system role") as caught:
        render(sandbox, "{{ raise_exception('no system role') }}")
    assert caught.value.reason == "CHAT_MESSAGES_INVALID"


NO_SIGNAL_STOPS = "{% set a = range(99999) | list %}{{ ([a + [1]] * 99999).count(a + [2]) }}"


@pytest.mark.parametrize(
    ("wall_seconds", "problem"), [(0.5, r"is not done after 0\.6 s$"), (60.0, "0.1 s of CPU time")]
)
def test_code_that_no_signal_stops_is_killed(wall_seconds: float, problem: str) -> None:
    sandbox = JinjaSandbox(cpu_seconds=0.1, wall_seconds=wall_seconds)
    with pytest.raises(InvalidArgument, match=problem):
        render(sandbox, NO_SIGNAL_STOPS)
    assert render(sandbox, "again") == "again"
    sandbox.close()


def computing(before: Collection[psutil.Process] = ()) -> list[psutil.Process]:
    """The children that have a template which takes long: to start one takes less. Those that were there
    ``before`` may have worked for other tests."""
    children = [each for each in psutil.Process().children() if "jinja_worker.py" in each.cmdline()[-1]]
    return [child for child in children if child not in before and child.cpu_times().user > 1.5]


def test_nobody_waits_for_another_ones_template_that_hangs() -> None:
    before = psutil.Process().children()
    sandbox = JinjaSandbox(cpu_seconds=30.0)
    render(sandbox, "a child that is there")
    hung: list[InvalidArgument] = []

    def hang() -> None:
        try:
            render(sandbox, NO_SIGNAL_STOPS)
        except InvalidArgument as error:
            hung.append(error)

    threads = [threading.Thread(target=hang) for _ in range(CHILDREN - 1)]
    for thread in threads:
        thread.start()
    assert [render(sandbox, str(number)) for number in range(9)] == list("012345678")
    assert not hung
    deadline = time.monotonic() + 60
    while len(busy := computing(before)) < CHILDREN - 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    for child in busy:
        child.kill()
    for thread in threads:
        thread.join()
    assert len(hung) == CHILDREN - 1
    sandbox.close()


def test_all_that_a_request_holds_is_bounded_together(sandbox: JinjaSandbox) -> None:
    many = [{"text": "x" * 200_000}] * 3
    assert sandbox.render("{{ text }}", many) == ["x" * 200_000] * 3
    with pytest.raises(InvalidArgument, match=f"more than {MAX_RENDERED_CHARS} characters"):
        sandbox.render("{{ text * 20 }}", many)


def test_a_child_that_was_killed_is_started_again(sandbox: JinjaSandbox) -> None:
    assert render(sandbox, "a") == "a"
    assert sandbox.pid is not None
    os.kill(sandbox.pid, signal.SIGKILL)
    os.waitpid(sandbox.pid, 0)
    assert render(sandbox, "b") == "b"


def test_threads_share_one_sandbox(sandbox: JinjaSandbox) -> None:
    wrong: list[str] = []

    def work(name: str) -> None:
        wrong.extend(text for _ in range(50) if (text := render(sandbox, name)) != name)

    threads = [threading.Thread(target=work, args=(str(n) * 999,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _pid_seen_by_a_fork(sandbox: JinjaSandbox, queue: multiprocessing.Queue[int]) -> None:
    sandbox.render("x", [HELLO])
    assert sandbox.pid is not None
    queue.put(sandbox.pid)
    sandbox.close()


def test_a_forked_process_has_its_own_child(sandbox: JinjaSandbox) -> None:
    render(sandbox, "x")
    assert sandbox.pid is not None
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_pid_seen_by_a_fork, args=(sandbox, queue))
    process.start()
    pid = queue.get(timeout=20)
    process.join(20)
    assert process.exitcode == 0
    assert pid != sandbox.pid
    assert render(sandbox, "mine") == "mine"
    os.kill(sandbox.pid, 0)


SLOW_FOR_SOME = (
    "{% for m in messages %}{% if m == 'slow' %}"
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    "{% endif %}{{ m }}{% endfor %}"
)


def beginnings(sandbox: JinjaSandbox, *conversations: list[str]) -> list[list[str] | str]:
    wanted = [
        Beginnings({"messages": said}, [(count, False) for count in range(len(said), 0, -1)])
        for said in conversations
    ]
    found = sandbox.render_beginnings(SLOW_FOR_SOME, wanted)
    return [
        each.message if isinstance(each, InvalidArgument) else [text.text for text in each] for each in found
    ]


def test_one_conversation_that_takes_too_long_is_that_one() -> None:
    quick = JinjaSandbox(cpu_seconds=0.05, wall_seconds=20)
    first, slow, last = beginnings(quick, ["a", "b"], ["slow"], ["c"])
    assert (first, last) == (["ab", "a"], ["c"])
    assert "is not done after 0.05 s" in slow
    with pytest.raises(InvalidArgument, match="is not done after"):
        beginnings(quick, *[["slow"]] * 4)
    quick.close()


def test_a_conversation_of_many_requests_comes_back_in_order(sandbox: JinjaSandbox) -> None:
    said = [f"{number}, " for number in range(150)]
    (found,) = beginnings(sandbox, said)
    assert found == ["".join(said[:count]) for count in range(len(said), 0, -1)]
