"""Does PSG make up for a family of surrogates chosen badly? Accuracy by family, with k = 1 and with PSG."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spikebench.figures.drawing import Context, Drawing
from spikebench.figures.psg_criteria import calibration, family_spreads
from spikebench.figures.psg_rows import NOTE, in_points, needed, one, pairs, with_settings
from spikebench.figures.spide_rows import limits
from spikebench.figures.style import GREY, bars, canvas, key
from spikebench.figures.tables import at, in_sweep, summary
from spikebench.figures.text import measured, repetitions

TITLE = "PSG (reconstructed): families of surrogates"
EXPERIMENT = "psg_pda"

FAMILIES = ("rectangular", "triangular", "arctan", "sigmoid")
_ASIDE = {"fixed": -0.14, "psg": 0.14}
_FAINT: dict[str, Any] = {"markersize": 2.5, "alpha": 0.5, "linestyle": "none", "markeredgewidth": 0}


def select(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweep over families."""
    return in_sweep(rows, "families")


def draw(rows: pd.DataFrame, context: Context) -> Drawing:
    """On the left accuracy by family, on the right the spread over families."""
    rows = with_settings(rows, "family")
    points = summary(rows, ["variant", "arm", "family"], "accuracy")
    single = family_spreads(rows)
    spans = summary(needed(single, "of all families with one arm"), ["variant"], "spread")
    apart = one(pairs(single.assign(arm=single["variant"]), "psg", "fixed", "spread"), "difference")
    looks, names = context.present(rows), dict(zip(rows["variant"], rows["arm"], strict=True))
    families = [name for name in FAMILIES if name in set(rows["family"])]
    words_of = {"fixed": ", k = 1", "psg": ", from k = 1"}
    keys = [key(looks[names[v]], joined=False) for v in _ASIDE if v in names]
    keys += [Line2D([], [], color=GREY, marker="o", label="single repetitions", **_FAINT)]
    figure, axes = canvas(1, 2, TITLE, keys, height=2.2, wspace=0.3, gridspec_kw={"width_ratios": [2.2, 1]})
    left, right = axes[0]
    for variant, aside in _ASIDE.items():
        if variant not in names:
            continue
        style = looks[names[variant]]
        look: dict[str, Any] = {"color": style.colour, "marker": style.marker, "linestyle": "none"}
        for place, family in enumerate(families):
            own, mean = at(rows, variant=variant, family=family), at(points, variant=variant, family=family)
            left.plot([place + aside - 0.08] * len(own), own["accuracy"], **look | _FAINT)
            left.errorbar([place + aside] * len(mean), mean["mean"], yerr=bars(mean), elinewidth=0.9, **look)
        own, mean = at(single, variant=variant), at(spans, variant=variant)
        right.plot([aside * 3 - 0.12] * len(own), own["spread"], **look | _FAINT)
        right.errorbar([aside * 3] * len(mean), mean["mean"], yerr=bars(mean), elinewidth=0.9, **look)
    left.set_ylim(*limits(list(rows["accuracy"]), points))
    left.set_xticks(range(len(families)), labels=families)
    left.set_xlim(-0.5, len(families) - 0.5)
    left.set_ylabel("test accuracy (%)")
    right.set_ylim(0, limits([0.0, *single["spread"]], spans)[1])
    right.set_xticks([3 * _ASIDE[v] for v in _ASIDE if v in names], labels=[names[v] for v in _ASIDE if v in names])
    right.set_xlim(-0.9, 0.9)
    right.set_ylabel("spread over families (points)")
    for panel in axes[0]:
        panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
        panel.tick_params(left=True, bottom=False)

    n, told = repetitions(points["n"]), []
    for variant in (v for v in _ASIDE if v in names):
        found = {p["family"]: p for p in at(points, variant=variant).to_dict("records")}
        by_family = [f"{family} {measured(found[family])}" for family in families if family in found]
        told.append(f"{names[variant]}{words_of[variant]}: {', '.join(by_family)}")
    words = f"{'; '.join(told)}."
    spread_words = [f"{names[p['variant']]} {measured(p)}" for p in spans.to_dict("records")]
    words += f" Spread, largest less smallest: {', '.join(spread_words)}"
    result = calibration(rows)
    words += f"; with PSG less without, {in_points(apart)} points ({result.verdict})." if apart["n"] else "."
    caption = (
        "Test accuracy by the family of the surrogate, with the fixed sharpness k = 1 and with PSG (P1) from there: "
        f"mean and 95% Student-t interval over {n} repetitions, and single repetitions. The spread is the largest less "
        "the smallest accuracy of the families in one repetition, chance included; PSG passes if it is smaller with "
        f"it. {NOTE.capitalize()}. {words}"
    )
    alt = f"Dot plots with intervals of accuracy for {', '.join(families)}, and of its spread over families. {words}"
    note = f"mean and 95% Student-t interval, {n} repetitions; {NOTE}"
    return Drawing(
        figure, note, caption, alt, int(points["n"].max()), {"points": points, "spreads": spans, "difference": apart}
    )
