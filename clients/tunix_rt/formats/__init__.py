"""Files that hold traces and eval items."""

from tunix_rt.formats.errors import FormatError
from tunix_rt.formats.eval_items import BUILTIN, GraderName, eval_items_from_traces, read_eval_items
from tunix_rt.formats.lines import Source
from tunix_rt.formats.traces import TraceFormat, read_traces, trace_from_json, trace_to_json

__all__ = [
    "BUILTIN",
    "FormatError",
    "GraderName",
    "Source",
    "TraceFormat",
    "eval_items_from_traces",
    "read_eval_items",
    "read_traces",
    "trace_from_json",
    "trace_to_json",
]
