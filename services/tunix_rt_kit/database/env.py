"""Run by Alembic: migrates what ``Database.upgrade`` says, on its connection."""

from __future__ import annotations

from alembic import context
from sqlalchemy import MetaData

from tunix_rt_kit.database.columns import NAMING

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    version_table=attributes["version_table"],
    # What a migration makes without a name is named by it.
    target_metadata=MetaData(naming_convention=NAMING),
)
with context.begin_transaction():
    context.run_migrations()
