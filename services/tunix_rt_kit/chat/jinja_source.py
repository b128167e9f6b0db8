"""Jinja that says what a template says, for programs that know no other kind."""

from __future__ import annotations

from importlib import resources

_FOLDER = "templates"


def builtin_source(name: str) -> str:
    """Jinja source that renders like the built-in template ``name``, in which ``bos_token`` is a variable."""
    return resources.files(__package__).joinpath(_FOLDER, f"{name}.jinja").read_text(encoding="utf-8")


def with_system_instruction(source: str, instruction: str) -> str:
    """``source``, with a leading system message put before a conversation that brings none."""
    if not instruction:
        return source
    literal = instruction.encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return (
        "{%- if messages[0].role != 'system' -%}"
        f"{{%- set messages = [{{'role': 'system', 'content': '{literal}'}}] + messages -%}}"
        "{%- endif -%}" + source
    )
