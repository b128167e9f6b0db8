"""Leaks of an eval set planted among clean traces: which a build finds, and what it says of the clean ones.

One hundred leaks of five kinds must all be found and no clean trace dropped; lightly paraphrased leaks are
counted as they are. Everything goes through the services, embedded, as for any user.

Without a file of data these are the project's own word problems, which come from few templates and so are no
measure of false alarms.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import tunix_rt_local
from benchmarks import data
from benchmarks.options import Options
from tunix_rt import Client, jobs, v1
from tunix_rt.importing import import_traces

PLANTED: Final = 100
PARAPHRASED: Final = 100
CLEAN: Final = 1_000
_SEED: Final = 1
_NAME: Final = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+\b")
_SPACES: Final = ("  ", "\n", "\t", "\u00a0")
_SYNONYMS: Final = {
    "how many": "what number of",
    "how much": "what amount of",
    "each": "every",
    "total": "overall",
    "buys": "purchases",
    "bought": "purchased",
    "has": "owns",
    "wants": "would like",
    "needs": "requires",
    "gave": "handed",
    "gives": "hands",
    "makes": "earns",
    "sold": "sells",
    "twice": "two times",
    "half": "one half",
    "more than": "above",
    "left": "remaining",
    "there are": "we count",
    "costs": "is priced at",
    "then": "afterwards",
}


def _renamed(text: str, chance: random.Random) -> str:
    """The same problem of other people: each name in the middle of a sentence becomes another, everywhere."""
    for name in sorted(set(_NAME.findall(text))):
        text = re.sub(rf"\b{name}\b", chance.choice(("Oda", "Ilse", "Bram", "Tove", "Yuki", "Zola")), text)
    return text


def _paraphrased(text: str, chance: random.Random) -> str:
    """Other names and some other words; where there are several sentences, a question that comes first."""
    text = _renamed(text, chance)
    for word, other in _SYNONYMS.items():
        if chance.random() < 0.7:
            text = re.sub(rf"\b{word}\b", other, text, flags=re.IGNORECASE)
    *rest, question = re.split(r"(?<=[.?!]) ", text.strip())
    return " ".join([question, *rest]) if chance.random() < 0.3 else text


KINDS: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "verbatim": lambda text, _: text,
    "re-spaced": lambda text, chance: re.sub(" ", lambda _: chance.choice(_SPACES), text),
    "re-cased": lambda text, chance: "".join(chance.choice((c.upper(), c.lower())) for c in text),
    "prefix-extended": lambda text, _: f"Solve the following problem and explain each step.\n\n{text}",
    "number-preserving": _renamed,
}


def run(options: Options) -> dict[str, Any]:
    """What was found of each kind of leak, false alarms, and precision and recall for paraphrases."""
    chance = random.Random(_SEED)
    pool = list(data.variants(options, 7_473))
    chance.shuffle(pool)
    asked, clean = pool[: PLANTED + PARAPHRASED], pool[PLANTED + PARAPHRASED :][:CLEAN]
    planted = []
    for number, original in enumerate(asked):
        kind = list(KINDS)[number % len(KINDS)] if number < PLANTED else "paraphrased"
        leak = v1.Trace()
        leak.CopyFrom(original)
        leak.prompt = KINDS.get(kind, _paraphrased)(original.prompt, chance)
        # Whoever leaks a question does not leak it with our steps.
        del leak.steps[:]
        leak.steps.add(i=0, type="compute", content=f"Worked out {number}.")
        leak.metadata.update({"kind": kind})
        planted.append(leak)
    for trace in clean:
        trace.metadata.update({"kind": "clean"})
    dropped = _dropped(asked, [*planted, *clean])
    found = {kind: dropped.get(kind, 0) for kind in (*KINDS, "paraphrased", "clean")}
    caught, alarms = found["paraphrased"], found["clean"]
    return {
        "planted": PLANTED,
        "planted_found": sum(found[kind] for kind in KINDS),
        **{f"found_{kind}": f"{found[kind]} of {PLANTED // len(KINDS)}" for kind in KINDS},
        "clean_rows": len(clean),
        "clean_rows_dropped": alarms,
        "paraphrased_recall": round(caught / PARAPHRASED, 3),
        "paraphrased_precision": round(caught / max(caught + alarms, 1), 3),
    }


def _dropped(asked: list[v1.Trace], rows: list[v1.Trace]) -> dict[str, int]:
    """How many rows of each kind a build drops for the sake of an eval set of the questions ``asked``."""
    items = [
        v1.EvalItem(id=f"q{number}", prompt=trace.prompt, accepted_answers=[trace.final_answer])
        for number, trace in enumerate(asked)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="tunix-rt-bench-") as folder,
        tunix_rt_local.embedded(Path(folder)) as server,
        Client(server.address) as client,
    ):
        client.evaluator.create_eval_set(v1.EvalSet(eval_set_id="asked", items=items))
        import_traces(client, rows, batch_size=500)
        spec = v1.DatasetSpec(dataset_id="clean", eval_sets=["evalSets/asked"])
        dataset = jobs.wait_for_dataset(client, client.exporter.create_dataset(spec).name)
        report = client.exporter.read_dropped_rows(dataset.name).splitlines()
        gone = {row["id"] for row in map(json.loads, report) if row["stage"] == "contaminated"}
        counts: dict[str, int] = {}
        for trace in client.trace_store.list_traces(page_size=1_000):
            if trace.content_digest.removeprefix("sha256:") in gone:
                kind = str(trace.metadata["kind"])
                counts[kind] = counts.get(kind, 0) + 1
    return counts
