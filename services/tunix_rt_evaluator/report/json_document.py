"""A report as JSON for programs and for reading."""

from __future__ import annotations

import json

from tunix_rt_evaluator.comparison_model import ComparisonContent
from tunix_rt_kit.text import visible_json


def render_json(name: str, digest: str, content: ComparisonContent) -> str:
    """The whole content with the report's name and digest, indented, keys in order."""
    values = {"name": name, "digest": digest, **content.model_dump(mode="json")}
    return visible_json(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)) + "\n"
