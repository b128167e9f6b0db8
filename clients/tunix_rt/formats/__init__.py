"""Files that hold traces and eval items."""

from tunix_rt.errors import FormatError
from tunix_rt.formats.compression import Source, compressing, is_compressed, name_of
from tunix_rt.formats.delimited import table_format
from tunix_rt.formats.eval_items import (
    BUILTIN,
    MAX_ITEMS,
    error_of_lines,
    eval_item_to_json,
    numbered_eval_items,
    read_eval_items,
    too_many,
)
from tunix_rt.formats.grading import (
    GRADER_KINDS,
    give_grader,
    grader_for,
    read_grader,
    read_grader_file,
    read_grader_text,
    read_marks,
    read_marks_text,
)
from tunix_rt.formats.item_rows import GraderName, ItemFormat, ItemReading, NotOfItemsError
from tunix_rt.formats.logs import is_log
from tunix_rt.formats.parquet import is_parquet, row_count
from tunix_rt.formats.reading import BadArguments, Lossy, Media, Record
from tunix_rt.formats.trace_items import eval_items_from_traces, numbered_trace_items
from tunix_rt.formats.traces import (
    BadLine,
    TraceFormat,
    read_records,
    read_traces,
    trace_from_json,
    trace_to_json,
)

__all__ = [
    "BUILTIN",
    "GRADER_KINDS",
    "MAX_ITEMS",
    "BadArguments",
    "BadLine",
    "FormatError",
    "GraderName",
    "ItemFormat",
    "ItemReading",
    "Lossy",
    "Media",
    "NotOfItemsError",
    "Record",
    "Source",
    "TraceFormat",
    "compressing",
    "error_of_lines",
    "eval_item_to_json",
    "eval_items_from_traces",
    "give_grader",
    "grader_for",
    "is_compressed",
    "is_log",
    "is_parquet",
    "name_of",
    "numbered_eval_items",
    "numbered_trace_items",
    "read_eval_items",
    "read_grader",
    "read_grader_file",
    "read_grader_text",
    "read_marks",
    "read_marks_text",
    "read_records",
    "read_traces",
    "row_count",
    "table_format",
    "too_many",
    "trace_from_json",
    "trace_to_json",
]
