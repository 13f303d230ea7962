"""Layered networks by the names that papers give them (arXiv 2302.00232, 2109.14247, 2304.13289).

``64C5s-64C5s-64C5 (F64C3u)`` is three convolutions of 64 channels and kernel 5, the first two of stride 2, and a
feedback of kernel 3 that brings the last layer's map to twice its side. ``P2`` is a layer of spiking neurons that each
average a square of side 2, ``M2`` one of gates that send a spike where any neuron of a square of side 2 does, a bare
number a dense layer, and ``A256`` a dense layer that hears the mean of each channel. With ``+`` a convolution also
hears the layer two before it: ``64C3-64C3-64C3+`` is a residual block behind a convolution.
"""

from __future__ import annotations

import math
import re

from spikebench.layered_networks import Layer, LayeredNetwork
from spikebench.neurons import LIFParameters, SoftResetParameters

_NUMBER = r"[1-9]\d*"
_LAYER = re.compile(
    rf"(?P<channels>{_NUMBER})C(?P<kernel>{_NUMBER})(?P<stride>s?)(?P<shortcut>\+?)"
    rf"|(?P<kind>[PM])(?P<side>{_NUMBER})|(?P<mean>A?)(?P<dense>{_NUMBER})"
)
_FEEDBACK = re.compile(rf"F(?P<channels>{_NUMBER})(?:C(?P<kernel>{_NUMBER})(?P<enlarge>u?))?\)")


def feedback_network(
    architecture: str,
    inputs: int,
    picture: tuple[int, ...],
    outputs: int,
    neuron: SoftResetParameters | LIFParameters,
) -> LayeredNetwork:
    """The network that an architecture describes, as ``64C5s-64C5s-64C5 (F64C3u)`` or ``400 (F400)``.

    Args:
        architecture: layers joined by ``-``: ``<channels>C<kernel>``, with ``s`` of stride 2 and then with ``+`` of a
            shortcut, ``P<side>``, ``M<side>``, or the width of a dense layer, after ``A`` of channels' means; then in
            brackets the feedback: ``F<channels of the first layer>``, between maps with ``C<kernel>`` and, where the
            last layer's map is half as large, ``u``.
        inputs: input lines, the data's constant line included.
        picture: (channels, height, width) of the others; empty where they are none, or the first layer is dense.
        outputs: values of the read-out.
        neuron: nominal constants; those of ``LIFParameters`` have no feedback, and others no shortcuts.

    Raises:
        ValueError: it cannot be read, or does not fit.
    """
    forward, _, rest = architecture.partition(" (")
    layers = [_layer(word, architecture) for word in forward.split("-")]
    if (layers[0].kind != "dense" or layers[0].mean) and (not picture or math.prod(picture) != inputs - 1):
        raise ValueError(
            f"architecture {architecture!r}: convolutions and pools need pictures; found {inputs - 1} lines, {picture}"
        )
    kernel, enlarge = 0, 1
    if rest:
        if not layers[0].trained:
            raise ValueError(
                f"architecture {architecture!r}: feedback must go to a layer of trained weights, not a pool"
            )
        found, dense = _FEEDBACK.fullmatch(rest), layers[-1].kind == "dense"
        if found is None or int(found["channels"]) != layers[0].channels or (dense == bool(found["kernel"])):
            raise ValueError(
                f"architecture {architecture!r}: found the feedback {rest.removesuffix(')')!r}, expected "
                f"F{layers[0].channels}, of maps with C<kernel> and perhaps u, in brackets"
            )
        kernel, enlarge = int(found["kernel"] or 1), 2 if found["enlarge"] else 1
        if dense and layers[0].kind != "dense":
            side = picture[1] + 2 * (layers[0].kernel // 2) - layers[0].kernel
            kernel, enlarge = side // layers[0].stride + 1, 1
    return LayeredNetwork(
        inputs, (), outputs, neuron, picture=tuple(picture), layers=tuple(layers), feedback=kernel, enlarge=enlarge
    )


def _layer(word: str, architecture: str) -> Layer:
    found = _LAYER.fullmatch(word)
    if found is None:
        raise ValueError(
            f"architecture {architecture!r}: found the layer {word!r}, expected e.g. 64C5, 64C5s, 64C5+, P2, M2, "
            "300 or A300"
        )
    if found["side"]:
        return Layer("pool" if found["kind"] == "P" else "largest", 0, int(found["side"]), int(found["side"]))
    if found["dense"]:
        return Layer("dense", int(found["dense"]), 0, 1, mean=bool(found["mean"]))
    stride, shortcut = 2 if found["stride"] else 1, bool(found["shortcut"])
    return Layer("convolution", int(found["channels"]), int(found["kernel"]), stride, shortcut=shortcut)
