"""Where servers are said to be."""

from __future__ import annotations

import pytest

from tunix_rt import Client, Targets
from tunix_rt.errors import InvalidArgumentError


def test_one_address_serves_all_four() -> None:
    targets = Targets.parse(" box.example:50050 ")
    assert targets.distinct() == ["box.example:50050"]


def test_a_host_means_the_default_ports() -> None:
    assert Targets.parse("[::1]") == Targets("[::1]:50051", "[::1]:50052", "[::1]:50053", "[::1]:50054")


def test_a_list_names_each_service() -> None:
    targets = Targets.parse("trace-store=a:1, exporter=b, trainer=a:1,evaluator=[::1]:9")
    assert targets == Targets("a:1", "b:50052", "a:1", "[::1]:9")
    assert targets.distinct() == ["a:1", "b:50052", "[::1]:9"]


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("", "it is empty"),
        ("http://box:1", "a URL is not an address"),
        ("::1", "brackets"),
        ("box:0", "port '0' is not a number from 1 to 65535"),
        ("box:70000", "port '70000'"),
        ("box:", "port ''"),
        ("my box", "'my box' is not a host name"),
        ("trace-store=a,exporter=b,trainer=c", "evaluator missing"),
        ("trace-store=a,trace-store=b", "trace-store is given twice"),
        ("store=a", "'store' is not a service; they are trace-store, exporter, trainer, evaluator"),
        ("trace-store=a,b", "'b' is not SERVICE=HOST:PORT"),
    ],
)
def test_a_bad_value_is_one_clear_line(server: str, said: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Targets.parse(server)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.reason == "SERVER_INVALID"


def test_the_environment_is_asked_when_no_server_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNIX_RT_SERVER", "box:7")
    with Client() as client:
        assert client.targets.trainer == "box:7"
    monkeypatch.delenv("TUNIX_RT_SERVER")
    with pytest.raises(InvalidArgumentError, match="TUNIX_RT_SERVER"):
        Client()
