"""The test kit: what this package is tested with, for those who build on it.

What writes, and what may happen to it:

- `operations`: something that writes, in a form in which every accident can be tried on it; `invariants`: whether a
  file, a store or a folder is what it has to be then.
- `accidents`: every call of an operation fails, interrupts, is the last one, or loses the power.
- `faults`: the operating system as `quantum_memory.durability.files.Files`, recorded, made to fail, or killed in the
  middle.
- `power_cuts`: a model of a disk, and `crash_states`, all that a power cut may leave on it.
- `loops`: runs that write one version after another until they die at a random instant; `loop_disk`: file systems of
  which the power can be cut for real, and others that get full (as root, on Linux).

What is read, and may be anything:

- `damage`: files with a bit flipped, cut short, or with something appended.
- `fuzzing`: valid inputs that are changed, with checksums that are right again.

And whether it does what it is to do:

- `strategies`: Hypothesis strategies for states, trees and memories (it needs the package ``hypothesis``).
- `conformance`: the tests that every format has to pass, as a class to inherit (it needs pytest, hypothesis, torch and
  ml_dtypes), and `examples`, what they save.
- `equality`: whether two trees are the same in every type and every bit.
"""
