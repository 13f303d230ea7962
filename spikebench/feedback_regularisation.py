"""What the training of feedback networks does to weights, currents and pictures before each step."""

from __future__ import annotations

import itertools

import torch
from torch.nn import functional

from spikebench.data import Batch, is_constant
from spikebench.draws import uniform
from spikebench.feedback_settings import FeedbackSettings
from spikebench.layered_networks import LayeredNetwork
from spikebench.method import Task
from spikebench.seeds import Streams


def restricted(net: LayeredNetwork, weights: torch.Tensor, largest: float) -> torch.Tensor:
    """Weights [B, P] with the feedback's Frobenius norm at most ``largest``; 0 leaves them.

    The authors' code estimates the norm by 64 random vectors; here it is computed.
    """
    if not net.feedback or not largest:
        return weights
    made = []
    for own in weights:
        parts, biases = net.split(own)
        shrink = (largest / net.feedback_norm(own.double())).clamp(max=1.0).float()
        made.append(net.join([*parts[:-1], parts[-1] * shrink], biases))
    return torch.stack(made)


def dropout_masks(
    net: LayeredNetwork, settings: FeedbackSettings, batch: Batch, streams: Streams, number: int
) -> torch.Tensor | None:
    """Dropout, 0 or 1 / (1 - p), of each layer's currents and of the feedback's; None where nothing is dropped."""
    if not settings.dropout:
        return None
    widths = (*net.widths, net.widths[0] if net.feedback else 0)
    shares = uniform(streams, (batch.inputs.shape[1], sum(widths)), "dropout", number)
    masks = (shares >= settings.dropout).float() / (1 - settings.dropout)
    spared = [
        layer.kind == "pool" or (settings.dropout_of == "dense" and layer.kind != "dense") for layer in net.layers
    ]
    parts = masks.split(widths, dim=2)
    kept = zip(parts, [*spared, settings.dropout_of == "dense" and spared[0]], strict=True)
    whole = torch.cat([torch.ones_like(part) if spare else part for part, spare in kept], dim=2)
    return whole if net.feedback else torch.cat([whole, torch.ones_like(parts[0])], dim=2)


def augmented(task: Task, batch: Batch, streams: Streams, number: int) -> Batch:
    """Pictures of a minibatch, each shifted and mirrored at random, the same at every time step."""
    settings = task.settings
    if not (settings.crop or settings.flip):
        return batch
    constant, steps = is_constant(batch.inputs), batch.inputs.shape[2]
    inputs = batch.inputs[:, :, :1] if constant else batch.inputs
    pictures, side = inputs[batch.index][..., :-1].unflatten(3, task.info.layout), task.info.layout[-1]
    with torch.device("cpu"):  # where it is read, whatever device the pictures are on
        draws = uniform(streams, (inputs.shape[1], 3), "augmentation", number)
    crop = settings.crop
    places = (draws[..., :2] * (2 * crop + 1)).long().clamp(max=2 * crop).tolist()
    mirrored = (draws[..., 2] < 0.5).tolist()
    padded = functional.pad(pictures, (crop, crop, crop, crop))
    shown = torch.empty_like(pictures)
    for b, n in itertools.product(*map(range, draws.shape[:2])):
        y, x = places[b][n]
        one = padded[b, n, ..., y : y + side, x : x + side]
        shown[b, n] = one.flip(-1) if settings.flip and mirrored[b][n] else one
    whole = torch.cat([shown.flatten(3), inputs[batch.index][..., -1:]], dim=3)
    whole = whole.expand(-1, -1, steps, -1) if constant else whole
    return Batch(whole, batch.targets[batch.index], torch.arange(len(whole), device=whole.device))
