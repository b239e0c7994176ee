"""Gemma Scope 2's `examples.safetensors`: the strongest firings of every latent with the text around them, written and read.

    activations, seq_ids, positions   [S, n]   the n strongest, falling; activation 0 where a latent fires less often
    tokens                            [N, T]   the text; seq_ids index its rows
    feature_frequencies               [S]      share of the swept tokens on which it fires
    top_tokens, top_logits, bottom_tokens, bottom_logits   [S, 10]   direct logits, where the dictionary has them

A row of `tokens` is read by the model as it stands, so each piece of a document has a row of its own here (padded behind),
however it was packed for the harvest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diascope.dictionaries import Dictionary
from diascope.latents.examples import Firings
from diascope.storage.files import commit_file, reading
from diascope.storage.seals import resealed
from diascope.tokens import Sequences

NAME = "examples.safetensors"
LOGITS = {"top": "top_tokens", "top_logits": "top_logits", "bottom": "bottom_tokens", "bottom_logits": "bottom_logits"}


@dataclass(frozen=True)
class Stored:
    """What the file holds: the firings that were stored, their text, and every latent's frequency [S] over all that was swept."""

    firings: Firings
    sequences: Sequences
    frequency: np.ndarray | None  # None where the file does not say


def write_examples(
    path: str | Path,
    dictionary: Dictionary,
    firings: Firings,
    sequences: Sequences,
    *,
    most: int = 1000,
    pad: int = 0,
    logits: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write up to `most` firings a latent (fewer where none has as many) to `path`, whole or not at all.

    `logits` as `latents.logits.direct_logits` gives them, [S, 10] each.
    """
    path, S = Path(path), dictionary.d_sae
    counts = np.diff(firings.start)
    n = max(1, min(most, int(counts.max(initial=0))))
    tokens, row, first = _unpacked(sequences, pad)
    place = np.minimum(firings.start[:-1, None] + np.arange(n), max(len(firings.activation) - 1, 0))
    there = np.arange(n) < counts[:, None]

    def column(values: np.ndarray) -> np.ndarray:
        return np.where(there, values[place], 0) if len(values) else np.zeros((S, n))

    sequence, position = firings.sequence, firings.position
    tensors = {
        "activations": column(firings.activation).astype(np.float32),
        "seq_ids": column(row[sequence, position]).astype(np.int32),
        "positions": column(position - first[sequence, position]).astype(np.int32),
        "tokens": tokens,
        "feature_frequencies": (counts / max(firings.tokens, 1)).astype(np.float32),
        **{name: logits[key] for key, name in LOGITS.items() if logits},
    }
    with resealed(path.parent, path.name), commit_file(path) as work:
        save_file({k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, work, metadata={"pad": str(pad)})
    return path


def read_examples(path: str | Path, d_sae: int) -> Stored:
    """The examples in `path` of a dictionary with `d_sae` latents.

    Raises ValueError where tensors are missing, have other shapes, or point outside the text.
    """
    path = Path(path)
    with reading(path, "fetch it again"), safe_open(path, "pt") as file:
        tokens, activation = file.get_tensor("tokens"), file.get_tensor("activations").float()
        sequence, position = file.get_tensor("seq_ids").long(), file.get_tensor("positions").long()
        pad = int((file.metadata() or {}).get("pad", -1))  # ours say what their rows are filled up with; the release's are full
        frequency = file.get_tensor("feature_frequencies").float().numpy() if "feature_frequencies" in file.keys() else None
    if (
        not activation.shape == sequence.shape == position.shape
        or activation.ndim != 2
        or len(activation) != d_sae
        or tokens.ndim != 2
    ):
        raise ValueError(f"{path}: activations, seq_ids and positions must be [{d_sae}, n], and tokens [sequences, length]")
    for name, index, end in (("seq_ids", sequence, len(tokens)), ("positions", position, tokens.shape[1])):
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < end:
            raise ValueError(f"{path}: {name} reach from {int(index.min())} to {int(index.max())}, outside 0 to {end - 1}")
    activation, order = activation.sort(1, descending=True)
    sequence, position, there = sequence.gather(1, order), position.gather(1, order), activation > 0
    start = np.concatenate([[0], there.sum(1).cumsum(0).numpy()])
    value, row, column = (v[there].numpy() for v in (activation, sequence.int(), position.int()))
    firings = Firings(start, value, row, column, tokens.numel())
    return Stored(firings, _as_sequences(tokens.int().numpy(), pad), frequency)


def _unpacked(sequences: Sequences, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens [pieces, T], and for every token [N, T] its piece's number and where that begins)."""
    N, T = sequences.tokens.shape
    used = sequences.document >= 0
    begins = used & (sequences.positions == 0)
    row = np.cumsum(begins).reshape(N, T) - 1
    first = np.maximum.accumulate(np.where(begins, np.arange(T), 0), axis=1)
    tokens = np.full((max(int(begins.sum()), 1), T), pad, np.int32)
    where = np.nonzero(used)
    tokens[row[where], where[1] - first[where]] = sequences.tokens[where]
    return tokens, row, first


def _as_sequences(tokens: np.ndarray, pad: int) -> Sequences:
    """Rows as packed sequences of one document each, without what they are filled up with."""
    N, T = tokens.shape
    used = np.maximum.accumulate((tokens != pad)[:, ::-1], axis=1)[:, ::-1]
    positions = np.where(used, np.arange(T, dtype=np.int32), 0)
    document = np.where(used, np.arange(N, dtype=np.int32)[:, None], -1)
    return Sequences(tokens, positions, document, tuple(f"sequence {i}" for i in range(N)))
