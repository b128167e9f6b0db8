"""Base models: the catalogue, pulling, the store of local folders, and (in their own modules) the JAX side.

Importing this package imports neither JAX nor any model code.
"""
