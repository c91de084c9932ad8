"""What holds for all tests."""

from hypothesis import settings

# A deadline would be an assertion about the machine.
settings.register_profile("quantum-memory", deadline=None)
settings.load_profile("quantum-memory")
