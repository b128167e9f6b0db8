"""The tokenizer of a base model, as training and generation use it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.models.config import unfit, unsupported
from tunix_rt_kit.models.hf_folder import (
    MAX_TOKENIZER_BYTES,
    TOKENIZER_FILE,
    SpecialTokens,
    read_config,
    read_special_tokens,
    reading,
)
from tunix_rt_kit.regular_files import read_bytes

# The module of what a library in Rust raises when it panics, which is no Exception.
_PANICS: Final = "pyo3_runtime"


class TextTokenizer:
    """Text to token ids and back, exactly: no token is added, none is left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # A tokenizer.json may ask for both.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, **_: Any) -> list[int]:
        """Token ids of ``text``; markers such as ``<|im_end|>`` in it become their one token.

        Raises InvalidArgument: TOKENIZER_INVALID, the file has no token for what it makes of the text.
        """
        with _failures("cannot be used"):
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of many texts at once."""
        with _failures("cannot be used"):
            # The fast one leaves out the tokens' places in the text.
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [list(encoding.ids) for encoding in found]

    def encode_ends(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """``encode_batch``, and of each token the character behind it in its text."""
        with _failures("cannot be used"):
            found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(list(encoding.ids), [end for _, end in encoding.offsets]) for encoding in found]

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """``decode`` of many sequences at once."""
        texts = self._tokenizer.decode_batch([list(ids) for ids in sequences], skip_special_tokens=False)
        return [str(text) for text in texts]

    @property
    def special_tokens(self) -> dict[int, str]:
        """The tokens that control a conversation and are no text, by id."""
        added = self._tokenizer.get_added_tokens_decoder()
        return {index: str(token.content) for index, token in added.items() if token.special}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Text of token ids, markers included."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        """Id of the single token ``token``, or None if the vocabulary has none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found


class ModelTokenizer(TextTokenizer):
    """A ``TextTokenizer`` that knows the tokens that begin and end a text and that pad a batch.

    It has the methods that ``tunix.generate.sampler.Sampler`` calls.
    """

    def __init__(self, tokenizer: Tokenizer, special: SpecialTokens, folder: Path) -> None:
        super().__init__(tokenizer)
        self._bos = self._declared(special.bos_token, "bos_token", folder)
        eos = self._declared(special.eos_token, "eos_token", folder)
        if eos is None:
            raise unsupported(folder, "eos_token", None, "tokenizer_config.json must name one")
        self._eos = eos
        self._pad = self._padding(special, folder)

    def eos_id(self) -> int:
        """Id of the token that ends a turn."""
        return self._eos

    def pad_id(self) -> int:
        """Id of the token for padding, never the end token: its loss and its end would be masked."""
        return self._pad

    def require_embeddings(self, count: int, folder: Path) -> None:
        """Refuse a vocabulary that is bigger than the ``count`` embeddings of the model in ``folder``.

        Special tokens beyond them may stay if nothing here writes them: Gemma 3's text models have one for
        images.

        Raises:
            FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming a token that has no embedding.
        """
        # Ids may leave gaps, so that few tokens can have high ids; those of a text are checked with it.
        declared = [index for index in (self._bos, self._eos, self._pad) if index is not None]
        if self.vocab_size <= count and max(declared) < count:
            return
        unused = {
            token.content
            for index, token in self._tokenizer.get_added_tokens_decoder().items()
            if token.special and index not in {self._bos, self._eos, self._pad}
        }
        beyond = [
            (index, token)
            for token, index in self._tokenizer.get_vocab(with_added_tokens=True).items()
            if index >= count and token not in unused
        ]
        if beyond:
            index, token = min(beyond)
            raise unsupported(
                folder,
                f"tokenizer.json: id of {token!r}",
                index,
                f"config.json has vocab_size {count}, and {len(beyond)} tokens have no embedding",
            )

    def _declared(self, token: str | None, field: str, folder: Path) -> int | None:
        if token is None:
            return None
        index = self.token_id(token)
        if index is None:
            raise unsupported(folder, field, token, "tokenizer.json must have this token")
        return index

    def _padding(self, special: SpecialTokens, folder: Path) -> int:
        taken = {self._bos, self._eos}
        for token in (special.pad_token, special.unk_token):
            index = None if token is None else self.token_id(token)
            if index is not None and index not in taken:
                return index
        added = self._tokenizer.get_added_tokens_decoder()
        template = special.chat_template or ""
        free = [i for i, t in added.items() if t.special and i not in taken and t.content not in template]
        if not free:
            raise FailedPrecondition(
                f"{folder}: no token can serve as padding; declare a pad_token other than "
                f"eos_token {special.eos_token!r} in tokenizer_config.json",
                reason="BASE_MODEL_UNSUPPORTED",
                metadata={"path": str(folder), "field": "pad_token"},
            )
        return int(min(free))


def load_tokenizer(path: Path | str) -> ModelTokenizer:
    """Load the tokenizer of a Hugging Face folder.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the file or token that is missing or wrong, or a
            token that the model has no embedding for.
    """
    folder = Path(path)
    special = read_special_tokens(folder)
    tokenizer = ModelTokenizer(_read(folder), special, folder)
    tokenizer.require_embeddings(read_config(folder).vocab_size, folder)
    return tokenizer


def read_tokenizer(folder: Path) -> TextTokenizer:
    """The ``tokenizer.json`` of a folder alone; raises FailedPrecondition (BASE_MODEL_UNSUPPORTED)."""
    return TextTokenizer(_read(folder))


def parse_tokenizer(data: bytes) -> TextTokenizer:
    """The tokenizer of a ``tokenizer.json``; raises InvalidArgument (TOKENIZER_INVALID)."""
    return TextTokenizer(_parsed(data))


def _read(folder: Path) -> Tokenizer:
    with reading(folder, TOKENIZER_FILE):
        data = read_bytes(folder / TOKENIZER_FILE, MAX_TOKENIZER_BYTES)
    try:
        return _parsed(data)
    except InvalidArgument as error:
        raise unfit(folder, TOKENIZER_FILE, error.message) from error


def _parsed(data: bytes) -> Tokenizer:
    with _failures("is not a tokenizer.json that can be read"):
        return Tokenizer.from_buffer(data.removeprefix(codecs.BOM_UTF8))


@contextmanager
def _failures(problem: str) -> Iterator[None]:
    """Turn what the library raises, panics included, into InvalidArgument."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != _PANICS:
            raise
        # The library raises nothing narrower.
        raise InvalidArgument(f"{problem}: {str(error)[:200]}", reason="TOKENIZER_INVALID") from error


def stop_ids(
    template: ChatTemplate, tokenizer: ModelTokenizer, of_model: Sequence[int] = ()
) -> tuple[int, ...]:
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
