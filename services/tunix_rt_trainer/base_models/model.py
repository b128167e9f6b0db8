"""Base models, as they are listed and planned with."""

from __future__ import annotations

from tunix_rt_kit.values import ChatTemplateFields, StoredFile, Value


class BaseModelSummary(Value):
    """A base model; what is unknown until it is on the host is empty or 0.

    ``path`` is its folder, ``chat_template`` its own template, if it has one, with its digest,
    ``tokenizer_file`` its tokenizer.json in the artifact store, ``special_tokens`` those that are no text.
    """

    id: str
    available: bool
    family: str
    parameter_count: int
    context_length: int
    license: str
    weights_digest: str
    tokenizer_digest: str
    path: str
    tokenizer_file: StoredFile | None
    chat_template: ChatTemplateFields | None
    chat_template_digest: str
    special_tokens: tuple[str, ...] = ()


class Projection(Value):
    """One linear projection of a model: the last part of its name, its inputs and its outputs."""

    module: str
    inputs: int
    outputs: int


class BaseModelShape(Value):
    """What a plan needs to know of a base model; ``projections`` are those of all layers."""

    parameter_count: int
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    projections: tuple[Projection, ...]
