"""The evaluator: checkpoints and eval sets become evaluations, and two evaluations a comparison report."""
