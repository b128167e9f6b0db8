"""A report as JSON for programs and for reading."""

from __future__ import annotations

import json
from dataclasses import asdict

from tunix_rt_evaluator.comparisons.model import ComparisonContent
from tunix_rt_kit.text import visible_json


def render_json(name: str, digest: str, content: ComparisonContent) -> str:
    """The whole content with the report's name and digest, indented, keys in order.

    ``parts`` has what each side wrote to the items that changed, reasoning and answer as texts.
    """
    parts = {
        flip.base.item_id: {
            side: [asdict(entry) for entry in result.parts]
            for side, result in (("base", flip.base), ("candidate", flip.candidate))
        }
        for flip in content.flips
    }
    values = {"name": name, "digest": digest, "parts": parts, **content.model_dump(mode="json")}
    return visible_json(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False)) + "\n"
