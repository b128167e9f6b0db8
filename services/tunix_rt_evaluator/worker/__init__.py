"""The child process of one evaluation: ``python -m tunix_rt_evaluator.worker JOB_DIR``.

The only rooms of the evaluator that may import jax. No server process imports this package.
"""
