"""What a loop would do and how long it would take, found out without starting or storing anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from tunix_rt import v1
from tunix_rt.aio.client import AsyncClient, check_kind
from tunix_rt.aio.loop.sources import chat_template, items_from_elsewhere, traces_of
from tunix_rt.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnimplementedError,
)
from tunix_rt.loop import specs
from tunix_rt.loop.config import DEFAULT_SPLITS, LoopConfig
from tunix_rt.loop.result import LoopPlan, StagePlan

# The server's own, where a setting is left out; the contract says them.
_ROWS: Final = 8
_LENGTH: Final = 256
_SPLITS: Final[Mapping[str, float]] = {"train": 0.8, "validation": 0.1, "test": 0.1}
# Of generated traces so many say how long they are.
_SAMPLED: Final = 2_000
# A token has about so many characters of English text, and around a turn stand some more tokens.
_CHARACTERS: Final = 3.5
_AROUND: Final = 20
_FORWARD: Final = 1 / 3
_QUICK: Final = "not measured; quick beside training and evaluations"
_UNMEASURED: Final = (
    FailedPreconditionError,
    ResourceExhaustedError,
    UnimplementedError,
    InvalidArgumentError,
)


class _Traces(NamedTuple):
    """How many traces there will be, and their characters; None where nobody knows."""

    many: int | None
    characters: int = 0


@dataclass(frozen=True, slots=True)
class _Training:
    steps: int | None
    rows: int
    exact: bool
    tokens: int | None = None
    validation_batches: int = 0


async def plan_loop(
    config: LoopConfig,
    client: AsyncClient,
    *,
    measure: bool = True,
    on_measuring: Callable[[str], None] | None = None,
) -> LoopPlan:
    """Work out what ``run_loop`` would do with the same arguments. Nothing is started or stored.

    The files are read as a whole, so that a wrong line is found. With ``measure`` the trainer and the
    evaluator take steps and write tokens of the base model for about five seconds each, after loading and
    compiling it: from that comes the time that training and evaluations will take where they run.

    Args:
        config: what would be done.
        client: where.
        measure: whether to measure.
        on_measuring: called before each measurement with what is measured, in words.

    Raises:
        InvalidArgumentError: a setting, a file or a trace is wrong.
        FailedPreconditionError: something needed is not there, such as the base model's chat template.
        UnavailableError: a server was away for too long.
    """
    check_kind(client, plan_loop)
    return await _Planner(config, client, measure, on_measuring).plan()


class _Planner:
    def __init__(
        self,
        config: LoopConfig,
        client: AsyncClient,
        measure: bool,
        on_measuring: Callable[[str], None] | None,
    ) -> None:
        self._config = config
        self._client = client
        self._measure = measure
        self._measuring = on_measuring or (lambda _: None)

    async def plan(self) -> LoopPlan:
        config = self._config
        template, special = await chat_template(config.dataset, config.training.base_model, self._client)
        traces = self._traces()
        spec = specs.dataset_spec(config.dataset, template, special, [])
        name = f"datasets/{spec.dataset_id}@{spec.version or '1'}"
        dataset = await self._there(name)
        items, exact = self._items(traces, dataset)
        training = await self._training(traces, dataset, name)
        before, after = await self._evaluations(items, template)
        made = self._eval_set(items, exact)
        prepared = [self._dataset(name, traces, dataset), made]
        stages = [
            self._import(traces),
            *(prepared if config.eval_set.held_out_split is not None else reversed(prepared)),
            before,
            await self._training_stage(training, name),
            after,
            StagePlan("comparison", "compare both evaluations, and write the report", {}, basis=_QUICK),
        ]
        return LoopPlan(config.name, tuple(stages))

    def _traces(self) -> _Traces:
        config = self._config.traces
        if config is None:
            return _Traces(None)
        generated = config.generate.count if config.generate else None
        count = characters = 0
        for trace in islice(traces_of(config, config.redactor()), generated and _SAMPLED):
            count += 1
            steps = sum(len(step.content) for step in trace.steps)
            said = sum(message.ByteSize() for message in trace.messages)
            characters += len(trace.prompt) + steps + len(trace.final_answer) + said
        if not count:
            raise InvalidArgumentError(f"{config.file} holds no traces", reason="TRACES_EMPTY")
        if generated is not None and generated > count:
            return _Traces(generated, characters * generated // count)
        return _Traces(count, characters)

    def _import(self, traces: _Traces) -> StagePlan:
        config = self._config.traces
        if config is None or traces.many is None:
            return StagePlan("import", "nothing: the store is used as it is", {}, seconds=0.0)
        source = "generated traces" if config.generate else f"traces of {config.file}"
        skipped = ", those that are there already left out" if config.duplicates == "skip" else ""
        return StagePlan("import", f"store {source}{skipped}", {"traces": traces.many}, basis=_QUICK)

    async def _there(self, name: str) -> v1.Dataset | None:
        try:
            dataset = await self._client.exporter.get_dataset(name)
        except NotFoundError:
            return None
        return dataset if dataset.state == v1.Dataset.STATE_SUCCEEDED else None

    def _dataset(self, name: str, traces: _Traces, dataset: v1.Dataset | None) -> StagePlan:
        if dataset is not None:
            rows = {f"{split.split} rows": split.row_count for split in dataset.splits}
            does = (
                f"nothing if traces and settings are those of {name}, which is there; else the run is refused"
            )
            return StagePlan("dataset", does, rows, seconds=0.0)
        basis = "not measured; seconds for thousands of traces, minutes for a million"
        if traces.many is None or self._config.dataset.parent:
            return StagePlan(
                "dataset", f"build {name}", {}, basis=f"how many rows is known when it is built; {basis}"
            )
        rows = {"rows": traces.many}
        does = f"build {name}: at most one row for each trace, and for each that the store has already"
        return StagePlan("dataset", does, rows, bounded=True, basis=basis)

    def _items(self, traces: _Traces, dataset: v1.Dataset | None) -> tuple[int | None, bool]:
        """How many questions there will be, and whether it is known for sure."""
        config = self._config.eval_set
        if config.held_out_split is None:
            return len(items_from_elsewhere(config)), True
        limit = config.limit or math.inf
        if dataset is not None:
            rows = sum(split.row_count for split in dataset.splits if split.split == config.held_out_split)
            return int(min(limit, rows)), False
        if traces.many is None:
            return config.limit, False
        return int(min(limit, math.ceil(traces.many * self._share(config.held_out_split)))), False

    def _share(self, split: str) -> float:
        splits = self._config.dataset.splits or _SPLITS
        assert set(_SPLITS) == set(DEFAULT_SPLITS)
        return splits.get(split, 0.0) / (sum(splits.values()) or 1.0)

    def _eval_set(self, items: int | None, exact: bool) -> StagePlan:
        config = self._config.eval_set
        source = (
            f"the split {config.held_out_split!r} of the dataset"
            if config.held_out_split
            else "the generator"
            if config.generate
            else (config.builtin or str(config.file or "eval_v1"))
        )
        amounts = {} if items is None else {"items": items}
        return StagePlan(
            "eval_set", f"store the questions of {source}", amounts, bounded=not exact, basis=_QUICK
        )

    async def _evaluations(self, items: int | None, template: v1.ChatTemplate) -> tuple[StagePlan, StagePlan]:
        """Before and after training; the adapter is merged for generation, so that both take alike."""
        config = self._config
        base = config.training.base_model
        spec = specs.base_evaluation_spec(config.evaluation, "evalSets/planned", base, template)
        decoding = spec.decoding
        longest = decoding.max_new_tokens if decoding.HasField("max_new_tokens") else _NEW_TOKENS
        amounts: dict[str, int] = {}
        if items is not None:
            answers = items * (decoding.samples if decoding.HasField("samples") else 1)
            amounts = {"items": items, "answers": answers, "tokens": answers * longest}
        seconds, basis = await self._generation(spec, amounts)
        asked = f"answer the questions, up to {longest:,} tokens each"
        before = StagePlan("evaluation_before", f"have {base} {asked}", amounts, True, seconds, basis)
        after = StagePlan(
            "evaluation_after", f"have the trained model {asked}", amounts, True, seconds, basis
        )
        return before, after

    async def _generation(
        self, spec: v1.EvaluationSpec, amounts: Mapping[str, int]
    ) -> tuple[float | None, str]:
        if not self._measure:
            return None, _NOT_ASKED
        if not amounts:
            return None, "how many questions there are is known when the dataset is built"
        self._measuring(f"how fast {spec.base_model} answers")
        try:
            speed = await self._client.evaluator.measure_evaluation(spec)
        except _UNMEASURED as error:
            return None, f"not measured: {error}"
        # A batch that is not full takes as long as one that is.
        batches = math.ceil(amounts["answers"] / speed.rows) * speed.rows
        each = amounts["tokens"] / amounts["answers"]
        prompts = batches * _PROMPT_TOKENS / speed.prompt_tokens_per_second
        seconds = _seconds(speed) + prompts + batches * each / speed.tokens_per_second
        return seconds, (
            f"at most: every answer as long as it may be; {speed.tokens_per_second:,.0f} tokens/s of "
            f"{speed.rows} answers at a time, measured for "
            f"{speed.measured_duration.ToTimedelta().total_seconds():.0f} s in {speed.dtype} on "
            f"{speed.device}{_busy(speed.busy)}"
        )

    async def _training(self, traces: _Traces, dataset: v1.Dataset | None, name: str) -> _Training:
        config = self._config.training
        rows, length = self._batch()
        if dataset is not None:
            plan = await self._client.trainer.plan_training_job(specs.training_spec(config, name))
            batches = math.ceil(plan.validation_examples / rows)
            return _Training(plan.spec.max_steps, rows, True, plan.train_tokens, batches)
        if traces.many is None:
            return _Training(config.max_steps, rows, config.max_steps is not None)
        examples = traces.many * self._share("train")
        tokens = examples * (traces.characters / traces.many / _CHARACTERS + _AROUND)
        packed = max(1.0, examples if config.packing is False else tokens / length)
        per_pass = max(1, math.ceil(packed / rows))
        steps = config.max_steps or max(1, math.ceil((config.epochs or 1.0) * per_pass))
        validation = traces.many * self._share("validation") / rows
        if config.packing is not False:
            validation *= packed / examples
        return _Training(steps, rows, config.max_steps is not None, round(tokens), math.ceil(validation))

    def _batch(self) -> tuple[int, int]:
        """Rows of a batch, and tokens of a row."""
        config = self._config.training
        length = config.max_length or _LENGTH
        if config.tokens_per_batch is not None:
            return max(1, config.tokens_per_batch // length), length
        return config.rows_per_batch or _ROWS, length

    async def _training_stage(self, plan: _Training, name: str) -> StagePlan:
        config = self._config.training
        known = {"steps": plan.steps, "tokens": plan.tokens}
        amounts = {unit: count for unit, count in known.items() if count is not None}
        does = f"train {config.base_model}, {plan.rows} rows a step"
        if not plan.exact:
            does += "; steps and tokens by the length of the texts, exactly known when the dataset is built"
        seconds, basis = None, _NOT_ASKED
        if plan.steps is None:
            basis = "how many steps there are is known when the dataset is built"
        elif self._measure:
            seconds, basis = await self._steps(plan, name)
        return StagePlan("training", does, amounts, not plan.exact, seconds, basis)

    async def _steps(self, plan: _Training, name: str) -> tuple[float | None, str]:
        config = self._config.training
        self._measuring(f"training steps of {config.base_model}")
        try:
            speed = await self._client.trainer.measure_training(specs.training_spec(config, name))
        except _UNMEASURED as error:
            return None, f"not measured: {error}"
        steps = plan.steps or 0
        each = speed.step_duration.ToTimedelta().total_seconds()
        every = config.validation_interval_steps
        passes = math.ceil(steps / every) if every else 1
        seconds = _seconds(speed) + steps * each + passes * plan.validation_batches * each * _FORWARD
        early = "; it may end earlier, as early_stopping says" if config.early_stopping else ""
        return seconds, (
            f"{each:,.2g} s a step, from {speed.steps} steps of {speed.rows} rows measured for "
            f"{speed.measured_duration.ToTimedelta().total_seconds():.0f} s in {speed.dtype} on "
            f"{speed.device}{_busy(speed.busy)}{early}"
        )


_NEW_TOKENS: Final = 128
_PROMPT_TOKENS: Final = 100
_NOT_ASKED: Final = "not measured, as was asked for"


def _seconds(speed: v1.TrainingSpeed | v1.EvaluationSpeed) -> float:
    """Seconds of loading and compiling."""
    both = speed.load_duration.ToTimedelta() + speed.compile_duration.ToTimedelta()
    return both.total_seconds()


def _busy(busy: bool) -> str:
    return "; other jobs ran meanwhile, so that it is faster when they have ended" if busy else ""
