"""What was last made of a tensor, kept while that tensor lives unchanged."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Made = TypeVar("Made")


class Kept(Generic[Made]):
    """A function of a tensor that remembers its last result.

    The forward and the backward pass of a step, or the members of an ensemble, ask for the same inputs in another form.
    """

    def __init__(self, make: Callable[[torch.Tensor], Made]) -> None:
        self._make = make
        self._last: tuple[weakref.ref[torch.Tensor], int, Made] | None = None

    def __call__(self, tensor: torch.Tensor) -> Made:
        """The result for ``tensor``, from memory if it was the last one and has not changed since."""
        if self._last is None or self._last[0]() is not tensor or self._last[1] != tensor._version:
            self._last = (weakref.ref(tensor), tensor._version, self._make(tensor))
        return self._last[2]

    def forget(self) -> None:
        """Free what is kept."""
        self._last = None
