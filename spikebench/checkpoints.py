"""Trainings that go on where they were, to the same bits: what a killed worker had learnt, saved every few minutes.

All that a training knows is its method's state, its traces and what its devices counted: random numbers depend on
labels, not on generators (``seeds.Streams``). A request to a worker is one or more trainings, one after the other (a
search, then the training itself), which it numbers; each number is a safetensors file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from spikebench import devices
from spikebench.chip.simulated import SimulatedChip
from spikebench.paths import replacing


class Progress(NamedTuple):
    """A training up to some round.

    Attributes:
        rounds: that are done.
        state: the method's NamedTuple of tensors.
        traces: name to a tensor a round.
        epochs: states after each epoch, where they are asked for.
    """

    rounds: int
    state: Any
    traces: dict[str, list[torch.Tensor]]
    epochs: list[Any]


class Checkpoints:
    """Of one request.

    Args:
        folder: of its files; it is made with the first of them.
        seconds: between two savings; a request that takes less never saves.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        self._clock = time.monotonic()
        self._stages = 0
        self._unsaved: list[tuple[Path, Mapping[str, torch.Tensor], Mapping[str, str]]] = []

    def stage(self) -> Stage:
        """The next training of the request."""
        self._stages += 1
        return Stage(self, self.folder / f"{self._stages:02d}.safetensors")

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() - self._clock >= self.seconds

    def later(self, path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
        """Save this with what is saved next: a training that is done is needed only by those that are not."""
        self._unsaved.append((path, tensors, notes))

    def save(self, path: Path, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, str]) -> None:
        """Save this, and what has been waiting for it."""
        self._clock = time.monotonic()
        for place, content, words in [*self._unsaved, (path, tensors, notes)]:
            with replacing(place) as temporary:
                save_file(dict(content), temporary, dict(words))
        self._unsaved.clear()


class Stage:
    """One training of a request."""

    def __init__(self, checkpoints: Checkpoints, path: Path) -> None:
        self._checkpoints, self._path = checkpoints, path

    def read(self, template: Any, chip: SimulatedChip) -> Progress | None:
        """What was saved of this training; the devices' counts become what they were then.

        Args:
            template: a state like the one that was saved.
            chip: that it is trained on.

        Returns:
            None where nothing was saved, or what is there cannot be used, which is said on standard error.
        """
        if not self._path.exists():
            return None
        try:
            with safe_open(self._path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
                notes = json.loads(file.metadata()["notes"])
            if notes["device"] != (device := devices.name(template[0])):
                raise ValueError(f"of a training on {notes['device']}, and this one is on {device}")
            states = [_state(template, tensors, f"state-{number}") for number in range(notes["states"])]
            traces = {name: list(tensors[f"trace-{name}"].unbind()) for name in notes["traces"]}
            meter = [tensors[f"meter-{number}"] for number in range(4)]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"checkpoint {self._path.name} cannot be used ({reason}): trained from the start", file=sys.stderr)
            return None
        chip.restore(meter, notes["uses"])
        print(f"training {self._path.stem} goes on after round {notes['rounds']}", file=sys.stderr)
        return Progress(notes["rounds"], states[0], traces, states[1:])

    def keep(self, progress: Progress, chip: SimulatedChip, last: bool) -> None:
        """Save, where it is time to; what is done when it is not yet is saved with what comes after it."""
        if not last and not self._checkpoints.due():
            return
        states: Sequence[Any] = [progress.state, *progress.epochs]
        tensors = {f"state-{n}-{i}": tensor for n, state in enumerate(states) for i, tensor in enumerate(state)}
        tensors |= {f"trace-{name}": torch.stack(values) for name, values in progress.traces.items()}
        meter, uses = chip.history()
        tensors |= {f"meter-{number}": values for number, values in enumerate(meter)}
        # Copies: states share memory with each other and, until the next round, with what training goes on with.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        notes = {"rounds": progress.rounds, "states": len(states), "traces": list(progress.traces), "uses": uses}
        notes["device"] = devices.name(progress.state[0])  # another would go on to other bits
        told = {"notes": json.dumps(notes)}
        if not self._checkpoints.due():
            self._checkpoints.later(self._path, tensors, told)
            return
        try:
            self._checkpoints.save(self._path, tensors, told)
        except OSError as error:  # a full disk, or another try of the job that ended and tidied up
            print(f"checkpoint {self._path.name} could not be saved ({error.strerror}); going on", file=sys.stderr)


def _state(template: Any, tensors: Mapping[str, torch.Tensor], name: str) -> Any:
    """A state whose tensors have the template's shapes and types."""
    found = [tensors[f"{name}-{number}"] for number in range(len(template))]
    for number, (own, wanted) in enumerate(zip(found, template, strict=True)):
        if own.shape != wanted.shape or own.dtype != wanted.dtype:
            raise ValueError(
                f"tensor {number} is {own.dtype} {list(own.shape)}, not {wanted.dtype} {list(wanted.shape)}"
            )
    return type(template)(*(own.to(wanted.device) for own, wanted in zip(found, template, strict=True)))
