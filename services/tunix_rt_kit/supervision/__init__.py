"""What a model learns of training examples: their tokens, how they are packed, and an audit of both."""

from tunix_rt_kit.supervision.audit import (
    MAX_NAMED_ROWS,
    AuditedRows,
    HistogramBin,
    PackingEfficiency,
    SplitAudit,
    SplitSupervision,
)
from tunix_rt_kit.supervision.examples import (
    ExampleEncoder,
    Fault,
    TextExample,
    TokenExample,
    Tokenizer,
    encode,
    parse_example,
)
from tunix_rt_kit.supervision.packing import pack

__all__ = [
    "MAX_NAMED_ROWS",
    "AuditedRows",
    "ExampleEncoder",
    "Fault",
    "HistogramBin",
    "PackingEfficiency",
    "SplitAudit",
    "SplitSupervision",
    "TextExample",
    "TokenExample",
    "Tokenizer",
    "encode",
    "pack",
    "parse_example",
]
