"""Finds the answer in what a model wrote, and reads the number or the option that it gives."""
