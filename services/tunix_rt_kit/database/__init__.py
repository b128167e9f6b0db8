"""SQLite and PostgreSQL alike: engine, sessions, migrations, column types, request ids and errors."""

from tunix_rt_kit.database.columns import NAMING, CanonicalJson, UtcDateTime, bulk_insert
from tunix_rt_kit.database.engine import Database, transaction_lock
from tunix_rt_kit.database.request_log import RequestLog, check_request_id, request_log_table

__all__ = [
    "NAMING",
    "CanonicalJson",
    "Database",
    "RequestLog",
    "UtcDateTime",
    "bulk_insert",
    "check_request_id",
    "request_log_table",
    "transaction_lock",
]
