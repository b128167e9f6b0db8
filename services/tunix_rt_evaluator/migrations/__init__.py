"""Alembic's revisions of the evaluator's tables."""
