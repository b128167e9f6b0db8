"""What Microsoft Presidio finds, an optional package: more numbers, and names where spaCy has a model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from tunix_rt.redaction.patterns import Finding

# Its own names of what our patterns find too.
_KINDS: Final = {"PHONE_NUMBER": "PHONE", "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN"}
# Dates and links are no secrets. E-mail addresses are found by our patterns: Presidio would ask the network.
_LEFT_OUT: Final = {"DATE_TIME", "URL", "NRP", "EMAIL_ADDRESS"}
_LEAST_SCORE: Final = 0.4


class LibraryMissingError(ImportError):
    """Presidio is not installed."""


def presidio(nlp: Any = None) -> Callable[[str], Iterator[Finding]]:
    """Finds what Presidio finds, in English. Nothing is fetched.

    Args:
        nlp: a loaded spaCy pipeline. Left out: an English model that is installed, else none; then neither
            names nor places are found.

    Raises:
        LibraryMissingError: the extra ``redact`` is not installed.
    """
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ImportError:
        raise LibraryMissingError("Presidio is not installed; pip install 'tunix-rt[redact]'") from None
    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    if nlp is None:
        models = [name for name in sorted(spacy.util.get_installed_models()) if name.startswith("en_")]
        nlp = spacy.load(models[0]) if models else spacy.blank("en")
    nlp_engine: Any = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": "given"}])
    nlp_engine.nlp = {"en": nlp}
    engine = AnalyzerEngine(nlp_engine=nlp_engine, supported_languages=["en"])
    engine.registry.remove_recognizer("EmailRecognizer")
    entities = sorted(set(engine.get_supported_entities("en")) - _LEFT_OUT)

    def find(text: str) -> Iterator[Finding]:
        for found in engine.analyze(text, language="en", entities=entities, score_threshold=_LEAST_SCORE):
            yield Finding(found.start, found.end, _KINDS.get(found.entity_type, found.entity_type))

    return find
