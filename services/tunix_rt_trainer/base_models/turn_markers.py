"""Whether a chat template and a tokenizer fit each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tunix_rt_kit.errors import FailedPrecondition


class Vocabulary(Protocol):
    """The part of ``tunix_rt_kit.models.tokenizer.ModelTokenizer`` that is used."""

    def token_id(self, token: str) -> int | None:
        """The id of a token given as text."""


def require_single_tokens(markers: Iterable[str], vocabulary: Vocabulary, base_model: str) -> None:
    """Check that each text of a chat template that marks a turn is one token of the tokenizer.

    Raises:
        FailedPrecondition: CHAT_TEMPLATE_MISMATCH, naming the text and the base model.
    """
    for marker in markers:
        if vocabulary.token_id(marker) is None:
            raise FailedPrecondition(
                f"the dataset's chat template marks turns with {marker!r}, which is not one token of "
                f"{base_model}'s tokenizer; build it for this model: tunix-rt dataset build "
                f"DATASET@NEW_VERSION --base-model {base_model}",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"base_model": base_model, "marker": marker},
            )
