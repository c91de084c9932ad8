"""The steps between versions of documents that this release has, each in a module of its own."""

from quantum_memory.lifecycle.steps.downgrade_2_0_to_1_0 import STEP as DOWNGRADE_2_0_TO_1_0
from quantum_memory.lifecycle.steps.upgrade_1_0_to_2_0 import STEP as UPGRADE_1_0_TO_2_0

STEPS = (UPGRADE_1_0_TO_2_0, DOWNGRADE_2_0_TO_1_0)
