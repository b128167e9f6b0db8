"""Where an endpoint is, as the evaluator's settings say."""

from __future__ import annotations

import pytest

from tunix_rt_evaluator.openai_endpoint import Endpoint
from tunix_rt_evaluator.wiring import EvaluatorSettings
from tunix_rt_kit.serving.settings import SettingsInvalid, load_settings


def settings(*flags: str) -> EvaluatorSettings:
    return load_settings(EvaluatorSettings, flags, program="evaluator")


def test_flags_and_environment_say_where_an_endpoint_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().endpoint == Endpoint(timeout_s=600.0)
    monkeypatch.setenv("TUNIX_RT_EVALUATOR_ENDPOINT_API_KEY", "secret")
    given = settings(
        "--endpoint-url", "https://host/v1", "--endpoint-timeout-s", "5", "--endpoint-retries", "0"
    )
    assert given.endpoint == Endpoint("https://host/v1", "secret", 5.0, 0)
    assert "secret" not in repr(given)
    assert "secret" not in repr(given.endpoint)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "https://models.example/api/v1/", "http://[::1]:8080/v1"]
)
def test_the_base_of_an_api_is_taken(url: str) -> None:
    assert settings("--endpoint-url", url).endpoint_url == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://host/v1",
        "http:///v1",
        "http://host:port/v1",
        "http://host:99999/v1",
        "http://host:0/v1",
        "http://ho st/v1",
        "http://[::1/v1",
        "http://name:word@host/v1",
        "http://host/v1?key=word",
        "http://host/v1#here",
    ],
)
def test_what_is_no_base_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        settings("--endpoint-url", url)
    assert str(caught.value).startswith("endpoint_url: ")
    assert "--endpoint-url" in str(caught.value)
    assert "\n" not in str(caught.value)
