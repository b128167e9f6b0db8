"""What the trainer does with base models: those of this host, without a model library."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from tunix_rt_kit.artifacts import ArtifactStore
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import DomainError, FailedPrecondition, NotFound, check_unused
from tunix_rt_kit.models import CATALOG
from tunix_rt_kit.models.hf_folder import read_config
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer, read_tokenizer
from tunix_rt_kit.serving.requests import in_order, listed
from tunix_rt_kit.values import (
    ChatTemplateFields,
    Contained,
    Filter,
    ListAsked,
    Order,
    Page,
    Position,
    Stored,
    StoredFile,
    Value,
    Wanted,
)


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


class BaseModelFilter(Filter):
    """Which base models: those that meet every condition that is set."""

    order_fields = ("name", "family", "parameter_count", "context_length", "license", "available")

    name_contains: Contained = ""
    families: Wanted = ()
    available: bool | None = None

    def takes(self, model: BaseModelSummary) -> bool:
        """Whether a base model meets every condition."""
        return (
            self.name_contains.casefold() in model.id.casefold()
            and (not self.families or model.family in self.families)
            and self.available in (None, model.available)
        )


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


_LOG: Final = logging.getLogger(__name__)
_TOKENIZER_FILE: Final = "tokenizer.json"
_MATRIX: Final = 2
_PREFIX: Final = "baseModels/"


def require_single_tokens(markers: Iterable[str], tokenizer: ModelTokenizer, base_model: str) -> None:
    """Check that each text of a chat template that marks a turn is one token of the tokenizer.

    Raises:
        FailedPrecondition: CHAT_TEMPLATE_MISMATCH, naming the text and the base model.
    """
    for marker in markers:
        if tokenizer.token_id(marker) is None:
            raise FailedPrecondition(
                f"the dataset's chat template marks turns with {marker!r}, which is not one token of "
                f"{base_model}'s tokenizer; build it for this model: tunix-rt dataset build "
                f"DATASET@NEW_VERSION --base-model {base_model}",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"base_model": base_model, "marker": marker},
            )


class BaseModelService:
    """The base models of a ``ModelStore``, whose tokenizers are put into the artifact store.

    Args:
        models_dir: where they are.
        artifacts: takes their tokenizers.
        uses: the jobs that run and the checkpoints that need a base model: the name of each, the base model
            as it names it, and whether it still runs.
    """

    def __init__(
        self,
        models_dir: Path,
        artifacts: ArtifactStore,
        uses: Callable[[], Sequence[tuple[str, str, bool]]] = tuple,
    ) -> None:
        self._store = ModelStore(models_dir)
        self._artifacts = artifacts
        self._uses = uses
        self._special: dict[str, tuple[str, ...]] = {}

    def list_base_models(self, asked: ListAsked) -> Page[BaseModelSummary]:
        """One page of those that are wanted, by id unless another order is asked for, without what the
        tokenizer tells where the artifact store cannot take it."""
        return listed("ListBaseModels", BaseModelFilter, asked, self._page)

    def _page(
        self, wanted: BaseModelFilter, order: Order, after: Position | None, limit: int
    ) -> Sequence[tuple[BaseModelSummary, Position]]:
        found = filter(wanted.takes, map(self._listed, self._store.list()))
        by = [*order, ("name", order[-1][1] if order else False)]
        return in_order(found, lambda model: {**model.model_dump(), "name": model.id}, by, after, limit)

    def stored(self) -> list[Stored]:
        """The base models under the models folder as what they take of the disk."""
        return [
            Stored(
                "base model",
                f"{_PREFIX}{info.id}",
                frozenset([self._store.digest(info.path / _TOKENIZER_FILE)]),
                folder=str(info.path),
            )
            for info in self._store.list()
            if info.pulled
        ]

    def resolve(self, base_model: str) -> BaseModelSummary:
        """What a name means.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN.
            FailedPrecondition: BASE_MODEL_UNSUPPORTED.
            DomainError: its tokenizer cannot be put into the artifact store.
        """
        return self._summary(self._store.resolve(base_model))

    def delete(self, name: str, *, force: bool) -> BaseModelSummary:
        """Delete the files of a base model; one of the catalogue can be fetched again.

        Args:
            name: ``baseModels/`` and its id, or the source that was fetched.
            force: whether to delete it although checkpoints need it.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN, or BASE_MODEL_NOT_FOUND: it is not on this host.
            FailedPrecondition: BASE_MODEL_ELSEWHERE, it is a folder that nobody fetched; BASE_MODEL_IN_USE.
        """
        base_model = name.removeprefix(_PREFIX)
        folder = self._store.folder(base_model)
        if not folder.is_dir():
            raise NotFound(
                f"name: base model {base_model!r} is not on this host",
                reason="BASE_MODEL_NOT_FOUND",
                metadata={"base_model": base_model},
            )

        def check() -> None:
            users = {user: runs for user, model, runs in self._uses() if self._store.may_be(model, folder)}
            check_unused(f"{_PREFIX}{base_model}", "BASE_MODEL", users, force=force)

        self._store.remove(folder, check)
        if base_model in CATALOG:
            return self.resolve(base_model)
        return _summary(
            BaseModelInfo(
                id=base_model,
                path=folder,
                pulled=False,
                family="",
                parameter_count=0,
                license=None,
                context_length=0,
                vocab_size=0,
            ),
            None,
            (),
        )

    def check_template(self, model: BaseModelSummary, turn_markers: Sequence[str]) -> None:
        """Raises FailedPrecondition(CHAT_TEMPLATE_MISMATCH) for a marker that is not a token of the model.

        One that is not on the host yet is let through: the worker checks it.
        """
        if model.available:
            require_single_tokens(turn_markers, load_tokenizer(model.path), model.id)

    def shape(self, model: BaseModelSummary) -> BaseModelShape:
        """Its sizes; raises FailedPrecondition(BASE_MODEL_UNSUPPORTED)."""
        config = read_config(Path(model.path))
        projections = [
            Projection(module=name.split(".")[-2], inputs=shape[1], outputs=shape[0])
            for name, shape in config.tensor_shapes().items()
            if len(shape) == _MATRIX and ".layers." in name
        ]
        return BaseModelShape(
            parameter_count=config.parameter_count(),
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            projections=tuple(projections),
        )

    def _tokenizer_file(self, folder: Path) -> StoredFile:
        """Raises DomainError if the artifact store cannot be written."""
        path = folder / _TOKENIZER_FILE
        digest = self._store.digest(path)
        exists = self._artifacts.exists(digest)
        stored = self._artifacts.stat(digest) if exists else self._artifacts.put_file(path)
        return StoredFile(path=_TOKENIZER_FILE, size_bytes=stored.size, digest=stored.digest, uri=stored.uri)

    def _listed(self, info: BaseModelInfo) -> BaseModelSummary:
        try:
            return self._summary(info)
        except DomainError as error:
            _LOG.warning("the tokenizer of %s is not known: %s", info.id, error)
            return _summary(info, None, ())

    def _summary(self, info: BaseModelInfo) -> BaseModelSummary:
        if not info.pulled:
            return _summary(info, None, ())
        file = self._tokenizer_file(info.path)
        if file.digest not in self._special:
            tokenizer = read_tokenizer(info.path)
            self._special[file.digest] = tuple(text for _, text in sorted(tokenizer.special_tokens.items()))
        return _summary(info, file, self._special[file.digest])


def _summary(
    info: BaseModelInfo, tokenizer_file: StoredFile | None, special_tokens: tuple[str, ...]
) -> BaseModelSummary:
    fields, digest = None, ""
    if info.chat_template and info.eos_token:
        template = ChatTemplate.from_jinja(
            info.chat_template, bos_token=info.bos_token or "", eos_token=info.eos_token
        )
        fields, digest = template.fields, template.digest
    return BaseModelSummary(
        id=info.id,
        available=info.pulled,
        family=info.family,
        parameter_count=info.parameter_count if info.pulled else 0,
        context_length=info.context_length,
        license=info.license or "",
        weights_digest=info.weights_digest or "",
        tokenizer_digest=info.tokenizer_digest or "",
        path=str(info.path),
        tokenizer_file=tokenizer_file,
        chat_template=fields,
        chat_template_digest=digest,
        special_tokens=special_tokens,
    )
