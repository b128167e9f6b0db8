"""Grading: whether an answer is right, by the rule of its item's grader."""
