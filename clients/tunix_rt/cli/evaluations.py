"""`tunix-rt evaluate` and `tunix-rt evaluation`: let a model answer an eval set, and look at its answers."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tunix_rt import Client, jobs, v1
from tunix_rt.cli import tables, text
from tunix_rt.cli.command import command, group, single
from tunix_rt.cli.job_progress import evaluation_progress
from tunix_rt.cli.resources import checkpoint_name, resource_name, short_name
from tunix_rt.cli.session import Session
from tunix_rt.cli.spec_options import DTYPE_HELP, DTYPES, Dtype, chat_template
from tunix_rt.cli.waiting import waiting_for

app = group("Look at evaluations, item by item.")
evaluate_app = single()

_ROUNDING = 1e-9
_SAMPLING = "Sampling"
GREEDY = "greedy"

EvaluationArgument = Annotated[str, typer.Argument(metavar="EVALUATION", help="The evaluation's name or id.")]


@command(
    evaluate_app,
    "evaluate",
    example=(
        "tunix-rt evaluate --eval-set arithmetic-test --base-model smollm2-135m-instruct",
        "tunix-rt evaluate --eval-set arithmetic-test --checkpoint $JOB",
        "tunix-rt evaluate --eval-set arithmetic-test --checkpoint $JOB --temperature 0.7 --samples 8",
        "tunix-rt evaluate --eval-set arithmetic-test --endpoint-model qwen3-8b",
    ),
)
def evaluate(
    session: Session,
    eval_set: Annotated[str, typer.Option("--eval-set", "-e", help="The eval set's id.", show_default=False)],
    base_model: Annotated[
        str | None,
        typer.Option(
            "--base-model", "-m", help="A base model's id, or a Hugging Face folder on the evaluator's host."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c", help="A checkpoint, or a training job, whose latest one is meant."
        ),
    ] = None,
    endpoint_model: Annotated[
        str | None,
        typer.Option(
            "--endpoint-model",
            help="A model of an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama, by its name "
            "there; TUNIX_RT_EVALUATOR_ENDPOINT_URL says to the evaluator where that is.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template",
            help="Chat template: gemma-it, chatml, llama-3, model:NAME or file:PATH. "
            "\\[default: the checkpoint's, or the model's own]",
        ),
    ] = None,
    system: Annotated[str, typer.Option("--system", help="With --template: its system instruction.")] = "",
    bos_token: Annotated[
        str, typer.Option("--bos-token", help="For a Jinja file: text of its bos_token.")
    ] = "",
    eos_token: Annotated[
        str, typer.Option("--eos-token", help="For a Jinja file: text of its eos_token.")
    ] = "",
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Most tokens of an answer. \\[default: 128]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Answers generated together. \\[default: 16]")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Draw tokens at this temperature, 0.001 to 5; 0 takes the most probable ones. "
            "\\[default: 0]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            "--top-p",
            help="Draw from the most probable tokens that sum to this, 0.000001 to 1. \\[default: 1]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="What is drawn hangs on it. \\[default: 0]", rich_help_panel=_SAMPLING),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            help="Answers of each item, up to 64; more than 1 needs a temperature. \\[default: 1]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="Keep the log-probability of each token.")
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Generate answers anew that are kept from an earlier evaluation."),
    ] = False,
    dtype: Annotated[
        Dtype | None,
        typer.Option("--dtype", help=DTYPE_HELP + " \\[default: auto]"),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait for it (with a server only).")
    ] = False,
) -> None:
    """Let a model answer an eval set, grade its answers and say how many were right."""
    if sum(model is not None for model in (base_model, checkpoint, endpoint_model)) != 1:
        raise typer.BadParameter("give --base-model, --checkpoint or --endpoint-model, one of the three")
    if detach and session.embedded:
        raise typer.BadParameter("--detach needs a server: the embedded one ends with this command")
    if system and template is None:
        raise typer.BadParameter("--system goes with --template")
    with session.connect() as client:
        spec = v1.EvaluationSpec(
            eval_set=resource_name("evalSets", eval_set),
            decoding=v1.Decoding(
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                samples=samples,
                log_probabilities=logprobs or None,
            ),
            fresh=fresh,
        )
        if dtype is not None:
            spec.dtype = DTYPES[dtype]
        if base_model is not None:
            spec.base_model = base_model
        elif endpoint_model is not None:
            spec.endpoint_model = endpoint_model
        elif checkpoint is not None:
            spec.checkpoint = checkpoint_name(client, checkpoint)
        if template is not None:
            spec.chat_template.CopyFrom(
                chat_template(
                    client, template, system_instruction=system, bos_token=bos_token, eos_token=eos_token
                )
            )
        evaluation = client.evaluator.create_evaluation(spec=spec)
        if not detach:
            session.say(f"evaluation {short_name(evaluation.name)}")
            evaluation = wait(session, client, evaluation.name)
    show_evaluation(session, evaluation)


@command(app, "list", example="tunix-rt evaluation list")
def list_(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Most evaluations shown.")] = 20,
) -> None:
    """List evaluations, newest first."""
    with session.connect() as client:
        found = list(islice(client.evaluator.list_evaluations(page_size=min(limit, 1000)), limit))
    if session.as_json:
        session.print_messages(found)
        return
    rows = tables.table("EVALUATION", "!STATE", "EVAL SET", "MODEL", ">CORRECT", ">ACCURACY", ">AGE")
    for evaluation in found:
        overall = evaluation.summary.overall
        done = evaluation.HasField("summary")
        tables.add_row(
            rows,
            short_name(evaluation.name),
            tables.state(v1.Evaluation.State.Name(evaluation.state)),
            short_name(evaluation.spec.eval_set),
            model_label(evaluation.spec),
            f"{overall.correct_count}/{overall.item_count}" if done else "-",
            text.percent(overall.accuracy) if done else "-",
            tables.age(evaluation.create_time),
        )
    tables.print_table(session.out, rows, "no evaluations")


@command(app, "show", example="tunix-rt evaluation show $EVALUATION")
def show(session: Session, evaluation: EvaluationArgument) -> None:
    """Show one evaluation: accuracy, categories and what it was made from."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        found = client.evaluator.get_evaluation(name)
    show_evaluation(session, found)


@command(app, "watch", example="tunix-rt evaluation watch $EVALUATION --server localhost:50050")
def watch(session: Session, evaluation: EvaluationArgument) -> None:
    """Follow an evaluation until it ends."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        ended = wait(session, client, name)
    show_evaluation(session, ended)


@command(app, "cancel", example="tunix-rt evaluation cancel $EVALUATION --server localhost:50050")
def cancel(session: Session, evaluation: EvaluationArgument) -> None:
    """Ask an evaluation to stop; what is answered by then is kept."""
    name = resource_name("evaluations", evaluation)
    with session.connect() as client:
        found = client.evaluator.cancel_evaluation(name)
    show_evaluation(session, found)


def model_label(spec: v1.EvaluationSpec) -> str:
    """The model that a spec names, as people call it."""
    return short_name(spec.checkpoint) if spec.checkpoint else spec.endpoint_model or spec.base_model


def wait(session: Session, client: Client, name: str) -> v1.Evaluation:
    """Wait for the end of an evaluation, showing how far it has come."""
    look = f"tunix-rt evaluation watch {short_name(name)}"
    with session.progress() as progress, waiting_for(session, "evaluation", look):
        return jobs.wait_for_evaluation(client, name, on_update=evaluation_progress(progress))


def show_evaluation(session: Session, evaluation: v1.Evaluation) -> None:
    """Print an evaluation, as JSON if that is wanted."""
    if session.as_json:
        session.print_message(evaluation)
    else:
        print_evaluation(session.out, evaluation)


def print_evaluation(console: Console, evaluation: v1.Evaluation) -> None:
    """An evaluation as a sheet of facts and a table of its categories."""
    spec, summary, manifest = evaluation.spec, evaluation.summary, evaluation.manifest
    done = evaluation.HasField("summary")
    console.print(
        tables.facts(
            [
                ("evaluation", evaluation.name),
                ("state", tables.state(v1.Evaluation.State.Name(evaluation.state))),
                ("error", evaluation.error.message),
                (
                    "graded again",
                    f"the answers of {short_name(evaluation.regrade.source)}"
                    if evaluation.HasField("regrade")
                    else "",
                ),
                ("eval set", f"{short_name(spec.eval_set)} ({text.short_digest(manifest.eval_set_digest)})"),
                ("model", model_label(spec)),
                ("decoding", decoding_text(spec.decoding)),
                (
                    "kept",
                    f"{text.counted(summary.cached_count, 'item')} taken from earlier evaluations; "
                    "--fresh generates them anew"
                    if summary.cached_count and not evaluation.HasField("regrade")
                    else "",
                ),
                ("accuracy", Text(_accuracy_of(evaluation), style="bold") if done else ""),
                (
                    "any sample right",
                    f"{text.counted(summary.any_correct_count, 'item')}"
                    if done and spec.decoding.samples > 1
                    else "",
                ),
                ("bounds", _bounds_text(summary)),
                (
                    "cut short",
                    f"{text.counted(summary.truncated_count, 'answer')}; "
                    "with a larger --max-new-tokens they may come to an end"
                    if summary.truncated_count
                    else "",
                ),
                (
                    "not run",
                    f"{text.counted(summary.failed_count, 'item')}, counted as wrong; "
                    "evaluation items --failed says why"
                    if summary.failed_count
                    else "",
                ),
                (
                    "not graded",
                    f"{text.counted(summary.ungraded_count, 'answer')}, counted as wrong; "
                    "evaluation items --ungraded says why"
                    if summary.ungraded_count
                    else "",
                ),
                (
                    "mean score",
                    f"{summary.mean_score:.3f}"
                    if done
                    and (
                        spec.decoding.samples > 1
                        or abs(summary.mean_score - summary.overall.accuracy) > _ROUNDING
                    )
                    else "",
                ),
                ("graders", ", ".join(manifest.graders)),
                (
                    "speed",
                    f"{summary.tokens_per_second:,.0f} tokens/s" if summary.tokens_per_second else "",
                ),
                ("stages", tables.stage_line(evaluation.stage_timings)),
                ("template", text.short_digest(manifest.chat_template_digest) if done else ""),
                ("answers", manifest.results_digest),
                ("created", tables.moment(evaluation.create_time)),
            ]
        )
    )
    if len(summary.categories) > 1:
        rows = tables.table("CATEGORY", ">CORRECT", ">ACCURACY", "95% INTERVAL")
        for entry in summary.categories:
            accuracy = entry.accuracy
            tables.add_row(
                rows,
                entry.category or "none",
                f"{accuracy.correct_count}/{accuracy.item_count}",
                text.percent(accuracy.accuracy),
                text.interval(accuracy.interval.lower, accuracy.interval.upper),
            )
        console.print(rows)


def decoding_text(decoding: v1.Decoding) -> str:
    """Such as `greedy, at most 96 tokens, batches of 16`, or how and how often answers are drawn."""
    how = GREEDY
    if decoding.temperature:
        top_p = f", top-p {decoding.top_p:g}" if decoding.top_p < 1 else ""
        how = f"sampled at temperature {decoding.temperature:g}{top_p}, seed {decoding.seed}"
        if decoding.samples > 1:
            how += f", {decoding.samples} samples of each item"
    return f"{how}, at most {decoding.max_new_tokens} tokens, batches of {decoding.batch_size}"


def _accuracy_of(evaluation: v1.Evaluation) -> str:
    found = accuracy_text(evaluation.summary.overall)
    samples = evaluation.spec.decoding.samples
    return f"{found}, by most of {samples} samples" if samples > 1 else found


def _bounds_text(summary: v1.EvaluationSummary) -> str:
    """The accuracy with what is not settled all wrong and all right; empty where all is."""
    count, low, high = summary.overall.item_count, summary.worst_correct_count, summary.best_correct_count
    if low == high:
        return ""
    return (
        f"{text.percent(low / count)} to {text.percent(high / count)}, had answers that were cut short, "
        "not run or not graded all been wrong, or all right"
    )


def accuracy_text(accuracy: v1.Accuracy) -> str:
    """Such as `31 of 120 right, 25.8% (95% interval 18.8% to 34.3%)`."""
    bounds = text.interval(accuracy.interval.lower, accuracy.interval.upper)
    return (
        f"{accuracy.correct_count:,} of {accuracy.item_count:,} right, {text.percent(accuracy.accuracy)} "
        f"(95% interval {bounds})"
    )
