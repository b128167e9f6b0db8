"""Settings of the evaluator, by flag or by ``TUNIX_RT_EVALUATOR_...``."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from tunix_rt_evaluator.openai_endpoint import Endpoint, check_url
from tunix_rt_kit.serving.settings import Address, ModelSettings


def _url_or_none(url: str) -> str:
    return check_url(url) if url else ""


class EvaluatorSettings(ModelSettings):
    """Where to serve, where evaluations, models and artifacts are kept, and whom to ask for checkpoints and
    training data."""

    model_config = SettingsConfigDict(env_prefix="TUNIX_RT_EVALUATOR_")

    listen: Address = Field("127.0.0.1:50054", description="address to serve on, host:port; port 0 picks one")
    trainer_target: Address = Field("127.0.0.1:50053", description="address of the trainer, host:port")
    exporter_target: Address = Field(
        "127.0.0.1:50052",
        description="address of the exporter, host:port; it is asked which items training data leaks",
    )
    slots: int = Field(
        1, ge=1, le=64, description="how many evaluations run at once; one per device is right"
    )
    keep_model_s: float | None = Field(
        None,
        ge=0,
        le=86_400,
        description="how long a model stays loaded after an evaluation, in seconds; left out: 60, and 0 on a "
        "GPU, whose memory the next program needs",
    )
    judge_url: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description="base of an OpenAI-compatible API whose models grade answers, such as "
        "http://localhost:8000/v1; empty: none",
    )
    judge_api_key: SecretStr = Field(
        SecretStr(""), description="key for that API; better by the environment than by a flag"
    )
    judge_timeout_s: float = Field(60.0, gt=0, le=3_600, description="how long a judge may take to answer")
    judge_retries: int = Field(
        3, ge=0, le=20, description="how often a judge is asked again that gave no answer, 429 or 5xx"
    )
    judge_concurrency: int = Field(8, ge=1, le=256, description="how many answers a judge is asked at once")
    grading_budget_s: float = Field(
        14_400.0,
        gt=0,
        le=31_536_000,
        description="how long grading the answers of one evaluation may take, in seconds; then it has failed",
    )
    endpoint_url: Annotated[str, AfterValidator(_url_or_none)] = Field(
        "",
        description="base of an OpenAI-compatible API whose models are evaluated, such as "
        "http://localhost:8000/v1; empty: none",
    )
    endpoint_api_key: SecretStr = Field(
        SecretStr(""), description="key for that API; better by the environment than by a flag"
    )
    endpoint_timeout_s: float = Field(
        600.0, gt=0, le=3_600, description="how long the endpoint may take for one answer"
    )
    endpoint_retries: int = Field(
        3,
        ge=0,
        le=20,
        description="how often a request to the endpoint is tried again that got no answer or a 5xx; after a "
        "429 it waits for its turn",
    )

    @property
    def endpoint(self) -> Endpoint:
        """Where models run that are evaluated by name."""
        return Endpoint(
            url=self.endpoint_url,
            api_key=self.endpoint_api_key.get_secret_value(),
            timeout_s=self.endpoint_timeout_s,
            retries=self.endpoint_retries,
        )
