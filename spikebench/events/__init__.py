"""Event cameras: recordings (``aedat``), their simulation (``camera``), and frames made of them (``binning``)."""

from __future__ import annotations

import numpy as np

#: One event: time in microseconds, column (to the right), row (downwards), polarity (1 is ON, brighter). Aligned to
#: 16 bytes. The names and their order are tonic's, so its transforms take such arrays.
EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")], align=True)
