"""What a latent's tokens are: on which it fires, after which, and how strongly it fires on each; over chosen documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diascope.latents.examples import Firings
from diascope.tokens import Sequences

MOST = 4096  # firings that are looked at, the strongest: a dense latent has a hundred thousand


@dataclass(frozen=True)
class Profile:
    """Tokens of one latent's firings, by their share of its activation."""

    tokens: np.ndarray  # [n] ids on which it fires, the largest share first
    shares: np.ndarray  # [n]
    before: np.ndarray  # [m] ids of the tokens before those, likewise
    before_shares: np.ndarray  # [m]
    text: Callable[[int], str]  # of a token id

    def commonest(self, count: int) -> np.ndarray:
        """The `count` tokens that hold most of its activation."""
        return self.tokens[:count]


def profiled(
    firings: Firings, sequences: Sequences, latent: int, documents: np.ndarray | None, text: Callable[[int], str]
) -> Profile:
    """The profile of `latent` over its firings in `documents` ([number of documents] bool; None: in all)."""
    here = firings.of(latent)
    sequence, position = firings.sequence[here], firings.position[here]
    weight = firings.activation[here]
    if documents is not None:
        kept = documents[sequences.document[sequence, position]]
        sequence, position, weight = sequence[kept], position[kept], weight[kept]
    sequence, position, weight = sequence[:MOST], position[:MOST], weight[:MOST].astype(np.float64)
    inside = position > 0
    inside[inside] &= sequences.positions[sequence[inside], position[inside]] > 1  # what stands before is no BOS
    before = sequences.tokens[sequence[inside], position[inside] - 1]
    return Profile(*_ranked(sequences.tokens[sequence, position], weight), *_ranked(before, weight[inside]), text)


def _ranked(tokens: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids, row = np.unique(tokens, return_inverse=True)
    mass = np.bincount(row, weight, len(ids)) / max(weight.sum(), 1e-30)
    order = np.argsort(-mass, kind="stable")
    return ids[order], mass[order]
