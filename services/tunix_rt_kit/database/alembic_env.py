"""The body of every service's Alembic ``env.py``."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, MetaData


def run(metadata: MetaData, version_table: str) -> None:
    """Run the migrations on the connection that ``Database.upgrade`` handed over.

    Args:
        metadata: the service's tables, for comparison when a new revision is written.
        version_table: where the applied revision stands; one per service, so that services may share a
        database.

    Raises TypeError if Alembic was started in another way.
    """
    connection = context.config.attributes.get("connection")
    if not isinstance(connection, Connection):
        raise TypeError("migrations run through tunix_rt_kit.database.Database.upgrade only")
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=version_table,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()
