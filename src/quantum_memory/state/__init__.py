"""What is remembered: plain values, without input or output.

`quantum_state` and `matrix_product_state` hold quantum states, `pad` and `emotional_state` emotions, `memory_state` all
of it together with the classical data around it. `document` takes a memory apart into one document plus named arrays,
the form that every format stores, and `metrics` says how far two states are from each other.
"""
