"""The device being trained: its faults, its simulation, and the protocol that a real one would implement."""
