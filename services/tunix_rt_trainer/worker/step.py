"""One optimizer step: AdamW through optax, the gradient of a batch computed microbatch by microbatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.sft import sharding_utils
from tunix.sft.hooks import DataHooks
from tunix.sft.peft_trainer import PeftTrainer, TrainingConfig

from tunix_rt_kit.models.decoder import Decoder
from tunix_rt_kit.models.networks import Llama
from tunix_rt_trainer.jobs.model import OptimizerConfig, StepMetrics
from tunix_rt_trainer.worker.batches import Batch
from tunix_rt_trainer.worker.network import StackedLlama, loss, trained_type, unstacked
from tunix_rt_trainer.worker.states import SavedState, put_tensors, tensors_of


def learning_rate(config: OptimizerConfig, max_steps: int) -> optax.Schedule:
    """The learning rate of the update that follows ``n`` updates.

    It rises on a line from 0 to the peak over the warm-up, then stays, or falls so that it would be 0 after
    the last step.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    remaining = max_steps - warmup
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, remaining),
        "cosine": lambda: optax.cosine_decay_schedule(peak, remaining),
    }[config.schedule]()
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def make_optimizer(config: OptimizerConfig, max_steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, if asked for, then AdamW."""
    adamw = optax.adamw(
        learning_rate(config, max_steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )
    if not config.max_grad_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), adamw)


_NEVER = 1 << 62

StepResult = Mapping[str, jax.Array]


class StepTrainer(PeftTrainer):  # type: ignore[misc]
    """PeftTrainer whose step splits its batch, tells what came of it at once, and can be saved to the bit.

    Args:
        network: what is trained.
        optimizer: how.
        microbatches: into how many the arrays of a batch are split, see ``batches.Batch``.
        hooks: gives the batches; training ends when there is no next one.
        dispatched: called with loss and gradient norm when a step was dispatched, which may be before they
            are computed.
    """

    def __init__(
        self,
        network: Decoder,
        optimizer: optax.GradientTransformation,
        *,
        microbatches: int,
        hooks: DataHooks,
        dispatched: Callable[[StepResult], None],
    ) -> None:
        # Rows are the first axis of a batch, or the second one behind its microbatches.
        self._axes = ("fsdp",) if microbatches == 1 else (None, "fsdp")
        # Steps end when there is no next batch; Tunix's own limit would bring its progress bar with it.
        config = TrainingConfig(eval_every_n_steps=_NEVER, max_steps=None, data_sharding_axis=self._axes)
        self._network = nnx.graphdef(network)
        super().__init__(StackedLlama(network) if isinstance(network, Llama) else network, optimizer, config)
        self._kind = trained_type(self.model)
        self._evaluate: Callable[..., dict[str, jax.Array]] | None = None
        self._microbatches = microbatches
        self._dispatched = dispatched
        self.with_loss_fn(loss, has_aux=True)
        self.with_data_hooks(hooks)

    def train(self) -> None:
        """Take steps until there is no next batch."""
        # The step is compiled here: Tunix would have it return the weights that stay as they are, as copies.
        super().train((), skip_jit=True)

    def create_train_step_fn(self) -> Callable[[Any], tuple[jax.Array, StepResult, jax.Array]]:
        graph, *_ = self._split()
        optimizer_graph = nnx.graphdef(self.optimizer)

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(trained: Any, optimizing: Any, frozen: Any, inputs: Any) -> tuple[Any, ...]:
            model = nnx.merge(graph, trained, frozen)
            optimizer = nnx.merge(optimizer_graph, optimizing)
            mean, gradient = mean_gradient(model, inputs, self._microbatches)
            norm = optax.global_norm(gradient)
            optimizer.update(model, gradient)
            return nnx.state(model, self._kind), nnx.state(optimizer), mean, norm

        def take(inputs: Any) -> tuple[jax.Array, StepResult, jax.Array]:
            _, trained, frozen = self._split()
            trained, optimizing, mean, norm = step(trained, nnx.state(self.optimizer), frozen, inputs)
            nnx.update(self.model, trained)
            nnx.update(self.optimizer, optimizing)
            return mean, {"loss": mean, "grad_norm": norm}, norm

        return take

    def nll(self, batch: Batch) -> tuple[float, float]:
        """Negative log-likelihood in nats summed over a batch of one microbatch, and over how many tokens."""
        graph, trained, frozen = self._split()
        if self._evaluate is None:
            self._evaluate = jax.jit(
                lambda trained, frozen, inputs: loss(nnx.merge(graph, trained, frozen), **inputs)[1]
            )
        sums = self._evaluate(trained, frozen, sharding_utils.shard_input(batch.arrays, ("fsdp",)))
        return float(sums["nll_sum"]), float(sums["weight_sum"])

    def _split(self) -> tuple[Any, Any, Any]:
        """The model's structure, the weights that are trained, and all others."""
        graph, *states = nnx.split(self.model, self._kind, ...)
        trained, frozen = states
        return graph, trained, frozen

    def network(self) -> Decoder:
        """The network as it is now; of weights that are not trained it may hold the shapes alone."""
        if isinstance(self.model, StackedLlama):
            return unstacked(self.model, self._network, self._kind)
        model: Decoder = self.model
        return model

    def weights_are_finite(self) -> bool:
        """Whether no weight that is trained has overflowed."""
        weights = tensors_of(nnx.state(self.model, self._kind))
        return all(bool(np.isfinite(value).all()) for value in weights.values())

    def saved(self, history: tuple[StepMetrics, ...]) -> SavedState:
        """What is needed to resume after the last step of ``history``, which was the last one taken."""
        return SavedState(
            history=history,
            trained=tensors_of(nnx.state(self.model, self._kind)),
            optimizer=tensors_of(nnx.state(self.optimizer)),
        )

    def prepare(self, mesh: jax.sharding.Mesh, state: SavedState | None) -> None:
        """Lay out on the devices what training needs there, to resume after the step of ``state`` if there is
        one; to be called before training begins."""
        self._shard_optimizer(mesh)
        if state is None:
            return
        for module, kind, tensors in (
            (self.model, self._kind, state.trained),
            (self.optimizer, ..., state.optimizer),
        ):
            values = nnx.state(module, kind)
            put_tensors(values, tensors)
            nnx.update(module, values)
        self._train_steps = self._iter_steps = state.step

    def _post_process_train_step(self, aux: StepResult) -> None:
        self._dispatched(aux)


def mean_gradient(
    model: Decoder, arrays: Mapping[str, Any], microbatches: int
) -> tuple[jax.Array, nnx.State[Any, Any]]:
    """Loss of a batch and its gradient by the weights that are trained, both in float32.

    The sums of all microbatches are added up and divided once by their number of supervised tokens, so the
    result does not depend on how tokens are spread over them, as a mean of their means would.

    Args:
        model: the network.
        arrays: of ``batches.Batch``.
        microbatches: how many they have.
    """
    graph, *states = nnx.split(model, trained_type(model), ...)
    trained, frozen = states

    def sums(trained: Any, microbatch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
        _, summed = loss(nnx.merge(graph, trained, frozen), **microbatch)
        return summed["nll_sum"], summed["weight_sum"]

    of_microbatch = jax.value_and_grad(sums, has_aux=True)
    if microbatches == 1:
        (nll, weight), gradient = of_microbatch(trained, arrays)
    else:

        def add(total: Any, microbatch: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_microbatch(trained, microbatch)), None

        zero = jnp.zeros((), jnp.float32)
        nothing = jax.tree.map(lambda weight: jnp.zeros(weight.shape, jnp.float32), trained)
        ((nll, weight), gradient), _ = jax.lax.scan(add, ((zero, zero), nothing), arrays)
    # A batch without a supervised token has nothing to divide, and its gradient is zero.
    count = jnp.maximum(weight, np.float32(1))
    return nll / count, jax.tree.map(lambda summed: summed / count, gradient)
