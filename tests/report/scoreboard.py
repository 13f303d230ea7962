"""Claims and provenance as the report is given them: one claim measured, one not testable."""

from __future__ import annotations

from typing import Any

SELECT = {"network": '{"hidden":[8]}', "data_settings": "{}", "settings": "{}", "fault": "paper-full"}
ARMS = {
    "treatment": {"label": "MH", "axes": {"method": "metropolis_hastings"}},
    "reference": {"label": "Backprop", "axes": {"method": "backprop", "mode": "in-the-loop"}},
}
CLAIM: dict[str, Any] = {
    "id": "M1",
    "paper": "2402.06284",
    "statement": "MH beats backprop.",
    "published": {"value": 27, "unit": "points", "source": "abstract", "text": "up to 27%"},
    "verdict": "consistent",
    "explanation": "Consistent: better, by another size.",
    "estimate": 20.04,
    "low": 17.5,
    "high": 22.5,
    "margin": 2.0,
    "n": 3,
    "deviations": ["Which chip is unknown.", "We took the mean."],
    "test": {
        "kind": "paired-difference",
        "experiment": "chip_in_the_loop",
        "metric": "accuracy",
        "select": {**SELECT, "severity": 1.0, "training_size": "max"},
        **ARMS,
    },
    "figures": ["accuracy-vs-severity", "a-figure-of-tomorrow"],
}
CLAIMS = [
    CLAIM,
    {
        **CLAIM,
        "id": "M2",
        "statement": "MH needs less data.",
        "published": {"value": "unknown", "unit": "times", "source": "nowhere", "text": "much less"},
        "verdict": "not testable",
        "explanation": "Not testable: <b>nobody</b> got there.",
        "estimate": None,
        "low": None,
        "high": None,
        "margin": None,
        "n": None,
        "deviations": ["Which chip is unknown.", "The sizes are a grid."],
        "test": {
            "kind": "size-ratio",
            "experiment": "chip_in_the_loop",
            "metric": "diagnostics.acceptance_rate",
            "select": {**SELECT, "severity": 0.5},
            **ARMS,
        },
        "figures": [],
    },
]
#: As in config/claims.yaml, cut down to what comparisons read.
DEFINITIONS: list[dict[str, Any]] = [
    {"margin": 0.03, "test": {"experiment": "chip_in_the_loop", "metric": "accuracy", "kind": "paired-difference"}},
]
PROVENANCE: dict[str, Any] = {
    "data": [
        {
            "name": "Wisconsin",
            "kind": "real",
            "source": "scikit-learn",
            "sha256": "ab" * 32,
            "licence": "CC BY 4.0",
            "citation": "Wolberg & Street",
        }
    ],
    "methods": {"backprop": "Neftci 2019"},
    "versions": {"numpy": "2.4"},
    "commit": "f" * 40,
    "cpus": 2,
    "created": "2026-11-22 10:00 UTC",
}
