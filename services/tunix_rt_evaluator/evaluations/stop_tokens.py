"""The tokens at which generation stops, and whether a chat template and a tokenizer fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition


class Tokenizer(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.ModelTokenizer`` that is used."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is, no special token added."""

    def token_id(self, token: str) -> int | None:
        """The id of a token given as text."""

    def eos_id(self) -> int:
        """The id of the model's own end token."""


def stop_ids(template: ChatTemplate, tokenizer: Tokenizer, of_model: Sequence[int] = ()) -> tuple[int, ...]:
    """The tokens at which generation stops: the template's end of turn, the tokenizer's end token and those
    ``of_model``, see ``hf_folder.read_stop_ids``.

    Raises:
        FailedPrecondition: CHAT_TEMPLATE_MISMATCH, a control text of the template is no single token here.
    """
    for marker in template.markers:
        if tokenizer.token_id(marker) is None or tokenizer.encode(marker) != [tokenizer.token_id(marker)]:
            raise FailedPrecondition(
                f"chat template: {marker!r} is not a single token of the model's tokenizer; use a template "
                "of this model",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"marker": marker},
            )
    ids = tokenizer.encode(template.end_of_turn)
    if len(ids) != 1:
        raise FailedPrecondition(
            f"chat template: the end of turn {template.end_of_turn!r} is {len(ids)} tokens of the model's "
            "tokenizer; it must be one",
            reason="CHAT_TEMPLATE_MISMATCH",
            metadata={"marker": template.end_of_turn},
        )
    return tuple(sorted({ids[0], tokenizer.eos_id(), *of_model}))
