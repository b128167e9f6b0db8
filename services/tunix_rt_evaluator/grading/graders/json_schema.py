"""JSON that a schema allows. The sandbox checks it, since a schema's pattern may run for ever."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from tunix_rt_evaluator.grading.model import (
    CannotGrade,
    GraderSettings,
    Problem,
    Question,
    Sandbox,
    Verdict,
    grader,
)
from tunix_rt_evaluator.grading.reading.answers import read_answer
from tunix_rt_evaluator.grading.reading.calls import exactly, once, refuse
from tunix_rt_kit.canonical import canonical_json
from tunix_rt_kit.errors import InvalidArgument

_VERSION: Final = f"json_schema/2 jsonschema={metadata.version('jsonschema')}"
_MAX_SCHEMA_BYTES: Final = 64 << 10
_FENCE: Final = re.compile(r"```(?:json|JSON)?[^\S\n]*\n(.*?)```", re.DOTALL)
_NO_VALUE: Final = object()


class JsonSchemaGrader(GraderSettings):
    """Right when the answer is JSON that ``schema`` allows."""

    kind: Literal["json_schema"] = "json_schema"
    # BaseModel has a method of that name.
    schema_: Annotated[Mapping[str, Any], Field(alias="schema")]

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)


def schema_problem(schema: Mapping[str, Any]) -> str:
    """What is wrong with a JSON Schema, as the end of a sentence that begins with its name; "" if nothing
    is."""
    import jsonschema

    if not schema:
        return "is empty, and would allow anything; a JSON Schema would be right"
    try:
        size = len(canonical_json(schema))
    except InvalidArgument as error:
        return error.message
    if size > _MAX_SCHEMA_BYTES:
        return f"has {size:,} bytes; at most {_MAX_SCHEMA_BYTES:,} would be right"
    draft = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        draft.check_schema(schema, format_checker=draft.FORMAT_CHECKER)
    except jsonschema.exceptions.SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path)
        return f"is no JSON Schema: {place + ': ' if place else ''}{error.message[:300]}"
    return ""


def _problems(settings: JsonSchemaGrader, accepted: Sequence[str]) -> Iterator[Problem]:
    if problem := schema_problem(dict(settings.schema_)):
        yield ("grader", "schema"), problem
        if not settings.schema_:
            return
    for number, entry in enumerate(accepted):
        try:
            exactly(entry)
        except ValueError as error:
            yield ("accepted_answers", number), f"is {entry[:60]!r}, which is not JSON: {error}"


@grader(
    JsonSchemaGrader,
    10,
    _VERSION,
    needs=("sandbox",),
    needs_accepted=False,
    marked=lambda _, output: read_answer(output).labelled or _shows_its_end(output),
    problems=_problems,
)
def grade(settings: JsonSchemaGrader, question: Question, output: str, sandbox: Sandbox) -> Verdict:
    """Right when the answer is JSON that the schema allows, and an accepted answer if there are any."""
    text, value = _read(output)
    if value is _NO_VALUE:
        return Verdict(extracted_answer="", correct=False, explanation="the answer is not JSON")
    try:
        exact = exactly(text)
    except ValueError as error:
        return Verdict(extracted_answer=text, correct=False, explanation=f"the answer is not read: {error}")
    try:
        problem = sandbox.run("schema", schema=dict(settings.schema_), value=value)["problem"]
    except CannotGrade as error:
        raise CannotGrade(f"checking the answer by the schema: {error}") from None
    if not problem and question.accepted and all(exact != exactly(entry) for entry in question.accepted):
        problem = "the schema allows it, but it is none of the accepted answers"
    return Verdict(extracted_answer=text, correct=not problem, explanation=problem)


def _shows_its_end(output: str) -> bool:
    """Whether JSON is closed by its own signs; a number may go on."""
    return _read(output)[0].endswith(("}", "]", '"'))


def _read(output: str) -> tuple[str, Any]:
    """The JSON of the answer, or else of the whole output: of its last code block, or all of it."""
    for text in dict.fromkeys((read_answer(output).text, output)):
        blocks = _FENCE.findall(text)
        for candidate in (*blocks[-1:], text):
            try:
                return candidate.strip(), json.loads(candidate, parse_constant=refuse, object_pairs_hook=once)
            except (ValueError, RecursionError):
                continue
    return "", _NO_VALUE
