"""Base models: the catalogue, pulling, the store of local folders, and (in their own modules) the JAX side.

Importing this package imports neither JAX nor any model code.
"""

from tunix_rt_kit.models.pull import CATALOG, CatalogEntry
from tunix_rt_kit.models.store import BaseModelInfo, ModelStore

__all__ = ["CATALOG", "BaseModelInfo", "CatalogEntry", "ModelStore"]
