"""What is counted for roles where tokens and turns lie unusually."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from support.tiny_model import make_tiny_model
from tunix_rt_exporter.audits.roles import RoleCounts
from tunix_rt_exporter.datasets.model import DatasetSpec, SourceTrace
from tunix_rt_kit.chat import ChatTemplate, Conversation, ConversationRenderer
from tunix_rt_kit.chat.messages import Message
from tunix_rt_kit.loss_mask import ExampleEncoder, SplitAudit, SplitSupervision, TextExample
from tunix_rt_kit.models.tokenizer import TextTokenizer, parse_tokenizer

TEMPLATE = ChatTemplate.from_jinja(
    "{%- for m in messages -%}{{ m.content }}{%- if m.role == 'assistant' -%}<|im_end|>{%- endif -%}"
    "{%- endfor -%}",
    eos_token="<|im_end|>",
)
TALK = ("assistant", "Hi"), ("user", "Two?"), ("assistant", "2")


class Backwards(TextTokenizer):
    """Says that the tokens of a text stand there from right to left."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        super().__init__(tokenizer._tokenizer)

    def encode_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        return [(ids, ends[::-1]) for ids, ends in super().encode_ends(texts)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    return parse_tokenizer(Path(folder, "tokenizer.json").read_bytes())


def counted(tokenizer: TextTokenizer, talk: Sequence[tuple[str, str]]) -> SplitSupervision:
    said = [number for number, (role, _) in enumerate(talk) if role == "assistant"]
    messages = [Message.model_validate({"role": role, "content": text}) for role, text in talk]
    ((example,),) = ConversationRenderer(TEMPLATE).masks([Conversation(messages, said)])
    digest = bytes(32)
    trace = SourceTrace.conversation(
        [each.model_dump() for each in messages], [], sequence=0, digest=digest, metadata={}
    )
    spec = DatasetSpec.model_construct(
        chat_template=TEMPLATE.fields, train_on="all_assistants", changed_history="each_turn"
    )
    roles = RoleCounts(spec, iter([trace]), tokenizer, ExampleEncoder(tokenizer, TEMPLATE.frame))
    audit = SplitAudit("train", max_length=100, end_id=2)
    audit.add(roles.encode([TextExample(digest.hex(), example.segments, of_conversation=True)]))
    return roles.added_to(audit.result(()))


def test_a_row_that_begins_with_what_is_learned_learns_the_end_of_that_turn(tokenizer: TextTokenizer) -> None:
    found = counted(tokenizer, TALK)
    (assistant,) = [role for role in found.roles if role.part == "assistant"]
    # The very first token has none before it.
    assert assistant.supervised_token_count == assistant.token_count - 1 == len("i|2|")
    assert assistant.supervised_end_mark_count == assistant.end_mark_count == 2
    assert found.end_mark_masked.row_count == 0


def test_of_tokens_in_another_order_nothing_is_proved(tokenizer: TextTokenizer) -> None:
    (told,) = counted(Backwards(tokenizer), TALK[1:]).roles
    assert (told.part, told.token_count, told.supervised_token_count) == ("unproved", len("Two?2|"), 2)
