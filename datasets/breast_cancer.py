"""Wisconsin Diagnostic Breast Cancer (WDBC): 569 samples, 30 real features, malignant (0) or benign (1).

Read from the CSV inside the installed scikit-learn (no network, and without importing scikit-learn, which would cost
every job two seconds); a test compares it with ``sklearn.datasets.load_breast_cancer``.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spikebench import encoding
from spikebench.data import DataSettings, Provenance, SpikeData, Split, hash_split, stratified_order
from spikebench.errors import Unavailable, UserError

CITATION = "Street, Wolberg, Mangasarian: Nuclear feature extraction for breast tumor diagnosis. SPIE 1905 (1993)."
LICENCE = "CC BY 4.0 (UCI Machine Learning Repository)"
KINDS = ("real",)
SHA256 = "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"


@dataclass(frozen=True)
class Settings(DataSettings):
    """How measurements become input lines (arXiv 2402.06284 leaves this unknown: all are our choices).

    Attributes:
        encoding: ``constant`` current, ``latency`` (one spike) or ``rate`` (Bernoulli spikes, drawn once and frozen).
        steps: time steps T.
    """

    encoding: str = "constant"
    steps: int = 10


def load(settings: Settings) -> SpikeData:
    """Stratified 70/30 split; min-max scaling fitted on the learner's examples; a constant-1 line.

    A fifth of the learner's examples is its validation split. Smaller training sets are nested in larger ones.

    Raises:
        Unavailable: more training examples are asked for than the training part has.
        UserError: an unknown encoding, or a data file with other bytes than those known.
    """
    features, labels, digest = _read()
    order = stratified_order(labels, settings.split_seed)
    # Every prefix of the order is stratified, so the test part is its tail.
    available = round(0.7 * len(order))
    size = available if settings.training_size is None else settings.training_size
    if size > available:
        raise Unavailable(f"breast_cancer has {available} training examples, {size} were asked for")
    learner, test = order[:size], order[available:]
    cut = size - max(2, round(0.2 * size))
    low, high = features[learner].min(axis=0), features[learner].max(axis=0)
    scaled = np.clip((features - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)

    x = torch.from_numpy(scaled.astype(np.float32))
    if settings.encoding == "constant":
        lines = encoding.constant_current(x, settings.steps)
    elif settings.encoding == "latency":
        lines = encoding.latency(x, settings.steps)
    elif settings.encoding == "rate":
        lines = encoding.rate(x, settings.steps, torch.Generator().manual_seed(settings.split_seed))
    else:
        raise UserError(
            f"breast_cancer: encoding: found {settings.encoding!r}, allowed: {', '.join(encoding.ENCODINGS)}"
        )
    lines = encoding.with_constant_line(lines)
    targets = torch.from_numpy(labels)

    def part(indices: np.ndarray) -> Split:
        chosen = torch.from_numpy(indices)
        if settings.encoding == "constant":
            return Split(lines[chosen, :1].expand(-1, settings.steps, -1), targets[chosen])
        return Split(lines[chosen], targets[chosen])

    return SpikeData(
        task="classification",
        train=part(learner[:cut]),
        validation=part(learner[cut:]),
        test=part(test),
        classes=("malignant", "benign"),
        binary_inputs=settings.encoding != "constant",
        provenance=Provenance(
            name="Wisconsin Diagnostic Breast Cancer",
            kind="real",
            source="breast_cancer.csv of the installed scikit-learn",
            sha256=digest,
            licence=LICENCE,
            citation=CITATION,
        ),
        split_sha256=hash_split(train=learner[:cut], validation=learner[cut:], test=test),
    )


def _read() -> tuple[np.ndarray, np.ndarray, str]:
    """Features [569, 30], labels [569] and the sha256 of the file."""
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("breast_cancer needs scikit-learn, which is not installed: run `make` or `pip install -e .`")
    path = Path(package.origin).parent / "datasets" / "data" / "breast_cancer.csv"
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise UserError(
            f"scikit-learn's breast_cancer.csv has sha256 {digest}, expected {SHA256}: reinstall scikit-learn"
        )
    table = np.loadtxt(content.decode().splitlines()[1:], delimiter=",")
    return table[:, :30], table[:, 30].astype(np.int64), digest
