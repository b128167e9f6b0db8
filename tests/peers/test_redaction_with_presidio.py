"""Redaction with Microsoft Presidio: what it adds to our patterns, without a model and with one."""

from __future__ import annotations

import pytest

from tunix_rt import v1
from tunix_rt.redaction import Redactor
from tunix_rt.redaction.library import presidio

spacy = pytest.importorskip("spacy")


def test_it_adds_kinds_and_needs_neither_a_model_nor_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    redactor = Redactor(library=presidio())
    text = "Pay 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa, write to ann@example.com, 3 * 4 = 12 on 2024-01-02"
    redacted = redactor.text(text)
    assert redacted == "Pay <CRYPTO_1>, write to <EMAIL_1>, 3 * 4 = 12 on 2024-01-02"
    assert Redactor(library=presidio()).text(redacted) == redacted


def test_names_are_found_where_spacy_has_a_model() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Smith"}])
    redactor = Redactor(library=presidio(nlp))
    trace = redactor.trace(v1.Trace(prompt="Ann Smith asks.", final_answer='{"for":"Ann Smith"}'))
    assert (trace.prompt, trace.final_answer) == ("<PERSON_1> asks.", '{"for":"<PERSON_1>"}')
    assert redactor.counts == {"PERSON": 2}
