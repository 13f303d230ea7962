"""What a data set looks like, and its numbers, which are worked out by hand here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from project import Project

from spikebench import preparation
from spikebench.figures.contact_sheet import OFF, ON, _coloured, draw_sheet
from spikebench.preparation import DataJob

HEAD = """
from dataclasses import dataclass

import numpy as np

from spikebench.data import DataSettings, Provenance
from spikebench.errors import Unavailable
from spikebench.events import EVENT, prepared
from spikebench.events.binning import Binning
from spikebench.events.prepared import Item, Recordings
from spikebench.images import Images
from spikebench.static_images import PictureSettings, as_currents

KINDS = ("simulated",)
NEEDS = {"simulated": ("mnist",)}
SOURCE = Provenance("TOY-sim", "simulated", "a test", "0" * 64, "none", "nobody")


@dataclass(frozen=True)
class Settings(DataSettings):
    crop: bool = True
"""
#: Two classes. Of the first, two events in each of three recordings, all ON, one in the crop. Of the second, ten
#: in each of three, of which five are ON and all in the crop.
FILMS = """
def record(item):
    events = np.zeros(2 if item.label == 0 else 10, EVENT)
    events["t"] = np.arange(len(events)) * 90_000
    events["x"], events["y"] = 50, 50
    events["p"] = 1 if item.label == 0 else np.arange(10) % 2
    if item.label == 0:
        events["x"][1] = 3
    return events


def recordings(settings):
    return Recordings(
        name="films", training=[Item(c, n) for c in (0, 1) for n in (1, 2)], test=[Item(c, 9) for c in (0, 1)],
        record=record, binning=Binning(bins=4, span_us=1_000_000, crop=(48, 48, 26, 26) if settings.crop else None),
        duration_us=1_000_000, provenance=SOURCE, classes=("dark", "bright"),
    )


def prepare(settings, workers, say):
    folder = prepared.folder(__file__, settings)
    prepared.prepare(recordings(settings), folder, workers, say)
    return folder


def load(settings):
    return prepared.load(recordings(settings), prepared.folder(__file__, settings), settings.split_seed, None)
"""
PICTURES = """
def load(settings):
    labels = np.arange(60) % 3
    pictures = np.broadcast_to((80 * labels)[:, None, None, None], (60, 4, 5, 3)).astype(np.uint8)
    return as_currents(
        Images(pictures, labels, pictures, labels), ("dark", "grey", "bright"), SOURCE,
        PictureSettings(training=48, test=9, steps=5, split_seed=settings.split_seed),
    )
"""
GONE = """
def load(settings):
    raise Unavailable("mnist: the network is down")
"""


@pytest.fixture
def sheet(project: Project, own_store: Path, tmp_path: Path) -> Any:
    """Draw the sheet of a plug-in with this body; the JSON file."""

    def draw(body: str, settings: str = "{}") -> Path:
        (project.root / "datasets/toy.py").write_text(HEAD + body)
        config = project.config()
        job: DataJob = preparation.data_job("toy", "simulated", "mnist", settings, config)
        destination = tmp_path / "sheets" / f"{job.name}.json"
        draw_sheet(job, config, destination)
        return destination

    return draw


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_recordings_are_shown_with_their_statistics(sheet: Any) -> None:
    path = sheet(FILMS)
    assert sorted(file.suffix for file in path.parent.iterdir()) == [".json", ".pdf", ".png"]
    found = document(path)
    assert found["numbers"]["classes"] == [
        {"class": "dark", "recordings": 3, "events a recording": 2.0, "ON share": 1.0, "kept share": 0.5},
        {"class": "bright", "recordings": 3, "events a recording": 10.0, "ON share": 0.5, "kept share": 1.0},
    ]
    assert (found["title"], found["kind"], found["source"], found["name"]) == (
        "TOY-sim",
        "simulated",
        "mnist",
        path.stem,
    )
    assert found["caption"].startswith("TOY-sim: one recording of each class, events of 50 ms at 8 moments.")
    assert "6 recordings with 6 events each on average; 75% are ON; frames keep 75% of them" in found["caption"]
    assert "columns and rows 48 to 73" in found["caption"]
    assert "2 classes" in found["alt"]
    picture = imread(path.with_suffix(".png"))
    assert 0.005 < (picture[..., :3].min(axis=2) < 0.9).mean() < 0.5


def test_without_a_crop_none_is_told(sheet: Any) -> None:
    found = document(sheet(FILMS, '{"crop":false}'))
    assert [line["kept share"] for line in found["numbers"]["classes"]] == [1.0, 1.0]
    assert found["caption"].endswith("frames keep 100% of them.")


def test_on_is_blue_and_off_is_orange_and_nothing_is_white() -> None:
    counts = np.zeros((2, 1, 3))
    counts[1, 0, 1] = counts[0, 0, 2] = 2  # OFF is the first channel
    picture = _coloured(counts)
    assert picture[0, 0].tolist() == [1.0, 1.0, 1.0]
    assert picture[0, 1] == pytest.approx(ON)
    assert picture[0, 2] == pytest.approx(OFF)


def test_pictures_are_shown_with_the_sizes_of_their_parts(sheet: Any) -> None:
    found = document(sheet(PICTURES))
    lines = found["numbers"]["classes"]
    assert [line["class"] for line in lines] == ["dark", "grey", "bright"]
    assert sum(line["train"] for line in lines) == 38
    assert sum(line["validation"] for line in lines) == 10
    assert [line["test"] for line in lines] == [3, 3, 3]
    assert [line["train"] + line["validation"] for line in lines] == [16, 16, 16]
    assert "38 for training, 10 for validation, 9 for testing" in found["caption"]


def test_what_is_unavailable_is_said_in_words(sheet: Any) -> None:
    path = sheet(GONE)
    found = document(path)
    assert found["caption"] == found["alt"] == "Unavailable: mnist: the network is down"
    assert found["numbers"] == {}
    assert path.with_suffix(".png").exists()


def test_the_same_data_gives_the_same_bytes(sheet: Any) -> None:
    path = sheet(FILMS)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert sheet(FILMS) == path
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
