"""What the services share, and nothing else.

Rooms: ``errors`` (domain errors), ``artifacts`` (content-addressed store), ``serving`` (gRPC servers),
``database`` (SQLAlchemy engines), ``jobs`` (slots and child processes), ``chat`` (templates), ``models``
(base models).
"""
