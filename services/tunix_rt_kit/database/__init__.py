"""SQLite and PostgreSQL alike: engine, sessions, migrations, column types, request ids and errors."""

from tunix_rt_kit.database.columns import NAMING, CanonicalJson, UtcDateTime, bulk_insert
from tunix_rt_kit.database.engine import Database, transaction_lock
from tunix_rt_kit.database.listing import (
    Listing,
    Ordered,
    change_labels,
    holds,
    label_values,
    listing_columns,
    made_between,
    row_fields,
)
from tunix_rt_kit.database.request_log import RequestLog, check_request_id, request_log_table

__all__ = [
    "NAMING",
    "CanonicalJson",
    "Database",
    "Listing",
    "Ordered",
    "RequestLog",
    "UtcDateTime",
    "bulk_insert",
    "change_labels",
    "check_request_id",
    "holds",
    "label_values",
    "listing_columns",
    "made_between",
    "request_log_table",
    "row_fields",
    "transaction_lock",
]
