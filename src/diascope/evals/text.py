"""The evaluation text as the model sees it: tokens, which of them count, and the clean model's losses, computed once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.models import Model
from diascope.sites import Site
from diascope.tokens import Sequences


@dataclass(frozen=True)
class Losses:
    """Per predicted token: cross-entropy in nats, KL from the clean model, and whether its first choice is the same."""

    ce: Tensor  # [n]
    delta: Tensor  # [n], ce minus the clean model's
    kl: Tensor  # [n]
    same: Tensor  # [n], 1 where the most likely token is the clean model's


class EvalText:
    """Packed sequences with the positions that count.

    A row is counted when its token is ordinary (not BOS, not special, not in a chat template's prefix); edits act on rows alone.
    A prediction is counted when the next position holds a row of the same document; its loss belongs to the row that makes it.
    Companions' rows are the main model's: all read the same tokens.
    """

    def __init__(self, model: Model, sequences: Sequences, *, batch: int = 2, rows: Tensor | None = None) -> None:
        self.model, self.sequences, self.batch = model, sequences, batch
        self.rows = torch.from_numpy(sequences.rows(model)) if rows is None else rows  # [N, T]
        follows = torch.zeros_like(self.rows)
        restart = torch.from_numpy(sequences.positions[:, 1:]) == 0
        follows[:, :-1] = self.rows[:, 1:] & ~restart
        self.predicts = self.rows & follows  # BOS's own prediction is left out with BOS
        self._below, self._kept = 0, []
        self.others = {
            name: EvalText(other, sequences, batch=batch, rows=self.rows) for name, other in model.companions.items()
        }

    def of(self, site: Site) -> EvalText:
        """The text as the model sees it that `site` is of."""
        return self.others.get(site.model or "", self)

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
            yield (
                here,
                torch.from_numpy(self.sequences.tokens[here]).long(),
                torch.from_numpy(self.sequences.positions[here]).long(),
            )

    def capture(self, sites: list[Site]) -> dict[Site, Tensor]:
        """Vectors of counted rows [n, d] at `sites`, float32."""
        found: dict[Site, list[Tensor]] = {s: [] for s in sites}
        for here, tokens, positions in self._batches():
            seen = self.model.capture(tokens, sites, positions=positions)
            for site in sites:
                found[site].append(seen[site].cpu()[self.rows[here]].float())
        return {site: torch.cat(parts) for site, parts in found.items()}

    @torch.no_grad()
    def remember(self, layer: int) -> None:
        """Keep what block `layer` - 1 gives, so that `hidden` starts at `layer`: edits below it are then not seen."""
        for other in self.others.values():
            other.remember(layer)
        self._below = layer
        self._kept = (
            [self.model.block_output(tokens, layer - 1, positions=positions) for _, tokens, positions in self._batches()]
            if layer
            else []
        )

    @torch.no_grad()
    def hidden(self) -> Tensor:
        """Final hidden states at counted predictions [m, d_model], under whatever edits are active."""
        parts = []
        for number, (here, tokens, positions) in enumerate(self._batches()):
            resume = (self._below, self._kept[number]) if self._kept else None
            parts.append(
                self.model.hidden(tokens, positions=positions, resume=resume, rows=self.rows[here]).cpu()[self.predicts[here]]
            )
        return torch.cat(parts)

    @property
    def targets(self) -> Tensor:
        """The token that each counted prediction should name [m]."""
        tokens = torch.from_numpy(self.sequences.tokens).long()
        following = torch.zeros_like(tokens)
        following[:, :-1] = tokens[:, 1:]
        return following[self.predicts]

    @torch.no_grad()
    def losses(self, clean: Tensor, others: Mapping[Any, Tensor], *, chunk: int = 0) -> dict[Any, Losses]:
        """Losses of final hidden states [m, d_model]: the clean model's under "clean", and of `others` with KL(clean || other).

        With l the logits and z their logsumexp, CE = z - l_target and KL = sum p_clean (l_clean - l) - z_clean + z; one
        product with the unembedding serves all of them, in float32.
        """
        targets, names = self.targets, ["clean", *others]
        W_U = self.model.unembedding.float()  # a bfloat16 product would round logits near 20 to eighths
        bias = getattr(self.model.parts.unembedding, "bias", None)
        hidden = torch.stack([clean, *others.values()])
        chunk = min(chunk or max(8, 448 // len(names)), len(clean))  # bounds the logits in memory: 448 * vocabulary floats
        # these hold every chunk: memory that is new each time costs as long as the products
        products = W_U.new_empty(len(names) * chunk, len(W_U))
        p, spare = torch.empty(2, chunk, len(W_U))
        found: dict[Any, list[tuple[Tensor, ...]]] = {name: [] for name in names}
        for start in range(0, len(clean), chunk):
            part = hidden[:, start : start + chunk]
            n = part.shape[1]
            with _factors_are(hidden.dtype, self.model.unembedding.dtype):
                product = torch.mm(part.reshape(-1, part.shape[-1]).to(W_U), W_U.t(), out=products[: len(names) * n])
            if bias is not None:
                product += bias.float()
            logits = self.model.scaled_logits(product).cpu().view(len(names), n, -1)
            z = torch.stack([_logsumexp(one, spare[:n]) for one in logits])
            own = logits.gather(-1, targets[None, start : start + chunk, None].expand(len(names), -1, 1)).squeeze(-1)
            torch.sub(logits[0], z[0, :, None], out=p[:n]).exp_()
            # differences first: a sum of p times logits would lose 2e-4 nats in float32 over 262,144 words
            kl = torch.stack([torch.sub(logits[0], one, out=spare[:n]).mul_(p[:n]).sum(-1) for one in logits]) - z[0] + z
            first = logits.argmax(-1)
            ce = z - own
            for k, name in enumerate(names):
                found[name].append((ce[k], ce[k] - ce[0], kl[k].clamp_min(0), (first[k] == first[0]).double()))
        return {name: Losses(*(torch.cat(column) for column in zip(*parts, strict=True))) for name, parts in found.items()}


def _logsumexp(logits: Tensor, spare: Tensor) -> Tensor:
    """log sum exp of each row [n] of logits [n, V]; `spare` [n, V] is written over."""
    largest = logits.amax(-1, keepdim=True)
    return torch.sub(logits, largest, out=spare).exp_().sum(-1).log() + largest.squeeze(-1)


@contextlib.contextmanager
def _factors_are(*dtypes: torch.dtype) -> Iterator[None]:
    """Faster float32 products of what was bfloat16: rounding a factor to bfloat16 then changes nothing, and sums stay float32."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if all(d == torch.bfloat16 for d in dtypes) and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
