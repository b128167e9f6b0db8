"""The trainer, the exporter and the base models on this host, as the evaluator sees them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from functools import cache
from pathlib import Path

import grpc

from tunix_rt import v1
from tunix_rt_evaluator.comparisons.model import LeakedItem
from tunix_rt_evaluator.evaluations.admission import chat_template
from tunix_rt_evaluator.evaluations.model import BaseModelFacts, CheckpointInput
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.convert import value_of
from tunix_rt_kit.errors import DomainError, FailedPrecondition, check_living
from tunix_rt_kit.models.store import ModelStore
from tunix_rt_kit.models.tokenizer import ModelTokenizer, load_tokenizer, stop_ids
from tunix_rt_kit.serving.calls import answer_of, answers_of, calling
from tunix_rt_kit.values import ChatTemplateFields, StoredFile

TRAINING_SPLIT = "train"
"""The split of a dataset that the trainer learns from."""
_TIMEOUT_S = 20.0
_PAGE = 1_000
_BEING_BUILT = (v1.Dataset.STATE_QUEUED, v1.Dataset.STATE_RUNNING, v1.Dataset.STATE_CANCELLING)
# Reads all rows of a dataset.
_AUDIT_TIMEOUT_S = 120.0


class TrainerCheckpoints:
    """Checkpoints of the trainer behind ``channel``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = v1.TrainerStub(channel)

    def get(self, name: str) -> CheckpointInput:
        """One checkpoint.

        Raises:
            NotFound: CHECKPOINT_NOT_FOUND, TRAINING_JOB_NOT_FOUND.
            Unavailable: UPSTREAM_UNAVAILABLE or UPSTREAM_DEADLINE.
            FailedPrecondition: CHAT_TEMPLATE_MISMATCH, trainer and evaluator read the template differently.
        """
        with calling("the trainer"):
            checkpoint = answer_of(self._stub.GetCheckpoint, v1.GetCheckpointRequest(name=name), _TIMEOUT_S)
        if checkpoint.HasField("delete_time"):
            check_living(name, "CHECKPOINT", checkpoint.delete_time.ToDatetime(UTC))
        manifest = checkpoint.manifest
        fields = value_of(checkpoint.chat_template, ChatTemplateFields)
        digest = chat_template(fields).digest
        if digest != manifest.chat_template_digest:
            raise FailedPrecondition(
                f"{name} was trained with chat template {manifest.chat_template_digest}, but this evaluator "
                f"reads it as {digest}; trainer and evaluator must be of one version",
                reason="CHAT_TEMPLATE_MISMATCH",
                metadata={"checkpoint": name, "digest": manifest.chat_template_digest},
            )
        return CheckpointInput(
            name=checkpoint.name,
            base_model=manifest.spec.base_model,
            digest=checkpoint.digest,
            files=tuple(value_of(file, StoredFile) for file in checkpoint.files),
            manifest_digest=checkpoint.manifest_file.digest,
            dataset=manifest.spec.dataset,
            dataset_digest=manifest.dataset_digest,
            base_weights_digest=manifest.base_weights_digest,
            chat_template=fields,
        )


class ExporterTrainingData:
    """Datasets of the exporter behind ``channel``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = v1.ExporterStub(channel)

    def leaked_items(self, dataset: str, eval_set: str) -> list[LeakedItem]:
        """The items of an eval set that the training split is contaminated with, by the exporter's own rule.

        Raises:
            NotFound: DATASET_NOT_FOUND, EVAL_SET_NOT_FOUND.
            FailedPrecondition: DATASET_NOT_READY.
            Unavailable: UPSTREAM_UNAVAILABLE or UPSTREAM_DEADLINE.
        """
        request = v1.AuditContaminationRequest(name=dataset, eval_set=eval_set)
        with calling("the exporter"):
            parts = list(answers_of(self._stub.AuditContamination, request, _AUDIT_TIMEOUT_S))
        return [
            LeakedItem(
                item_id=row.eval_item,
                dataset=dataset,
                row_id=row.row_id,
                match=v1.ContaminatedRow.Match.Name(row.match).removeprefix("MATCH_").lower(),
            )
            for part in parts
            for row in part.rows
            if row.split == TRAINING_SPLIT
        ]

    def made_without(self, eval_set: str) -> dict[str, bool]:
        """The datasets from which the items of an eval set were kept out, with whether each is still built.

        Raises:
            Unavailable: UPSTREAM_UNAVAILABLE or UPSTREAM_DEADLINE.
        """
        found: dict[str, bool] = {}
        # An exporter of an earlier version, which knows no such filter, tells of all.
        wanted = v1.DatasetFilter(eval_sets=[eval_set])
        request = v1.ListDatasetsRequest(page_size=_PAGE, filter=wanted)
        while True:
            with calling("the exporter"):
                page = answer_of(self._stub.ListDatasets, request, _TIMEOUT_S)
            for dataset in page.datasets:
                if eval_set in dataset.spec.eval_sets:
                    found[dataset.name] = dataset.state in _BEING_BUILT
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


class HostBaseModels:
    """The base models of a ``ModelStore``, without a model library."""

    def __init__(self, models_dir: Path) -> None:
        self._store = ModelStore(models_dir)

    def resolve(self, base_model: str) -> BaseModelFacts:
        """What a name means.

        Raises:
            NotFound: BASE_MODEL_UNKNOWN.
            FailedPrecondition: BASE_MODEL_UNSUPPORTED.
        """
        info = self._store.resolve(base_model)
        template = None
        if info.chat_template and info.eos_token:
            template = ChatTemplateFields(
                jinja=info.chat_template, bos_token=info.bos_token or "", eos_token=info.eos_token
            )
        return BaseModelFacts(
            id=info.id,
            available=info.pulled,
            path=str(info.path),
            weights_digest=info.weights_digest,
            chat_template=template,
        )

    def token_counter(self, base_model: str) -> Callable[[str], int | None]:
        """Counts the tokens of texts for a model, whose tokenizer is loaded for the first of them.

        What it returns gives None where the model is not on this host, or cannot be used.
        """

        @cache
        def tokenizer() -> ModelTokenizer | None:
            try:
                info = self._store.resolve(base_model)
                return load_tokenizer(info.path) if info.pulled else None
            except DomainError:
                return None

        def count(text: str) -> int | None:
            found = tokenizer()
            return None if found is None else len(found.encode(text))

        return count

    def check_template(self, model: BaseModelFacts, template: ChatTemplateFields) -> None:
        """Raise FailedPrecondition(CHAT_TEMPLATE_MISMATCH) for a control text that is no token of the model.

        A model that is not on the host yet is let through: the worker checks it.
        """
        if model.available:
            stop_ids(ChatTemplate.of(template), load_tokenizer(model.path))
