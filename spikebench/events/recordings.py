"""The original recordings as data sets in the style of ``tonic.datasets``, for tonic's transforms, caches and slicers.

tonic has no MNIST-DVS, and its CIFAR10-DVS is a copy in another format, without a split. Nothing is downloaded here.
Only this module imports tonic, which takes seconds; ``files`` and ``aedat`` do the work and serve those who need none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from tonic.dataset import Dataset

from spikebench.errors import UserError
from spikebench.events import EVENT, aedat, files

Transform = Callable[..., Any] | None


class _Recordings(Dataset):  # type: ignore[misc]  # tonic has no types
    """Recordings below ``save_to/<name of the class>/``, in the order of ``files``.

    Attributes:
        data: path of each recording.
        targets: index of its class.
    """

    classes: ClassVar[tuple[str, ...]]
    sensor_size = files.SENSOR_SIZE
    dtype = EVENT
    ordering = EVENT.names

    def __init__(self, save_to: str, train: bool, transforms: tuple[Transform, ...], orientation: aedat.Orientation):
        super().__init__(save_to, *transforms)
        self.train = train
        self.orientation = orientation
        chosen = self._split().select(self._files(), train)
        self.data = [str(file.path) for file in chosen]
        self.targets = [file.label for file in chosen]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Events, [N] of ``EVENT``, and the index of their class, both transformed.

        Raises:
            IndexError: beyond the last recording; tonic's ``SlicedDataset`` goes on until then.
            AedatError: the file is damaged.
        """
        events: Any = aedat.read(self.data[index], self.orientation).events
        target: Any = self.targets[index]
        if self.transform is not None:
            events = self.transform(events)
        if self.target_transform is not None:
            target = self.target_transform(target)
        if self.transforms is not None:
            events, target = self.transforms(events, target)
        return events, target

    def _check_exists(self) -> bool:
        """Whether all 10,000 recordings, of training and testing, are there."""
        try:
            return bool(self._files())
        except UserError:
            return False

    def _files(self) -> list[files.RecordingFile]:
        raise NotImplementedError

    def _split(self) -> files.NumberSplit:
        raise NotImplementedError


class MNISTDVS(_Recordings):
    """MNIST-DVS: digits moving on a screen before a 128 x 128 event camera (doi 10.3389/fnins.2015.00481).

    Args:
        save_to: folder; ``MNISTDVS/`` in it holds the unpacked ``grabbed_data0.zip`` to ``grabbed_data9.zip``.
        train: recordings 1 to 900 of each digit, or 901 to 1000.
        scale: 4, 8, 16 or ``"scale4"`` and so on.
        transform: of the events.
        target_transform: of the class index.
        transforms: of both together.
        orientation: see ``aedat``.

    Raises:
        UserError: an unknown scale, or recordings are missing.
    """

    classes = files.DIGITS

    def __init__(
        self,
        save_to: str,
        train: bool = True,
        scale: int | str = "scale4",
        transform: Transform = None,
        target_transform: Transform = None,
        transforms: Transform = None,
        orientation: aedat.Orientation = "upright",
    ):
        self.scale = scale
        super().__init__(save_to, train, (transform, target_transform, transforms), orientation)

    def _files(self) -> list[files.RecordingFile]:
        return files.mnist_dvs_files(self.location_on_system, self.scale)

    def _split(self) -> files.NumberSplit:
        return files.mnist_dvs_split()


class CIFAR10DVS(_Recordings):
    """CIFAR10-DVS: pictures moving on a screen before a 128 x 128 event camera (doi 10.3389/fnins.2017.00309).

    Args:
        save_to: folder; ``CIFAR10DVS/`` in it holds the unpacked ``airplane.zip`` to ``truck.zip``.
        train: the training recordings, or those for testing.
        split: ``random90`` or ``first900``, see ``files.cifar10_dvs_split``: name it beside every accuracy.
        transform: of the events.
        target_transform: of the class index.
        transforms: of both together.
        orientation: see ``aedat``.

    Raises:
        UserError: an unknown split, or recordings are missing.
    """

    classes = files.OBJECTS

    def __init__(
        self,
        save_to: str,
        train: bool = True,
        split: str = "random90",
        transform: Transform = None,
        target_transform: Transform = None,
        transforms: Transform = None,
        orientation: aedat.Orientation = "upright",
    ):
        self.split = split
        super().__init__(save_to, train, (transform, target_transform, transforms), orientation)

    def _files(self) -> list[files.RecordingFile]:
        return files.cifar10_dvs_files(self.location_on_system)

    def _split(self) -> files.NumberSplit:
        return files.cifar10_dvs_split(self.split)
