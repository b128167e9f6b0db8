"""Which datasets leak an eval set, and which checkpoints, evaluations and reports that affects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tunix_rt import v1
from tunix_rt.client import Client

LEARNED_SPLIT: Final = "train"
# A dataset may have a chat template of its own, and a page must fit in one message of 4 MiB.
_PAGE_SIZE: Final = 50


@dataclass(frozen=True, slots=True)
class LeakingDataset:
    """A dataset whose rows leak items of an eval set, and what learned from them.

    ``checkpoints`` were trained on the dataset, if any of the rows is in the split that is learned;
    ``evaluations`` are those of these checkpoints on that eval set, ``reports`` compare one of them.
    """

    dataset: v1.Dataset
    rows: Sequence[v1.ContaminatedRow]
    checkpoints: Sequence[str] = field(default=())
    evaluations: Sequence[str] = field(default=())
    reports: Sequence[str] = field(default=())

    @property
    def learned_rows(self) -> Sequence[v1.ContaminatedRow]:
        """The rows of the training split; a model never sees the others."""
        return [row for row in self.rows if row.split == LEARNED_SPLIT]


def leaking_datasets(
    client: Client,
    eval_set: str,
    *,
    dataset: str | None = None,
    decontamination: v1.Decontamination | None = None,
    on_progress: Callable[[v1.Dataset, int, int], None] = lambda *_: None,
) -> Iterator[LeakingDataset]:
    """Compare datasets with an eval set, whether or not it was there when they were built.

    Args:
        client: to all four services.
        eval_set: ``evalSets/{eval_set}``.
        dataset: ``datasets/{dataset_id}@{version}``; left out, every dataset that is complete.
        decontamination: how rows and items are compared; left out, the server's default.
        on_progress: called with a dataset, how many of its rows were compared, and how many there are.

    Yields:
        Each dataset that leaks something, newest first.

    Raises:
        NotFoundError: there is no such dataset or eval set.
        FailedPreconditionError: the dataset is not complete.
        DataLossError: a file of a dataset is missing or damaged.
    """
    if dataset is not None:
        candidates: Iterator[v1.Dataset] = iter([client.exporter.get_dataset(dataset)])
    else:
        every = client.exporter.list_datasets(page_size=_PAGE_SIZE)
        candidates = (each for each in every if each.state == v1.Dataset.STATE_SUCCEEDED)
    client.evaluator.get_eval_set(eval_set)
    for candidate in candidates:
        rows: list[v1.ContaminatedRow] = []
        for part in client.exporter.audit_contamination(
            candidate.name, eval_set, decontamination=decontamination
        ):
            rows += part.rows
            on_progress(candidate, part.compared_row_count, part.total_row_count)
        if rows:
            leak = LeakingDataset(candidate, rows)
            yield _with_models(client, leak, eval_set) if leak.learned_rows else leak


def _with_models(client: Client, leak: LeakingDataset, eval_set: str) -> LeakingDataset:
    jobs = [
        job
        for job in client.trainer.list_training_jobs(page_size=_PAGE_SIZE)
        if leak.dataset.digest == job.dataset_digest and job.checkpoint
    ]
    checkpoints = [
        checkpoint.name for job in jobs for checkpoint in client.trainer.list_checkpoints(job.name)
    ]
    evaluations = [
        evaluation.name
        for evaluation in client.evaluator.list_evaluations(page_size=_PAGE_SIZE)
        if evaluation.spec.checkpoint in checkpoints and evaluation.spec.eval_set == eval_set
    ]
    reports = []
    if evaluations:
        reports = [
            report.name
            for report in client.evaluator.list_comparison_reports(page_size=_PAGE_SIZE)
            if not {report.base.name, report.candidate.name}.isdisjoint(evaluations)
        ]
    return LeakingDataset(leak.dataset, leak.rows, checkpoints, evaluations, reports)
