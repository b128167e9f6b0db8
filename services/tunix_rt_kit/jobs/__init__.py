"""Long work beside a server: an engine that runs the jobs of a queue in the database, and child processes
that report through a folder."""
