"""Pack documents into fixed-length sequences without letting them see one another.

1. Each document is cut into pieces of at most context - 1 tokens, and every piece opens with BOS.
2. Pieces are permuted by key over the whole corpus, so a small budget still samples every document.
3. Pieces fill sequences one after another; positions restart at each, and attention stops there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diascope import rng
from diascope.models import Model
from diascope.tokens.corpora import Corpus, Document

SHORTEST = 16  # tokens; shorter tails of a document or a sequence are not worth a BOS


@dataclass(frozen=True)
class Sequences:
    """Packed token sequences. `document` indexes `names`; positions restart at 0 with each piece."""

    tokens: np.ndarray  # [N, context] int32
    positions: np.ndarray  # [N, context] int32
    document: np.ndarray  # [N, context] int32; -1 on padding
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, first: int, last: int) -> Sequences:
        """Sequences first..last (exclusive)."""
        here = slice(first, last)
        return Sequences(self.tokens[here], self.positions[here], self.document[here], self.names)


def split(corpus: Corpus, *, held_out: float, seed: int = 0) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents: a document is held out iff the hash of its name falls below `held_out`."""
    chosen = [rng.unit_hash(seed, d.name) < held_out for d in corpus.documents]
    train = [d for d, out in zip(corpus.documents, chosen, strict=True) if not out]
    return train, [d for d, out in zip(corpus.documents, chosen, strict=True) if out]


def pack(model: Model, documents: Sequence[Document], *, context: int, max_tokens: int, seed: int = 0) -> Sequences:
    """Sequences of `context` tokens from `documents`, at most `max_tokens` in all (BOS counted).

    Raises ValueError when the documents hold no piece of at least 16 tokens.
    """
    pieces = _pieces(model, documents, context, max_tokens, seed)
    if not pieces:
        raise ValueError(f"no document has {SHORTEST} tokens or more: there is nothing to pack")
    bos = int(model.bos_id is not None)
    # cutting pieces at row ends adds at most a BOS a row, so no more rows than this are filled
    n_rows = max(1, min(max_tokens // context, 2 + sum(ids.size for _, ids in pieces) // (context - bos - SHORTEST)))
    pad = model.tokenizer.pad_token_id or 0
    tokens = np.full((n_rows, context), pad, np.int32)
    positions = np.zeros((n_rows, context), np.int32)
    document = np.full((n_rows, context), -1, np.int32)
    row = column = 0
    for owner, ids in pieces:
        while ids.size >= SHORTEST and row < n_rows:
            room = context - column
            take = min(room, ids.size)
            here = slice(column, column + take)
            tokens[row, here], positions[row, here], document[row, here] = ids[:take], np.arange(take), owner
            column += take
            rest = ids[take:]
            ids = np.concatenate([ids[:bos], rest]) if rest.size else rest  # the rest opens with BOS again, where there is one
            if context - column < SHORTEST:
                row, column = row + 1, 0
    used = max(1, min(n_rows, row + (column > 0)))
    return Sequences(tokens[:used], positions[:used], document[:used], tuple(d.name for d in documents))


def _pieces(
    model: Model, documents: Sequence[Document], context: int, max_tokens: int, seed: int
) -> list[tuple[int, np.ndarray]]:
    """(document index, token ids with BOS) of pieces in keyed order, tokenising no more documents than needed."""
    bos = [model.bos_id] if model.bos_id is not None else []
    body = context - len(bos)
    pieces: list[tuple[int, np.ndarray]] = []
    total = 0
    for index in rng.generator(seed, "documents").permutation(len(documents)):
        ids = model.tokenize(documents[index].text)[len(bos) :]
        for start in range(0, len(ids), body):
            part = ids[start : start + body]
            if len(part) >= SHORTEST:
                pieces.append((int(index), np.array(bos + part, np.int32)))
                total += len(part)
        if total > 8 * max_tokens:  # enough to sample from: a large corpus need not be tokenised whole
            break
    order = rng.generator(seed, "pieces").permutation(len(pieces))
    return [pieces[i] for i in order]
