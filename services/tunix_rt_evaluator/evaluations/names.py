"""Resource names of the evaluator."""

from __future__ import annotations

from typing import Final

from tunix_rt_kit.serving.resources import format_name

EVAL_SET_NAME: Final = "evalSets/{eval_set}"
EVALUATION_NAME: Final = "evaluations/{evaluation}"
REPORT_NAME: Final = "comparisonReports/{comparison_report}"
CHECKPOINT_NAME: Final = "trainingJobs/{training_job}/checkpoints/{checkpoint}"


def eval_set_name(eval_set_id: str) -> str:
    """The resource name of an eval set."""
    return format_name(EVAL_SET_NAME, eval_set_id)


def evaluation_name(evaluation_id: str) -> str:
    """The resource name of an evaluation."""
    return format_name(EVALUATION_NAME, evaluation_id)


def report_name(report_id: str) -> str:
    """The resource name of a comparison report."""
    return format_name(REPORT_NAME, report_id)
