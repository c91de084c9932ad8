"""Checkpoints: what a run saves of itself on the way, and how it goes on from there."""
