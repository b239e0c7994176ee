"""Scores that ask the subject model itself, and no judge. Chance 1/2.

surprisal   1. loss of a window's tokens with nothing before it, and with the description before it
            2. how much the description saves, in nats a token: more where the latent fires, if it says what is going on there
output      1. steer with the latent at the end of neutral windows and see how log-probabilities change
            2. do the description's own words rise above the other tokens of the corpus? (After Gur-Arieh et al. 2025, who judge
               outputs; here the model's own change is the judge.) It is causal: direct logits alone would let the template
               quote itself.

Probabilities are over the tokens of the corpus: the product with a whole vocabulary of 262,144 costs more than the trunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.latents.describe.scorers.score import Score, auroc
from diascope.latents.describe.windows import Examples, Window
from diascope.models import Model

LONGEST = 64  # tokens of a description that are read
BATCH = 8  # windows a forward pass
NEUTRAL = 4  # windows that are steered


class Subject:
    """The subject model over the tokens of a corpus; what needs no description is computed once a window or latent."""

    def __init__(self, model: Model, vocabulary: np.ndarray) -> None:
        """`vocabulary`: the ordinary token ids that occur in the corpus, ascending."""
        self.model = model
        self.vocabulary = torch.from_numpy(np.asarray(vocabulary)).long()
        self._rows = model.unembedding[self.vocabulary.to(model.device)]
        self._place = {int(t): i for i, t in enumerate(vocabulary)}
        self._plain: dict[bytes, float] = {}
        self._changes: tuple[int, Tensor] | None = None  # of the latent asked about last

    # -- surprisal
    def surprisal(self, description: str, examples: Examples, *, each: int = 8) -> Score:
        """AUROC of the nats a token that `description` saves, over `each` test positives and as many negatives."""
        windows = [*examples.positive[:each], *examples.negative[:each]]
        missing = [w for w in windows if w.tokens.tobytes() not in self._plain]
        for w, loss in zip(missing, self._losses([], missing), strict=True):
            self._plain[w.tokens.tobytes()] = loss
        prefix = self._own(description.strip() + "\n") if description.strip() else []
        told = self._losses(prefix, windows)
        saved = [self._plain[w.tokens.tobytes()] - loss for w, loss in zip(windows, told, strict=True)]
        n = min(each, len(examples.positive))
        return auroc(saved[:n], saved[n:])

    def _own(self, text: str) -> list[int]:
        """Ids of `text` without BOS, cut."""
        return self.model.tokenize(text)[int(self.model.bos_id is not None) :][:LONGEST]

    @torch.no_grad()
    def _losses(self, prefix: Sequence[int], windows: Sequence[Window]) -> list[float]:
        """Mean loss of each window's tokens from its second on, after BOS and `prefix`."""
        bos = [self.model.bos_id] if self.model.bos_id is not None else []
        before, found = [*bos, *prefix], []
        for at in range(0, len(windows), BATCH):
            tokens = np.stack([w.tokens for w in windows[at : at + BATCH]])
            ids = torch.tensor([[*before, *row] for row in tokens.tolist()])
            hidden = self.model.hidden(ids)[:, len(before) : -1]
            logp = self._logits(hidden).log_softmax(-1)
            target = torch.searchsorted(self.vocabulary, torch.from_numpy(tokens[:, 1:]).long().contiguous())
            found += (-logp.gather(-1, target[..., None].to(logp.device)).mean((1, 2))).tolist()
        return found

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits over the corpus's tokens of `hidden` [..., d_model], float32."""
        return self.model.scaled_logits(hidden.to(self._rows.dtype) @ self._rows.t()).float()

    # -- output
    def output(self, description: str, examples: Examples, dictionary: Dictionary) -> Score:
        """AUROC of the change in log-probability under steering: the description's words against all other tokens.

        A description without a word that the corpus has says nothing about the output: 1/2.
        """
        if self._changes is None or self._changes[0] != examples.latent:
            self._changes = examples.latent, self._steered(examples, dictionary)
        named = self._named(description)
        change = self._changes[1].numpy()
        if not named:
            return Score(0.5, len(change))
        inside = np.zeros(len(change), bool)
        inside[named] = True
        return auroc(change[inside], change[~inside])

    def _named(self, description: str) -> list[int]:
        """Places in the vocabulary of the description's words, with and without a space before them."""
        found = set()
        for word in description.replace('"', " ").replace(",", " ").replace(";", " ").split():
            for spelled in (word, f" {word}"):
                ids = self._own(spelled)
                if len(ids) == 1 and ids[0] in self._place:
                    found.add(self._place[ids[0]])
        return sorted(found)

    @torch.no_grad()
    def _steered(self, examples: Examples, dictionary: Dictionary) -> Tensor:
        """Mean change of the log-probabilities [V] after neutral windows when the latent is at its largest on every token."""
        neutral = torch.from_numpy(np.stack([w.tokens for w in examples.negative[-NEUTRAL:]])).long()
        if self.model.bos_id is not None:
            neutral = torch.cat([torch.full_like(neutral[:, :1], self.model.bos_id), neutral], 1)

        def logp() -> Tensor:
            return self._logits(self.model.hidden(neutral)[:, -1]).log_softmax(-1)

        plain = logp()
        with self.model.edit(dictionary.steer(examples.latent, dose=examples.train[0].peak)):
            return (logp() - plain).mean(0).cpu()
