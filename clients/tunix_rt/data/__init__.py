"""The demo's settings, and 25 questions of our own over eight categories, each with its accepted answers."""
