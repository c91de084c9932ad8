"""Speed, as ratios against what a user would use instead, measured in interleaved rounds: ``python -m benchmarks``."""
