"""Where a training runs: on the CPU, or on a GPU where the method can and there is one. All else is on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from spikebench.errors import UserError
from spikebench.seeds import Streams


class _Moved(Streams):
    """The CPU's draws, moved to the default device: a GPU's own would be other numbers."""

    def generators(self, *label: object) -> list[torch.Generator]:
        with torch.device("cpu"):
            return super().generators(*label)

    def normal(self, shape: Sequence[int], *label: object) -> torch.Tensor:
        with torch.device("cpu"):
            drawn = super().normal(shape, *label)
        return drawn.to(torch.get_default_device())

    def permutation(self, length: int, *label: object) -> torch.Tensor:
        with torch.device("cpu"):
            drawn = super().permutation(length, *label)
        return drawn.to(torch.get_default_device())


def streams_for(streams: Streams, device: str) -> Streams:
    """Randomness for what runs on a device: the same numbers on each."""
    return streams if device == "cpu" else _Moved(streams.seeds)


def choose(asked: str) -> str:
    """``cuda`` or ``cpu``, for a training that may use a GPU (``resources.wants_gpu`` says which may).

    Args:
        asked: ``auto`` takes a GPU where there is one, ``cuda`` insists on it, ``cpu`` never takes one. A cluster's job
            that was given a GPU insists on it, too: it would hold it for nothing.

    Raises:
        UserError: a GPU is insisted on and there is none.
    """
    if asked != "cpu" and torch.cuda.is_available():
        return "cuda"
    if asked == "cuda" or (asked == "auto" and os.environ.get("SLURM_JOB_GPUS")):
        raise UserError("PyTorch finds no GPU here: install its CUDA build, or say `device: cpu` in config.yaml")
    return "cpu"


def name(tensor: torch.Tensor) -> str:
    """The kind of device that a tensor is on: on equal ones a training comes to the same bits."""
    return torch.cuda.get_device_name(tensor.device) if tensor.device.type == "cuda" else tensor.device.type


def prepare(device: str) -> None:
    """Have a GPU give the same bits each time, in full single precision; to be called before it is first used."""
    if device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


@contextmanager
def context(device: str) -> Iterator[None]:
    """Tensors are made on the device, and only by algorithms that give the same bits each time; the CPU's always do."""
    if device == "cpu":
        yield
        return
    prepare(device)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.device(device):
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def moved(tensors: Any, device: str) -> Any:
    """A NamedTuple of tensors on a device; a current that is constant in time stays so, stored once."""

    def own(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == device:
            return tensor
        if tensor.dim() > 1 and tensor.stride(-2) == 0:
            return tensor[..., :1, :].to(device).expand(tensor.shape)
        return tensor.to(device)

    return type(tensors)(*map(own, tensors))
