"""Each kind of grader of the contract has a file of its name, or is one of those that compare texts, with
settings of its message's names."""

from __future__ import annotations

from tunix_rt import v1
from tunix_rt.formats.grading import NEED_NO_ANSWER
from tunix_rt_evaluator.grading.model import kinds

CONTRACT = v1.Grader.DESCRIPTOR.oneofs_by_name["kind"].fields


def test_the_kinds_are_those_of_the_contract_in_its_order() -> None:
    assert [(name, kind.number) for name, kind in kinds().items()] == [
        (field.name, field.number) for field in CONTRACT
    ]


def test_a_kind_is_named_as_its_file_unless_it_is_one_of_the_string_graders() -> None:
    files = {name: kind.settings.__module__.rpartition(".")[2] for name, kind in kinds().items()}
    strings = [name for name, file in files.items() if file == "strings"]
    assert strings == ["text", "regex", "contains", "format", "token_f1"]
    assert all(name == file for name, file in files.items() if name not in strings)


def test_client_and_evaluator_agree_on_which_kinds_need_no_accepted_answer() -> None:
    assert {name for name, kind in kinds().items() if not kind.needs_accepted} == NEED_NO_ANSWER


def test_settings_have_the_names_of_their_message() -> None:
    for field in CONTRACT:
        settings = kinds()[field.name].settings
        assert settings.__name__ == field.message_type.name
        names = {entry.alias or name for name, entry in settings.model_fields.items()} - {"kind"}
        assert names == set(field.message_type.fields_by_name)
