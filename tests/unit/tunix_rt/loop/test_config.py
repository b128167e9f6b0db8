"""The YAML file of a loop."""

from __future__ import annotations

import os
import re
import runpy
import shutil
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from tunix_rt import LoopConfig, v1
from tunix_rt.errors import InvalidArgumentError
from tunix_rt.loop import specs
from tunix_rt.loop.config import DatasetConfig, EvaluationConfig, FilterConfig
from tunix_rt_kit.values import Labels

EXAMPLE = Path(__file__).parents[4] / "examples" / "loop.yaml"
SMALL = """
name: small
dataset: {id: d}
training: {base_model: m}
"""
BOMB = "a: &a [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefghi")
)


def write(folder: Path, text: str) -> Path:
    file = folder / "loop.yaml"
    file.write_text(text)
    return file


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        LoopConfig.from_yaml(write(folder, text))
    assert caught.value.reason == "CONFIG_INVALID"
    message = str(caught.value)
    assert message.startswith(f"{folder / 'loop.yaml'}: ")
    return message.removeprefix(f"{folder / 'loop.yaml'}: ")


def test_the_smallest_config_leaves_the_rest_to_the_server(tmp_path: Path) -> None:
    config = LoopConfig.from_yaml(write(tmp_path, SMALL))
    assert specs.training_spec(config.training, "datasets/d@1") == v1.TrainingSpec(
        base_model="m", dataset="datasets/d@1", lora=v1.LoraConfig(), optimizer=v1.OptimizerConfig()
    )
    assert config.eval_set.held_out_split == "test"


def test_tags_and_a_note_are_checked_as_the_server_checks_them(tmp_path: Path) -> None:
    for tags, note in (
        (["a", "b c", "x" * 64], "two\nlines\t"),
        ([str(number) for number in range(50)], "n" * 2_000),
    ):
        Labels(tags=tuple(tags), note=note)
        config = LoopConfig.from_yaml(write(tmp_path, SMALL)).called("other", tags, note)
        assert (config.name, config.tags, config.note) == ("other", tags, note)
    for wrong in (
        {"tags": [""]},
        {"tags": ["x" * 65]},
        {"tags": ["a,b"]},
        {"tags": [" a"]},
        {"tags": ["a\n"]},
        {"tags": ["a\x1b"]},
        {"tags": ["\u200b\ufeff"]},
        {"tags": ["a", "a"]},
        {"tags": [str(number) for number in range(51)]},
        {"note": "n" * 2_001},
        {"note": "\0"},
    ):
        with pytest.raises(ValidationError):
            Labels.model_validate(wrong)
        message = refused(tmp_path, SMALL + yaml.safe_dump(wrong))
        assert message.startswith(f"{next(iter(wrong))}: "), message
    with pytest.raises(InvalidArgumentError, match="name: is empty"):
        LoopConfig.from_yaml(write(tmp_path, SMALL)).called("")


def settings_of(model: type[BaseModel]) -> set[str]:
    names = set(model.model_fields)
    for field in model.model_fields.values():
        for annotation in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                names |= settings_of(annotation)
    return names


def test_the_example_shows_every_setting() -> None:
    text = EXAMPLE.read_text()
    words = {line.strip().removeprefix("#").strip().partition(":")[0] for line in text.splitlines()}
    assert settings_of(LoopConfig) <= words


def test_a_setting_that_the_example_lacks_is_added_by_make_proto(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = EXAMPLE.parents[1] / "docs"
    # As Python has it for a script.
    monkeypatch.syspath_prepend(str(docs))
    loop_example = runpy.run_path(str(docs / "generate.py"))["loop_example"]
    whole = EXAMPLE.read_text()
    assert loop_example(whole) == whole
    lacking = [line for line in whole.splitlines() if not re.match(r" *# +(max_grad_norm|min_delta):", line)]
    lines = loop_example("\n".join(lacking)).splitlines()
    noted = "Gradients are scaled down to this global norm, above 0; 0 turns it off"
    assert lines[lines.index("    # epsilon: 1.0e-8") + 1] == f"    # max_grad_norm: 1  # {noted}"
    added = lines.index("  #   min_delta: 0  # A fall counts if it is more than this, in nats")
    assert lines[added - 1].startswith("  #   patience: 3")


def test_the_settings_that_the_example_leaves_in_comments_are_right_too(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE.with_name("grader.py"), tmp_path)
    exclusive = ("random", "file", "format", "generate", "count", "start", "builtin", "families")
    lines = []
    for line in EXAMPLE.read_text().splitlines():
        bare = line.lstrip(" #")
        name, colon, _ = bare.partition(":")
        if line.startswith("  ") and line.lstrip().startswith("# ") and colon and name.isidentifier():
            line = "" if name in exclusive else line.replace("# ", "", 1)
        lines.append(line)
    config = LoopConfig.from_yaml(write(tmp_path, "\n".join(lines)))
    assert config.dataset.filter is not None
    assert config.dataset.filter.metadata_equals == {"difficulty": "easy"}
    assert config.dataset.latest == 1000
    assert config.training.optimizer.epsilon == 1e-8
    assert config.training.lora.target_modules[0] == "q_proj"
    assert config.eval_set.id == "example-test"
    # What the comments show as defaults are the contract's.
    assert config.training.lora.alpha == 2 * (config.training.lora.rank or 0)


def test_the_example_and_the_demo_are_right() -> None:
    assert LoopConfig.from_yaml(EXAMPLE).name == "example"
    with resources.as_file(resources.files("tunix_rt").joinpath("data/demo.yaml")) as demo:
        config = LoopConfig.from_yaml(demo)
    assert config.name == "demo"
    assert (config.eval_set.limit or 0) >= 100
    tools = LoopConfig.from_yaml(EXAMPLE.with_name("tools.yaml"))
    assert tools.traces is not None
    assert tools.traces.generate is not None
    assert tools.eval_set.generate is not None
    learned, asked = tools.traces.generate, tools.eval_set.generate.model_dump()
    # The same sequence, behind what is learned.
    assert asked == learned.model_dump() | {"count": asked["count"], "start": learned.count}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMALL + "trainig: {}", "trainig: unknown key; did you mean 'training'?"),
        (
            "name: x\ndataset: {id: d}\ntraining: {base_model: m, lora: {rnak: 1}}",
            "training.lora.rnak: unknown key; did you mean 'rank'?",
        ),
        (
            "nam: x\ndataset: {id: d}\ntraining: {base_model: m}",
            "nam: unknown key; did you mean 'name'? (and 1 more)",
        ),
        (
            "name: x\ndataset: {id: d}\ntraining: {base_model: m, zzz: 1}",
            "training.zzz: unknown key; known are base_model",
        ),
        ("name: x\ndataset: {id: d}\ntraining: {}", "training.base_model: is missing"),
        ("name: x\ndataset: {id: d, seed: -1}\ntraining: {base_model: m}", "dataset.seed: is -1"),
        (
            SMALL + "evaluation: {max_new_tokens: lots}",
            "evaluation.max_new_tokens: is 'lots' (a string); it should",
        ),
        (
            SMALL + "eval_set: {split: nope}",
            "eval_set.split 'nope' is not a split of the dataset (train, validation",
        ),
        (SMALL + "eval_set: {split: train}", "eval_set.split is train"),
        (
            SMALL + "eval_set: {split: test, file: x}",
            "eval_set: split, file, generate and builtin exclude each other",
        ),
        (SMALL + "traces: {}", "traces: give either file or generate"),
        (SMALL + "traces: {generate: {count: 0}}", "traces.generate.count: is 0"),
        (
            "name: x\ndataset: {id: d, latest: 1, random: 1}\ntraining: {base_model: m}",
            "dataset: latest and random",
        ),
        (
            "name: x\ndataset: {id: d, splits: {test: 1}}\ntraining: {base_model: m}",
            "dataset.splits has no train",
        ),
        (SMALL + "name: again", "not YAML: line 5, column 1: key 'name' stands twice"),
        ("name: [", "not YAML: line 1, column 8"),
        ("name: " + "[" * 5_000, "not YAML: it nests too deep"),
        ("- " * 5_000, "not YAML: it nests too deep"),
        (SMALL + "x: &x [*x]", "not YAML: line 5, column 4: its aliases stand for more than 262,144"),
        (SMALL + BOMB, "not YAML: line 10, column 4: its aliases stand for more than 262,144"),
        (SMALL + "x: 2024-13-01", "not YAML: month must be"),
        (SMALL + "x: !!int ''", "not YAML"),
        (SMALL + "x: !!timestamp x", "not YAML"),
        (SMALL + f"x: {'9' * 5_000}", "not YAML: Exceeds the limit"),
        (SMALL + "? [a]\n: b", "not YAML: line 5, column 3: found unhashable key"),
        (SMALL.replace("id: d", f"id: d, seed: 0x{'f' * 9_000}"), "dataset.seed: is enormous"),
        ("#" * 300_000, "cannot be read: is larger than 262,144 bytes"),
        ("- a", "expected settings, such as"),
        ("", "expected settings, such as"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    message = refused(tmp_path, text)
    assert message.startswith(said)
    assert "\n" not in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"nope\.yaml: no such file"):
        LoopConfig.from_yaml(tmp_path / "nope.yaml")


def test_what_is_no_file_of_text_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    for path, problem in {
        tmp_path / "pipe.yaml": "is a pipe",
        Path("/dev/zero"): "is a pipe or a device",
        tmp_path: "is a folder",
        tmp_path / "latin.yaml": "is not UTF-8 at byte 10",
    }.items():
        with pytest.raises(InvalidArgumentError, match=f"cannot be read: {problem}"):
            LoopConfig.from_yaml(path)


def test_an_alias_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = write(tmp_path, "\ufeff" + SMALL.replace("id: d", "id: &name d, version: *name"))
    assert LoopConfig.from_yaml(file).dataset.version == "d"


def test_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "name: !!python/object/apply:os.getcwd []").startswith("not YAML")


def test_input_files_are_meant_from_the_folder_of_the_yaml(tmp_path: Path) -> None:
    text = SMALL + "traces: {file: a.jsonl}\neval_set: {file: /b.jsonl}\noutput_dir: out\n"
    config = LoopConfig.from_yaml(write(tmp_path, text))
    assert config.traces is not None
    assert config.traces.file == tmp_path / "a.jsonl"
    assert config.eval_set.file == Path("/b.jsonl")
    assert config.output_dir == Path("out")


def test_what_makes_a_dataset_safe_becomes_the_contracts() -> None:
    plain = specs.dataset_spec(DatasetConfig(id="d"), v1.ChatTemplate(), (), [])
    assert plain.deduplication == v1.Deduplication(method=v1.Deduplication.METHOD_EXACT)
    assert plain.split_group == v1.SplitGroup(prompt=True)
    assert (plain.parent, plain.decontamination.HasField("ngram_words")) == ("", False)
    document = {
        "id": "d",
        "duplicates": "near",
        "similarity": 0.6,
        "group_by": "talk",
        "keep_apart": 0.7,
        "ngram_words": 0,
        "parent": "datasets/base@1",
    }
    spec = specs.dataset_spec(DatasetConfig.model_validate(document), v1.ChatTemplate(), (), [])
    assert spec.deduplication == v1.Deduplication(method=v1.Deduplication.METHOD_NEAR, threshold=0.6)
    assert spec.split_group == v1.SplitGroup(metadata_field="talk", near_duplicate_threshold=0.7)
    assert (spec.parent, spec.decontamination.HasField("ngram_words")) == ("datasets/base@1", True)
    with pytest.raises(ValidationError, match="similarity goes with duplicates: near"):
        DatasetConfig(id="d", similarity=0.6)


def test_decoding_becomes_the_contracts() -> None:
    plain = specs.tuned_evaluation_spec(EvaluationConfig(), "evalSets/e", "c")
    assert plain == v1.EvaluationSpec(eval_set="evalSets/e", checkpoint="c", decoding=v1.Decoding())
    wanted = {
        "max_new_tokens": 96,
        "batch_size": 8,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 3,
        "samples": 4,
        "log_probabilities": True,
    }
    assert set(wanted) == set(v1.Decoding.DESCRIPTOR.fields_by_name)
    config = EvaluationConfig.model_validate(wanted | {"fresh": True})
    for spec in (
        specs.tuned_evaluation_spec(config, "evalSets/e", "c"),
        specs.base_evaluation_spec(config, "evalSets/e", "m", v1.ChatTemplate()),
    ):
        assert spec.decoding == v1.Decoding(**wanted)
        assert spec.fresh


def test_the_filter_becomes_the_contracts() -> None:
    document = yaml.safe_load("""
        sources: [a]
        metadata_equals: {n: 5, flag: true, none: null}
        metadata_exists: {k: false}
        scores: {structure: 20}
        created_from: 2026-01-01T00:00:00Z
        is_conversation: false
        min_assistant_turns: 2
    """)
    message = specs.trace_filter(FilterConfig.model_validate(document))
    assert [(c.key, c.WhichOneof("condition")) for c in message.metadata] == [
        ("n", "equals"),
        ("flag", "equals"),
        ("none", "equals"),
        ("k", "exists"),
    ]
    assert message.metadata[0].equals.number_value == 5
    assert message.metadata[1].equals.bool_value is True
    assert message.metadata[2].equals.WhichOneof("kind") == "null_value"
    assert message.scores[0] == v1.ScoreCondition(criterion="structure", minimum=20)
    assert message.created_from.ToJsonString() == "2026-01-01T00:00:00Z"
    assert not message.HasField("created_before")
    assert (message.HasField("is_conversation"), message.is_conversation) == (True, False)
    assert message.min_assistant_turns == 2
    assert not message.HasField("has_tool_calls")


def test_marks_of_reasoning_are_a_name_or_two_texts(tmp_path: Path) -> None:
    def spec(marks: str) -> v1.EvaluationSpec:
        config = LoopConfig.from_yaml(write(tmp_path, f"{SMALL}evaluation: {{reasoning_marks: {marks}}}\n"))
        return specs.tuned_evaluation_spec(config.evaluation, "evalSets/e", "trainingJobs/j/checkpoints/1")

    assert spec("THINK").reasoning_marks == v1.ReasoningMarks(name="THINK")
    marks = v1.ReasoningMarks(start="<a>", end="", opened=True)
    assert spec("{start: <a>, end: '', opened: true}").reasoning_marks == marks
    assert not specs.tuned_evaluation_spec(EvaluationConfig(), "e", "c").HasField("reasoning_marks")
    for wrong, said in (("{begin: <a>}", "begin is no setting"), ("{start: 5}", "start is 5; a text")):
        text = f"{SMALL}evaluation: {{reasoning_marks: {wrong}}}\n"
        assert said in refused(tmp_path, text)


def test_a_graders_file_is_found_beside_the_yaml_and_read_before_anything_runs(tmp_path: Path) -> None:
    text = SMALL + "eval_set: {split: test, grader_file: 'own.py:score'}"
    assert refused(tmp_path, text).startswith(f"eval_set.grader_file: {tmp_path / 'own.py'}: no such file")
    (tmp_path / "own.py").write_text("def score(output, item):\n    return True\n")
    grader = LoopConfig.from_yaml(write(tmp_path, text)).eval_set.own_grader()
    assert grader is not None
    assert (grader.python.function, grader.python.source[:9]) == ("score", "def score")
