"""Pack documents into fixed-length sequences without letting them see one another.

1. Each document is cut into pieces of at most context - 1 tokens, and every piece opens with BOS.
2. Pieces are permuted by key over the whole corpus, so a small budget still samples every document.
3. Pieces fill sequences one after another; positions restart at each, and attention stops there.

A conversation is one piece: written by the chat template, with a role for every token, cut at `context` where it is longer,
and never broken at the end of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diascope import rng
from diascope.config import within
from diascope.models import Model, render
from diascope.models.chat import PREFIX
from diascope.tokens.corpora import Corpus, Document

SHORTEST = 16  # tokens; shorter tails of a document or a sequence are not worth a BOS


@dataclass(frozen=True)
class Sequences:
    """Packed token sequences. `document` indexes `names`; positions restart at 0 with each piece."""

    tokens: np.ndarray  # [N, context] int32
    positions: np.ndarray  # [N, context] int32
    document: np.ndarray  # [N, context] int32; -1 on padding
    names: tuple[str, ...]
    role: np.ndarray | None = None  # [N, context] int8, indices into models.ROLES; None where all is plain text

    def __len__(self) -> int:
        return len(self.tokens)

    def part(self, first: int, last: int) -> Sequences:
        """Sequences first..last (exclusive)."""
        here = slice(first, last)
        role = None if self.role is None else self.role[here]
        return Sequences(self.tokens[here], self.positions[here], self.document[here], self.names, role)

    def following(self) -> np.ndarray:
        """The next token of the same piece at each place [N, context]; -1 where none follows."""
        out = np.full_like(self.tokens, -1)
        same = (self.positions[:, 1:] == self.positions[:, :-1] + 1) & (self.document[:, 1:] >= 0)
        out[:, :-1][same] = self.tokens[:, 1:][same]
        return out

    def rows(self, model: Model) -> np.ndarray:
        """Which tokens are rows [N, context]: ordinary ones of a document, outside the chat template's prefix."""
        found = model.ordinary(torch.from_numpy(self.tokens)).cpu().numpy() & (self.document >= 0)
        return found if self.role is None else found & (self.role != PREFIX)


def split(corpus: Corpus, *, held_out: float, seed: int = 0) -> tuple[list[Document], list[Document]]:
    """(training, held-out) documents: a document is held out iff the hash of its name falls below `held_out`."""
    chosen = [rng.unit_hash(seed, d.name) < held_out for d in corpus.documents]
    train = [d for d, out in zip(corpus.documents, chosen, strict=True) if not out]
    return train, [d for d, out in zip(corpus.documents, chosen, strict=True) if out]


def pack(model: Model, documents: Sequence[Document], *, context: int, max_tokens: int, seed: int = 0) -> Sequences:
    """Sequences of `context` tokens from `documents`, at most `max_tokens` in all (BOS counted).

    Raises ValueError when the documents hold no piece of at least 16 tokens.
    """
    within("context", context, 2 * SHORTEST, 2**20, "tokens a sequence")
    pieces = _pieces(model, documents, context, max_tokens, seed)
    if not pieces:
        raise ValueError(f"no document has {SHORTEST} tokens or more: there is nothing to pack")
    bos = int(model.bos_id is not None)
    # cutting pieces at row ends adds at most a BOS a row, so no more rows than this are filled; conversations are not cut, but
    # two neighbouring rows always hold more than one row's tokens
    total = sum(p.tokens.size for p in pieces) * (2 if any(p.whole for p in pieces) else 1)
    n_rows = max(1, min(max_tokens // context, 2 + total // (context - bos - SHORTEST)))
    pad = model.tokenizer.pad_token_id or 0
    tokens = np.full((n_rows, context), pad, np.int32)
    positions = np.zeros((n_rows, context), np.int32)
    document = np.full((n_rows, context), -1, np.int32)
    role = np.zeros((n_rows, context), np.int8)
    row = column = 0
    for piece in pieces:
        ids, roles = piece.tokens, piece.role
        if piece.whole and column + ids.size > context:
            row, column = row + 1, 0
        while ids.size >= SHORTEST and row < n_rows:
            take = min(context - column, ids.size)
            here = slice(column, column + take)
            tokens[row, here], positions[row, here], document[row, here] = ids[:take], np.arange(take), piece.document
            role[row, here] = roles[:take]
            column += take
            rest = ids[take:]
            ids = np.concatenate([ids[:bos], rest]) if rest.size else rest  # the rest opens with BOS again, where there is one
            roles = np.concatenate([roles[:bos], roles[take:]])
            if context - column < SHORTEST:
                row, column = row + 1, 0
    used = max(1, min(n_rows, row + (column > 0)))
    spoken = role[:used] if any(p.whole for p in pieces) else None
    return Sequences(tokens[:used], positions[:used], document[:used], tuple(d.name for d in documents), spoken)


@dataclass(frozen=True)
class _Piece:
    document: int
    tokens: np.ndarray  # [n] int32, BOS first where there is one
    role: np.ndarray  # [n] int8
    whole: bool  # a conversation


def _pieces(model: Model, documents: Sequence[Document], context: int, max_tokens: int, seed: int) -> list[_Piece]:
    """Pieces in keyed order, tokenising no more documents than needed."""
    pieces: list[_Piece] = []
    total = 0
    for index in rng.generator(seed, "documents").permutation(len(documents)):
        here = documents[index]
        cut = _conversation(model, here, context) if here.messages else _text(model, here.text, context)
        found = [_Piece(int(index), ids, role, bool(here.messages)) for ids, role in cut if ids.size >= SHORTEST]
        pieces += found
        total += sum(p.tokens.size - int(model.bos_id is not None) for p in found)
        if total > 8 * max_tokens:  # enough to sample from: a large corpus need not be tokenised whole
            break
    order = rng.generator(seed, "pieces").permutation(len(pieces))
    return [pieces[i] for i in order]


def _text(model: Model, text: str, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    bos = [model.bos_id] if model.bos_id is not None else []
    ids, body = model.tokenize(text)[len(bos) :], context - len(bos)
    for start in range(0, len(ids), body):
        part = ids[start : start + body]
        if len(part) >= SHORTEST:  # BOS not counted
            yield np.array(bos + part, np.int32), np.zeros(len(bos) + len(part), np.int8)


def _conversation(model: Model, document: Document, context: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    try:
        found = render(model, document.messages)
    except ValueError as error:
        raise ValueError(f"{document.name}: {error}") from error
    yield np.array(found.tokens[:context], np.int32), np.array(found.role[:context], np.int8)
