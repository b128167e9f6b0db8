"""The child process of one training job: ``python -m tunix_rt_trainer.worker JOB_DIR``.

The only rooms of the trainer that may import jax. No server process imports this package.
"""
