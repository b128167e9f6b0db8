"""Run by Alembic."""

from tunix_rt_kit.database import engine as alembic_env
from tunix_rt_trainer.tables import VERSION_TABLE, metadata

alembic_env.run(metadata, VERSION_TABLE)
