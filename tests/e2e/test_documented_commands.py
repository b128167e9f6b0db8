"""Every command that README and the guide show is run as it stands there, in order, on a tiny model."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from typer.testing import CliRunner

import tunix_rt_local
from support.conversations import conversation, turn
from support.documents import PAGES, ROOT, Shown, python_blocks, shown_commands
from support.fake_endpoint import answering, completion
from support.tiny_model import ONE_LAYER, SPECIAL_TOKENS, make_tiny_model
from tunix_rt import Client, v1
from tunix_rt.cli.main import app
from tunix_rt.formats import trace_to_json
from tunix_rt.generate import generate_traces
from tunix_rt.jobs import wait_for_evaluation, wait_for_training_job
from tunix_rt_kit.models.hf_folder import WEIGHTS_FILE

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m-instruct"
VOCABULARY = 1000
WIDTH = 32
# What cannot be run here, and why.
LEFT_OUT = {
    "models pull hf://": "needs the hub",
    "traces import hf://": "needs the hub",
    "evalset import bench mmlu": "needs the hub",
    "evalset import bench --task-file lm_eval": "needs the hub",
    "models pull /downloads/": "needs a file of some gigabytes",
    "--base-model hf://": "needs the hub",
    "--base-model /models/": "names a folder of the reader's",
    "--base-model DeepSeek-R1": "names a model of the reader's",
    "loop.yaml --dry-run": "measures for half a minute; tests of the plan do it on servers that need not",
    "smollm2-135m-instruct --dry-run": "measures, too",
    "tunix-rt up": "serves until somebody stops it",
    "--server localhost": "needs servers on the default ports; the same command runs without",
}


@pytest.fixture(scope="module")
def traces() -> list[str]:
    """Lines of JSON, some of which have an answer to be scored by."""
    found = [trace.to_dict() for trace in generate_traces(count=260, seed=3)]
    for trace in found:
        trace["metadata"]["reference_answer"] = trace["final_answer"]
    return [json.dumps(trace) for trace in found]


def of_few_words(model: Path, stops: Sequence[int]) -> None:
    """Have a random model end most answers after some tokens: it would repeat one token up to the limit."""
    weights = load_file(model / WEIGHTS_FILE)
    signs = np.random.default_rng(0).choice([-1, 1], WIDTH)
    weights["model.norm.weight"] = (4 * signs).astype(np.float32)
    weights["model.embed_tokens.weight"][stops] *= 1.6
    save_file(weights, model / WEIGHTS_FILE, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, traces: list[str]) -> Path:
    """A data folder in which a tiny model has the name of the one that the pages use."""
    folder = tmp_path_factory.mktemp("data")
    stops = [2, *range(VOCABULARY - 7, VOCABULARY)]
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    model = make_tiny_model(folder / "models" / MODEL, config=ONE_LAYER | sizes | {"eos_token_id": stops})
    of_few_words(model, stops)
    # With a token a byte, no example would fit into a row of 256.
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        traces,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.save(str(model / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def server(data_dir: Path) -> Iterator[str]:
    """Where the commands find the services; judges and models of endpoints are one."""
    with answering(
        lambda _: completion("Answer: 4\nGRADE: 1"), ["qwen3-8b", "magistral", "NAME"]
    ) as endpoint:
        given = {f"TUNIX_RT_EVALUATOR_{of}_URL": endpoint.url for of in ("ENDPOINT", "JUDGE")}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            with tunix_rt_local.embedded(data_dir) as running:
                yield running.address


def go_to(folder: Path, traces: list[str], patch: pytest.MonkeyPatch) -> Path:
    """Work in a new folder that has the files which the pages name."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "examples" / "loop.yaml", folder / "loop.yaml")
    patch.chdir(folder)
    Path("traces.jsonl").write_text("\n".join(traces[:50]) + "\n")
    Path("traces.jsonl.zst").write_bytes(zstandard.compress("\n".join(traces[:50]).encode()))
    gsm8k = [
        {
            "question": f"How many are {n} and {n + 1}?",
            "answer": f"{n} + {n + 1} = {2 * n + 1}\n#### {2 * n + 1}",
        }
        for n in range(300, 340)
    ]
    for name in ("gsm8k_train.jsonl", "gsm8k_test.jsonl"):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in gsm8k))
    pq.write_table(pa.Table.from_pylist(gsm8k), "gsm8k.parquet")
    Path("my_task.yaml").write_text(
        "task: my_task\ndoc_to_text: question\ndoc_to_target: \"{{answer.split('#### ')[1]}}\"\n"
    )
    sums = [
        {"problem": f"{n} + 1?", "solution": f"{n} + 1 = {n + 1}", "answer": n + 1, "level": "easy"}
        for n in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(sums), "sums.parquet")
    Path("sums.csv").write_text(
        "prompt,steps,answer\n" + "".join(f"{n} + 2?,add two,{n + 2}\n" for n in range(3))
    )
    Path("excel.csv").write_text('Task;Work;Result;Level\n"1 + 4?";"1 + 4\n\nis 5";5;easy\n')
    Path("tasks.jsonl").write_text(json.dumps({"task": "Say 6.", "result": "6"}) + "\n")
    chat = conversation(turn("user", "Hello!"), turn("assistant", "Hello."))
    Path("chats.jsonl").write_text(trace_to_json(chat) + "\n")
    Path("capitals.csv").write_text("question,answer\nCapital of the Netherlands?,Amsterdam|A'dam\n")
    question = {
        "id": "q7",
        "prompt": "What is 2 + 2?",
        "accepted_answers": ["4"],
        "grader": "numeric",
        "category": "units",
    }
    Path("questions.jsonl").write_text(json.dumps(question) + "\n")
    return folder


class Reader:
    """Somebody who types what the pages say, with the names that were printed for JOB and the like."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = Client(address)

    def types(self, shown: Shown) -> None:
        self._prepare(shown)
        words = [self._meant(word, shown.words[0]) for word in shown.words]
        if shown.words[:2] == ("traces", "delete"):
            words.append("--yes")  # it asks on a terminal, and here is none
        piped = Path(shown.piped_from[1]).read_bytes() if shown.piped_from[:1] == ("cat",) else None
        result = CliRunner().invoke(
            app, ["--server", self.address, *words], input=piped, env=shown.environment or None
        )
        # The gate's own code says that the model is not better, which is no fault of the command.
        right = (0, 3) if "--fail-on" in words else (0,)
        assert result.exit_code in right, f"{shown}\n{result.output}\n{result.exception!r}"

    def _prepare(self, shown: Shown) -> None:
        """What the page tells the reader to do by hand, or takes as done."""
        if shown.words[:2] == ("train", "cancel"):
            spec = v1.TrainingSpec(base_model=MODEL, dataset="datasets/arithmetic@2", max_steps=6)
            self.client.trainer.create_training_job(spec)
        elif shown.words[:2] == ("train", "resume"):
            while self._jobs()[0].state != v1.TrainingJob.STATE_CANCELLED:
                time.sleep(0.05)
        elif "SEED3" in shown.words:
            # Three jobs on one dataset stand for jobs with three seeds; one of them is evaluated already.
            spec = v1.TrainingSpec(base_model=MODEL, dataset="datasets/arithmetic@2", max_steps=1)
            wait_for_training_job(self.client, self.client.trainer.create_training_job(spec).name)
            known = self._evaluation("CANDIDATE").spec
            for job in self._jobs():
                if job.spec.dataset == spec.dataset and job.checkpoint not in ("", known.checkpoint):
                    another = v1.EvaluationSpec()
                    another.CopyFrom(known)
                    another.checkpoint = job.checkpoint
                    wait_for_evaluation(self.client, self.client.evaluator.create_evaluation(another).name)
        elif "mine-corrected" in shown.words:
            items = self.client.evaluator.get_eval_set(self._evaluations()[0].spec.eval_set).items
            self.client.evaluator.create_eval_set(v1.EvalSet(eval_set_id="mine-corrected", items=items))
        elif "--on-error" in shown.words:
            with Path("traces.jsonl").open("a") as file:
                file.write('{"prompt": "unfinished"}\n')
        elif "bad.jsonl" in shown.words:
            (bad,) = map(json.loads, Path("bad.jsonl").read_text().splitlines())
            bad["text"] = Path("traces.jsonl").read_text().splitlines()[0]
            Path("bad.jsonl").write_text(json.dumps(bad) + "\n")

    def _meant(self, word: str, command: str) -> str:
        if word == "7473":
            return str(max(trace.sequence for trace in self._traces()))
        if word == "JOB":
            return self._jobs()[0].name
        if word == "REPORT":
            # Of those that were compared, one whose candidate was trained.
            reports = self.client.evaluator.list_comparison_reports()
            return next(report.name for report in reports if report.candidate.spec.checkpoint)
        if word in ("TRACE", "OTHER") or (word == "BASE" and command == "traces"):
            return self._traces()[word == "OTHER"].name
        if word in ("EVALUATION", "BASE", "CANDIDATE") or re.fullmatch(r"SEED\d", word):
            return self._evaluation(word).name
        if word == "ITEM":
            return next(
                iter(self.client.evaluator.list_evaluation_items(self._evaluations()[0].name))
            ).item_id
        return word

    def _evaluation(self, word: str) -> v1.Evaluation:
        done = self._evaluations()
        if word == "EVALUATION":
            return done[0]
        greedy = [one for one in done if not one.spec.decoding.temperature and not one.spec.endpoint_model]
        after = [one for one in greedy if one.spec.checkpoint]
        before = [
            one for one in greedy if one.spec.base_model and one.spec.eval_set == after[0].spec.eval_set
        ]
        if word == "BASE":
            return before[0]
        return after[0] if word == "CANDIDATE" else after[int(word.removeprefix("SEED")) - 1]

    def _evaluations(self) -> list[v1.Evaluation]:
        """Those that generated their answers, the newest first."""
        found = self.client.evaluator.list_evaluations()
        return [one for one in found if one.HasField("summary") and not one.HasField("regrade")]

    def _jobs(self) -> list[v1.TrainingJob]:
        return list(self.client.trainer.list_training_jobs())

    def _traces(self) -> list[v1.Trace]:
        """Two whose final answer can be scored against a reference."""
        known = v1.TraceFilter(metadata=[v1.MetadataCondition(key="reference_answer", exists=True)])
        return list(islice(self.client.trace_store.list_traces(filter=known, page_size=2), 2))


def test_every_block_of_python_of_the_pages_runs_as_it_stands(
    server: str, traces: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNIX_RT_SERVER", server)
    here = go_to(tmp_path / "here", traces, monkeypatch)
    with Client(server) as client:
        names: dict[str, Any] = {"client": client, "v1": v1}
        for page in ("README.md", "docs/guide/python.md", "docs/guide/traces.md", "docs/guide/training.md"):
            for block in python_blocks(page):
                names["trace"] = next(iter(client.trace_store.list_traces()), None)
                exec(compile(block.replace("127.0.0.1:50050", server), page, "exec"), names)
                names["client"] = client
    assert (here / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.timeout(1500)
def test_every_command_of_the_pages_runs_as_it_stands(
    server: str, traces: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webbrowser.open", lambda *_: True)
    reader = Reader(server)
    unused = set(LEFT_OUT)
    for page in PAGES:
        go_to(tmp_path / Path(page).stem, traces, monkeypatch)
        for shown in shown_commands(page):
            reason = next((part for part in LEFT_OUT if part in shown.text), None)
            if reason is None:
                reader.types(shown)
            unused.discard(reason or "")
    assert not unused
    assert (tmp_path / "README" / "report" / "report.html").exists()
    assert (tmp_path / "README" / "tuned" / "model.safetensors").exists()
