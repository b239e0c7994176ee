"""The evaluation text as the model sees it: tokens, which of them count, and the clean model's losses, computed once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.models import Model
from diascope.sites import Site
from diascope.tokens import Sequences


@dataclass(frozen=True)
class Losses:
    """Per predicted token: cross-entropy in nats, top-1 choice, and (where asked for) KL from the clean model."""

    ce: Tensor  # [n]
    top: Tensor  # [n]
    kl: Tensor  # [n]


class EvalText:
    """Packed sequences with the positions that count.

    A row is counted when its token is ordinary (not BOS, not special). A prediction is counted when the next position
    holds an ordinary token of the same document; its loss belongs to the row that makes it.
    """

    def __init__(self, model: Model, sequences: Sequences, *, batch: int = 2) -> None:
        self.model, self.sequences, self.batch = model, sequences, batch
        tokens = torch.from_numpy(sequences.tokens).long()
        document = torch.from_numpy(sequences.document)
        self.rows = model.ordinary(tokens).cpu() & (document >= 0)  # [N, T]
        follows = torch.zeros_like(self.rows)
        restart = torch.from_numpy(sequences.positions[:, 1:]) == 0
        follows[:, :-1] = self.rows[:, 1:] & ~restart
        self.predicts = self.rows & follows  # BOS's own prediction is left out with BOS

    @property
    def documents(self) -> np.ndarray:
        """Document of every counted row [n]."""
        return self.sequences.document[self.rows.numpy()]

    @property
    def documents_of_predictions(self) -> np.ndarray:
        """Document of every counted prediction [m]."""
        return self.sequences.document[self.predicts.numpy()]

    def _batches(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        for start in range(0, len(self.sequences), self.batch):
            here = slice(start, start + self.batch)
            yield here, torch.from_numpy(self.sequences.tokens[here]).long(), torch.from_numpy(self.sequences.positions[here]).long()

    def capture(self, sites: list[Site]) -> dict[Site, Tensor]:
        """Vectors of counted rows [n, d] at `sites`, float32."""
        found: dict[Site, list[Tensor]] = {s: [] for s in sites}
        for here, tokens, positions in self._batches():
            seen = self.model.capture(tokens, sites, positions=positions)
            for site in sites:
                found[site].append(seen[site].cpu()[self.rows[here]].float())
        return {site: torch.cat(parts) for site, parts in found.items()}

    @torch.no_grad()
    def hidden(self) -> Tensor:
        """Final hidden states at counted predictions [m, d_model], under whatever edits are active."""
        parts = [
            self.model.hidden(tokens, positions=positions).cpu()[self.predicts[here]] for here, tokens, positions in self._batches()
        ]
        return torch.cat(parts)

    @property
    def targets(self) -> Tensor:
        """The token that each counted prediction should name [m]."""
        tokens = torch.from_numpy(self.sequences.tokens).long()
        following = torch.zeros_like(tokens)
        following[:, :-1] = tokens[:, 1:]
        return following[self.predicts]

    @torch.no_grad()
    def losses(self, clean: Tensor, others: dict[str, Tensor], *, chunk: int = 128) -> dict[str, Losses]:
        """Losses of final hidden states [m, d_model]: the clean model's under "clean", and of `others` with KL(clean || other).

        The clean log-probabilities of a chunk are computed once for all; float32 log-softmax throughout.
        """
        targets = self.targets
        found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in ("clean", *others)}
        for start in range(0, len(clean), chunk):
            here = slice(start, start + chunk)
            base = self._log_probabilities(clean[here])
            p = base.exp()
            for name, parts in found.items():
                logp = base if name == "clean" else self._log_probabilities(others[name][here])
                ce = -logp.gather(1, targets[here, None]).squeeze(1)
                kl = torch.zeros(len(ce)) if name == "clean" else (p * (base - logp)).sum(1)
                parts.append((ce, logp.argmax(1), kl))
        return {name: Losses(*(torch.cat(column) for column in zip(*parts, strict=True))) for name, parts in found.items()}

    def _log_probabilities(self, hidden: Tensor) -> Tensor:
        return F.log_softmax(self.model.logits_of(hidden.to(self.model.device)).float(), dim=-1).cpu()
