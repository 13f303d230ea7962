"""Spikebench: how spiking neural networks are trained when the hardware is imperfect and data is scarce."""

from __future__ import annotations

__version__ = "0.1.0"

#: Raise this when a change of the engine alters numbers: every cell becomes stale (see ``tests/test_golden.py``).
RESULTS_VERSION = 1
