"""The release in numbers: what a token of each Gemma 3 model costs and gives, and what its catalogue of dictionaries holds."""

from __future__ import annotations

from dataclasses import dataclass

from diascope.recipes.planning.machine import Machine
from diascope.recipes.planning.shape import Shape
from diascope.recipes.suite import depths

K = 1024
FOUR_DEPTHS = (16 * K, 64 * K, 256 * K, 1024 * K)
TRANSCODERS = (16 * K, 64 * K, 256 * K)
EVERY_LAYER = (16 * K, 256 * K)
CONTEXT = 1024


@dataclass(frozen=True)
class Line:
    """One model of the release on one device."""

    model: str
    d_model: int
    layers: int
    attn_out: int
    gflop: float
    """A token, 1,024 of context."""
    elements: int
    """A token, four sites a layer."""
    tokens_per_second: float
    gigabytes_per_second: float
    """Produced in bfloat16 at all sites."""
    dictionaries: int
    """Single-layer ones that the folder names in full make (docs/scale.md)."""
    parameters: float
    harvest_hours: float
    dense_hours: float
    """Training all of them with dense products, 6 operations a parameter and row."""
    sparse_hours: float
    """The encoder product alone: the bound of sparse kernels."""


def line(shape: Shape, machine: Machine, tokens: float) -> Line:
    """The release's numbers for one model; every dictionary sees `tokens` rows."""
    flops = shape.flops(CONTEXT)
    rate = machine.flops / flops
    count, total, encoder = catalogue(shape)
    return Line(
        shape.name, shape.d_model, shape.layers, shape.attention, flops / 1e9, shape.elements, rate, rate * shape.elements * 2 / 1e9,
        count, total, tokens / rate / 3600, 6 * total * tokens / machine.flops / 3600, 2 * encoder * tokens / machine.flops / 3600,
    )  # fmt: skip


def catalogue(shape: Shape) -> tuple[int, float, float]:
    """(dictionaries, parameters, encoder weights) of the release's single-layer folders of one model."""
    d, count, total, encoder = shape.d_model, 0, 0.0, 0.0

    def add(layers: int, d_in: int, d_out: int, width: int, classes: int, affine: bool = False) -> None:
        nonlocal count, total, encoder
        n = layers * classes * (2 if affine else 1)
        count, encoder = count + n, encoder + n * d_in * width
        total += n * width * (d_in + d_out) + (layers * classes * d_in * d_out if affine else 0)

    four = len(depths(shape.layers))
    for width in (d, shape.attention, d):
        for latents in FOUR_DEPTHS:
            add(four, width, width, latents, 3)
        for latents in EVERY_LAYER:
            add(shape.layers, width, width, latents, 2)
    for latents in TRANSCODERS:
        add(four, d, d, latents, 3, affine=True)
    for latents in EVERY_LAYER:
        add(shape.layers, d, d, latents, 2, affine=True)
    return count, total, encoder
