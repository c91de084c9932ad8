"""PAD values as qubits, and back.

`pad_encoding` is the code (PAD-Ry, version 1), `entangler` what may follow it, `measurement` outcomes and the
correction of readout errors, `noise` Kraus channels, and `trajectory` the ways from one emotion to another.
"""
