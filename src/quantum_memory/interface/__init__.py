"""What the `QuantumClassicalInterface` holds, and how that becomes a memory and comes back from one."""
