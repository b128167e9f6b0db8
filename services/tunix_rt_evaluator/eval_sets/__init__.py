"""Eval sets: questions with their graders, named by their content."""
