"""Loads a Hugging Face folder as a Tunix model of its family, runs it, and saves it again.

``verify`` compares it with ``transformers``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from tunix.sft import utils as sft_utils

from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument
from tunix_rt_kit.models import tensor_files
from tunix_rt_kit.models.config import ModelConfig
from tunix_rt_kit.models.decoder import Decoder, is_transposed
from tunix_rt_kit.models.export import Conversation, new_folder, write_companions
from tunix_rt_kit.models.hf_folder import INDEX_FILE, check_weights, read_config, read_header, weight_files
from tunix_rt_kit.models.networks import NETWORKS
from tunix_rt_kit.models.runtime import package_versions
from tunix_rt_kit.models.tensor_files import require_finite
from tunix_rt_kit.models.tokenizer import load_tokenizer

INSTALL_COMMAND = "pip install torch transformers"
Reference = Callable[[Path, Sequence[Sequence[int]]], Iterator[npt.NDArray[np.float32]]]
"""From a model folder and token sequences to float32 logits [length, vocabulary] of each."""
PROMPTS = (
    "<|im_start|>user\nWhat is 17 + 25? Think step by step.<|im_end|>\n<|im_start|>assistant\n",
    "The three states of matter that we meet every day are solid, liquid and",
    "def mean(values: list[float]) -> float:\n    return sum(values) /",
    "A baker makes 48 rolls in the morning and 36 in the afternoon. He sells three quarters of the "
    "morning's rolls and half of the others. Rolls that are left over cost 20 cents each, and a "
    "customer who buys at least ten of them pays 15 cents for each. First count what is left: of the "
    "morning's 48 rolls a quarter, 12, stay on the shelf, and of the afternoon's 36 rolls 18 stay. "
    "Together that is 30 rolls. Mrs. Müller takes all of them, so she pays 15 cents for each, which "
    "makes",
)
"""Short and long, prose, code and chat. A wrong rotary base shows most between distant tokens."""
TOLERANCE = 1e-3
"""Largest absolute difference of a logit that passes."""


def make_mesh() -> jax.sharding.Mesh:
    """A mesh of one device, as Tunix's sharding rules expect it; use it as ``with make_mesh():``."""
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=axis_types, devices=jax.devices()[:1])


def load_model(path: Path | str, *, dtype: str, mesh: jax.sharding.Mesh) -> Decoder:
    """Load a model from a Hugging Face folder, of any number of shards and any mix of types.

    Args:
        path: the folder.
        dtype: ``bfloat16`` or ``float32``; the weights are cast to it.
        mesh: with the axes ``fsdp`` and ``tp``, see ``make_mesh``.

    Raises:
        FailedPrecondition: BASE_MODEL_UNSUPPORTED, naming the field or the tensor that is wrong.
    """
    folder = Path(path)
    config = read_config(folder)
    check_weights(folder, config)
    wanted = jnp.dtype(dtype)
    network = NETWORKS[config.family]
    with mesh:
        graph, state = nnx.split(_empty(config, dtype))
    empty, shardings = _by_path(state), _by_path(nnx.get_named_sharding(state, mesh))
    weights = {}
    for name, value in _tensors(folder, config):
        key = network.path_of(name)
        laid_out = (value.T if is_transposed(name) else value).reshape(empty[key].shape)
        weights[key] = jax.device_put(laid_out.astype(wanted), shardings[key])
    filled = jax.tree_util.tree_map_with_path(lambda at, _: weights[_key(at)], state.to_pure_dict())
    model: Decoder = nnx.merge(graph, filled)
    return model


def rebuilt(model: Decoder, weights: Any, *, dtype: str) -> Decoder:
    """The model that ``load_model`` would make with other weights, in another type.

    Modules of some families compute in the type that they were made for, whatever the type of their weights.

    Args:
        model: without LoRA; it stays as it is.
        weights: nested as in ``nnx.state(model).to_pure_dict()``; arrays of type ``dtype`` are shared.
        dtype: see ``load_model``.
    """
    wanted = jnp.dtype(dtype)
    cast = jax.tree.map(lambda value: value.astype(wanted), weights)
    made: Decoder = nnx.merge(nnx.graphdef(_empty(model.description, dtype)), cast)
    return made


@nnx.jit
def logits(model: Decoder, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Next-token logits of right-padded sequences.

    Args:
        model: a model of any family, with or without LoRA.
        tokens: [batch, length] int32.
        mask: [batch, length] bool, true where there is a token and false at padding.

    Returns:
        [batch, length, vocabulary] in float32; undefined at padding.
    """
    positions = sft_utils.build_positions_from_mask(mask)
    attention_mask = sft_utils.make_causal_attn_mask(mask)
    output: jax.Array = model(tokens, positions, None, attention_mask)[0]
    return output


def _empty(config: ModelConfig, dtype: str) -> Decoder:
    network, wanted = NETWORKS[config.family], jnp.dtype(dtype)
    empty: Decoder = nnx.eval_shape(lambda: network(config, dtype=wanted, rngs=nnx.Rngs(params=0)))
    return empty


def _tensors(folder: Path, config: ModelConfig) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    wanted = config.tensor_shapes()
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as tensors:  # type: ignore[no-untyped-call]
            for name in tensors.keys():  # noqa: SIM118
                if name in wanted:
                    value: npt.NDArray[Any] = tensors.get_tensor(name)
                    require_finite(folder, name, value)
                    yield name, value


def _by_path(state: Any) -> dict[str, Any]:
    return {_key(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.to_pure_dict())}


def _key(path: tuple[Any, ...]) -> str:
    return ".".join(str(entry.key) for entry in path)


def save_model(model: Decoder, out: Path, *, base: Path, conversation: Conversation | None = None) -> None:
    """Write ``model`` to the new folder ``out``; the same weights make the same bytes.

    Every tensor has the file and the type that it has in ``base``, so that ``config.json`` stays true.
    ``out`` appears whole or not at all.

    Args:
        model: loaded from ``base``, without LoRA.
        out: must not exist.
        base: the folder that the model was loaded from.
        conversation: see ``export.write_companions``.

    Raises:
        InvalidArgument: EXPORT_INVALID, the model has an adapter.
        AlreadyExists: EXPORT_EXISTS.
        ResourceExhausted: STORAGE_FULL, and the other errors of a file system, naming ``out``.
    """
    if nnx.state(model, nnx.LoRAParam):
        raise InvalidArgument(
            "the model has LoRA weights: save the adapter, and merge it into the base",
            reason="EXPORT_INVALID",
        )
    shapes = model.description.tensor_shapes()
    parameters = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))

    def value_of(name: str) -> npt.NDArray[Any]:
        path = tuple(int(part) if part.isdigit() else part for part in model.path_of(name).split("."))
        value: npt.NDArray[Any] = np.asarray(parameters[path][...])
        return value.reshape(shapes[name][::-1]).T if is_transposed(name) else value.reshape(shapes[name])

    with new_folder(out) as folder:
        weight_map: dict[str, str] = {}
        size = 0
        for file in weight_files(base):
            kept = {
                name: tensor
                for name, tensor in read_header(file).items()
                if name in shapes and name not in weight_map
            }
            tensor_files.write(folder / file.name, kept, value_of)
            weight_map |= dict.fromkeys(kept, file.name)
            size += sum(tensor.end - tensor.begin for tensor in kept.values())
        if (base / INDEX_FILE).is_file():
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        write_companions(base, folder, conversation)


def transformers_logits(path: Path, sequences: Sequence[Sequence[int]]) -> Iterator[npt.NDArray[np.float32]]:
    """The ``Reference`` computed by ``transformers``, with its plain ("eager") attention.

    Raises:
        FailedPrecondition: TORCH_MISSING, with the command that installs what is missing.
    """
    torch, transformers = _import()
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(path), dtype=torch.float32, local_files_only=True, attn_implementation="eager"
    )
    model.eval()

    def run(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            found: npt.NDArray[np.float32] = model(torch.tensor([list(tokens)])).logits[0].numpy()
        return found

    return (run(tokens) for tokens in sequences)


def _import() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"package {error.name} is missing, which computes the reference; run: {INSTALL_COMMAND}",
            reason="TORCH_MISSING",
            metadata={"package": str(error.name), "command": INSTALL_COMMAND},
        ) from None
    return torch, transformers


class PromptParity(BaseModel):
    """How one prompt compared.

    ``tokens`` is its length, ``max_abs_difference`` the largest difference of a logit, ``top1_agreement`` the
    share of positions with the same most likely next token.
    """

    model_config = ConfigDict(frozen=True)

    prompt: str
    tokens: int
    max_abs_difference: float
    top1_agreement: float


class VerifyReport(BaseModel):
    """Result of ``verify``; ``passed`` where no logit differs by more than ``tolerance``."""

    model_config = ConfigDict(frozen=True)

    path: Path
    passed: bool
    tolerance: float
    max_abs_difference: float
    prompts: list[PromptParity]
    versions: dict[str, str]


def verify(
    path: Path | str,
    *,
    prompts: Sequence[str] = PROMPTS,
    tolerance: float = TOLERANCE,
    reference: Reference = transformers_logits,
) -> VerifyReport:
    """Compare Tunix's logits with the reference's, both in float32, at every position of every prompt.

    Raises:
        FailedPrecondition: TORCH_MISSING with the command that installs what is missing, or
            BASE_MODEL_UNSUPPORTED.
    """
    folder = Path(path)
    sequences = load_tokenizer(folder).encode_batch(prompts)
    expected = reference(folder, sequences)
    mesh = make_mesh()
    model = load_model(folder, dtype="float32", mesh=mesh)
    results = []
    for prompt, tokens, wanted in zip(prompts, sequences, expected, strict=True):
        ids = jnp.asarray([tokens], jnp.int32)
        with mesh, jax.default_matmul_precision("highest"):
            found = np.asarray(logits(model, ids, jnp.ones_like(ids, bool))[0])
        parity = PromptParity(
            prompt=prompt,
            tokens=len(tokens),
            max_abs_difference=float(np.abs(found - wanted).max()),
            top1_agreement=float((found.argmax(-1) == wanted.argmax(-1)).mean()),
        )
        results.append(parity)
    worst = max(result.max_abs_difference for result in results)
    return VerifyReport(
        path=folder,
        passed=worst <= tolerance,
        tolerance=tolerance,
        max_abs_difference=worst,
        prompts=results,
        versions=package_versions(["jax", "google-tunix", "torch", "transformers"]),
    )
