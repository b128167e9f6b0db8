"""Run by Alembic."""

from tunix_rt_exporter.tables import VERSION_TABLE, metadata
from tunix_rt_kit.database import engine as alembic_env

alembic_env.run(metadata, VERSION_TABLE)
