"""A contact sheet: what the inputs of a data set look like, and what its recordings are like in numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from spikebench import plugins
from spikebench.config import Config
from spikebench.data import SpikeData, dense
from spikebench.errors import Unavailable
from spikebench.events.binning import Binning, bin_events
from spikebench.events.prepared import RATE_BINS, Recordings, prepare, statistics
from spikebench.figures.drawing import plain, save, write_document
from spikebench.figures.style import WIDTH, house_style, small_print
from spikebench.preparation import DataJob

ON, OFF = (0.0, 0.45, 0.70), (0.84, 0.37, 0.0)
#: Moments that are shown of a recording, each this long.
MOMENTS, MOMENT_US = 8, 50_000
#: Pixels that are shown around the crop.
MARGIN = 10


def draw_sheet(job: DataJob, config: Config, destination: Path) -> None:
    """Write ``<job>.png``, ``.pdf`` and ``.json`` (caption and numbers) beside each other.

    Args:
        job: which data.
        config: of the plan.
        destination: the JSON file.
    """
    module = plugins.load("datasets", job.dataset, config.root)
    settings = module.Settings(**job.loading)
    with house_style():
        try:
            data: SpikeData = module.load(settings)
            if hasattr(module, "recordings"):
                figure, document = _recordings(
                    module.recordings(settings), module.prepare(settings, 1, lambda sentence: None)
                )
            else:
                figure, document = _pictures(data)
            document["title"] = data.provenance.name
        except Unavailable as error:
            figure, document = Figure(figsize=(WIDTH, 1.2)), {"title": job.dataset, "caption": f"Unavailable: {error}"}
            document |= {"alt": document["caption"], "numbers": {}}
            figure.text(0.5, 0.5, document["caption"], ha="center", va="center", wrap=True)
        small_print(figure, "", job.kind, config.name)
        save(figure, destination.parent, destination.stem)
    document |= {"name": job.name, "kind": job.kind, "source": job.source}
    write_document(plain(document), destination.parent, destination.stem)


def _recordings(recordings: Recordings, place: Path) -> tuple[Figure, dict[str, Any]]:
    """One recording a class over time, and the statistics of all."""
    manifest = prepare(recordings, place)
    classes = recordings.classes
    table = statistics(manifest, classes)
    size = (WIDTH - 1.0) / MOMENTS
    height = 0.75 + len(classes) * (size + 0.03) + 2.2
    figure = Figure(figsize=(WIDTH, height))
    crop = recordings.binning.crop
    for row, name in enumerate(classes):
        events = recordings.record(next(item for item in recordings.training if item.label == row))
        gap = recordings.duration_us // (MOMENTS + 1)
        for column in range(MOMENTS):
            start = (column + 1) * gap
            binning = Binning(bins=1, span_us=MOMENT_US, offset_us=start, binary=False)
            left, bottom = 0.8 + column * size, height - 0.75 - (row + 1) * (size + 0.03)
            panel = figure.add_axes((left / WIDTH, bottom / height, (size - 0.04) / WIDTH, (size - 0.04) / height))
            panel.imshow(_coloured(bin_events(events, binning)[0]), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            if crop:  # and a little of what lies around it
                panel.set(
                    xlim=(crop[0] - MARGIN - 0.5, crop[0] + crop[2] + MARGIN - 0.5),
                    ylim=(crop[1] + crop[3] + MARGIN - 0.5, crop[1] - MARGIN - 0.5),
                )
                panel.add_patch(Rectangle((crop[0] - 0.5, crop[1] - 0.5), *crop[2:], fill=False, lw=0.5, ec="#5a5a5a"))
            if row == 0:
                panel.set_title(f"{start / 1000:.0f} ms", size=7, pad=2)
            if column == 0:
                panel.set_ylabel(name, rotation=0, ha="right", va="center", size=8)
    figure.legend(
        handles=[Patch(color=ON, label=f"ON, brighter, {MOMENT_US // 1000} ms"), Patch(color=OFF, label="OFF, darker")],
        loc="upper left", bbox_to_anchor=(0.0, 1 - 0.28 / height), ncols=2, frameon=False,
    )  # fmt: skip
    title = recordings.provenance.name
    figure.text(0.08 / WIDTH, 1 - 0.07 / height, title, size=9.5, weight="bold", va="top")
    _numbers(figure, recordings, manifest["parts"], height)
    mean, on, kept = (float(np.mean([line[key] for line in table])) for key in list(table[0])[2:])
    seconds = (recordings.binning.span_us or recordings.duration_us) / 1e6
    caption = (
        f"{title}: one recording of each class, events of {MOMENT_US // 1000} ms at {MOMENTS} moments. "
        f"{sum(line['recordings'] for line in table):,} recordings with {mean:,.0f} events each on average; "
        f"{100 * on:.0f}% are ON; frames keep {100 * kept:.0f}% of them"
        + (f" (columns and rows {crop[0]} to {crop[0] + crop[2] - 1}, framed, of {seconds:g} s)." if crop else ".")
    )
    alt = f"Pictures of ON and OFF events for each of {len(classes)} classes over time; event counts and rates below."
    return figure, {"caption": caption, "alt": alt, "numbers": {"classes": table}}


def _coloured(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Counts [2, H, W] (OFF, ON) to a picture [H, W, 3]: white where nothing happened."""
    share = np.clip(counts / 2.0, 0, 1)[..., None]
    paper = np.ones((*counts.shape[1:], 3))
    coloured: NDArray[np.float64] = paper - share[1] * (1 - np.array(ON)) - share[0] * (1 - np.array(OFF))
    return np.clip(coloured, 0, 1)


def _numbers(figure: Figure, recordings: Recordings, parts: list[dict[str, Any]], height: float) -> None:
    """Below: events a recording by class, the rate over time, ON share and kept share by class."""
    panels = [figure.add_axes(((0.7 + i * 2.1) / WIDTH, 0.62 / height, 1.55 / WIDTH, 1.15 / height)) for i in range(3)]
    names = [name[:4] for name in recordings.classes]
    places = np.arange(len(parts))
    panels[0].boxplot(
        [np.array(part["events"]) / 1000 for part in parts], positions=places, widths=0.6, showfliers=False,
        medianprops={"color": OFF},
    )  # fmt: skip
    panels[0].set(title="1,000 events a recording", ylim=(0, None))
    seconds = (np.arange(RATE_BINS) + 0.5) * recordings.duration_us / 1e6 / RATE_BINS
    panels[1].plot(seconds, np.mean([part["rate"] for part in parts], axis=0) / 1000, color=ON)
    panels[1].set(xlabel="seconds", title="1,000 events a second", ylim=(0, None))
    for key, colour, label in (("on_share", ON, "ON share"), ("kept", OFF, "kept share")):
        values = [np.nanmean(np.array(part[key], dtype=float)) for part in parts]
        panels[2].plot(places, values, "o", color=colour, label=label, ms=3)
    panels[2].set(ylim=(0, 1.05), title="shares of the events")
    panels[2].legend(frameon=False, loc="lower left")
    for panel in (panels[0], panels[2]):
        panel.set_xticks(places, names, rotation=90 if max(map(len, names)) > 1 else 0, size=6.5)
        panel.set_xlim(-0.7, len(parts) - 0.3)


def _pictures(data: SpikeData) -> tuple[Figure, dict[str, Any]]:
    """Ten pictures of each of the first classes."""
    channels, height, width = data.layout
    labels, inputs = data.train.targets.numpy(), data.train.inputs
    shown = data.classes[:10]
    size = (WIDTH - 1.0) / 10
    total = 0.45 + len(shown) * size + 0.3
    figure = Figure(figsize=(WIDTH, total))
    for row, name in enumerate(shown):
        for column, place in enumerate(np.flatnonzero(labels == row)[:10]):
            pixels = dense(inputs[[int(place)]])[0, 0, :-1].numpy().reshape(channels, height, width)
            bottom = total - 0.45 - (row + 1) * size
            panel = figure.add_axes(
                ((0.8 + column * size) / WIDTH, bottom / total, (size - 0.04) / WIDTH, (size - 0.04) / total)
            )
            panel.imshow(np.moveaxis(pixels, 0, -1).squeeze(), cmap="gray", vmin=0, vmax=1)
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            if column == 0:
                panel.set_ylabel(name, rotation=0, ha="right", va="center", size=8)
    title = data.provenance.name
    figure.text(0.08 / WIDTH, 1 - 0.07 / total, f"{title}: learners' pictures", size=9.5, weight="bold", va="top")
    table = [
        {
            "class": name,
            **{
                part: int((split.targets == i).sum())
                for part, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
            },
        }
        for i, name in enumerate(data.classes)
    ]
    caption = (
        f"{title}: up to ten training pictures of each of {len(shown)} classes, as they are shown to the network. "
        f"{len(labels):,} for training, {len(data.validation.targets):,} for validation, "
        f"{len(data.test.targets):,} for testing."
    )
    return figure, {
        "caption": caption,
        "alt": f"A grid of pictures, a row a class: {', '.join(shown)}.",
        "numbers": {"classes": table},
    }
