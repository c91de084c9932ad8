"""Files of the first implementation: recognised by their first bytes, and read into a `MemoryState`.

Nothing is written in these formats. ``verbs.py`` has the three verbs, and a module each for text, containers, archives,
stores and blobs what they need; ``windows.py`` is what is left in a store until it is written.
"""

from quantum_memory.formats.legacy.found import Legacy
from quantum_memory.formats.legacy.stores import Store
from quantum_memory.formats.legacy.verbs import ids, read, recognise

__all__ = ["Legacy", "Store", "ids", "read", "recognise"]
