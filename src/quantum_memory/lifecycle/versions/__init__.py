"""Versions as data: steps between them, the shortest way over steps, and what differs between two documents."""
