"""How the kernels are compiled, and where the machine code is kept.

numba looks for changes in a kernel's own file only, not in the files of the kernels it calls. So the machine code lies
in a folder that is named after the sources of all of them: after any change, everything is compiled anew.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba

_PACKAGE = Path(__file__).parent
#: All kernels, and where they find their constants.
_SOURCES = [*sorted(_PACKAGE.rglob("*kernel*.py")), _PACKAGE / "networks.py", Path(__file__)]

_config: Any = numba.config
if not _config.CACHE_DIR and os.access(_PACKAGE, os.W_OK):
    _digest = hashlib.sha256(b"".join(path.read_bytes() for path in _SOURCES)).hexdigest()
    _config.CACHE_DIR = str(_PACKAGE / "__pycache__" / f"kernels-{_digest[:12]}")

#: Of every kernel. Multiply-adds may be fused, but sums are never reordered.
OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz"},
}
