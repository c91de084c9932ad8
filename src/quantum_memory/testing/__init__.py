"""The test kit: what this package is tested with, for those who build on it.

- `faults`: the operating system as `quantum_memory.durability.files.Files`, recorded, made to fail, or killed in the
  middle.
- `damage`: files with a bit flipped, cut short, or with something appended.
- `strategies`: Hypothesis strategies for states, trees and memories (it needs the package ``hypothesis``).
- `conformance`: the tests that every format has to pass, as a class to inherit (it needs pytest, hypothesis, torch and
  ml_dtypes), and `examples`, what they save.
- `equality`: whether two trees are the same in every type and every bit.
"""
