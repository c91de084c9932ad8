"""States of other libraries, in and out: one adapter for each library (see `quantum_memory.state.adapters`).

None imports its library before it is given a value of it, or is asked for one.
"""
