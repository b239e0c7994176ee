"""One pass over a text for any number of dictionaries and of maps beside them: sums by cell, and never the rows themselves.

For each piece of text (clean.py) in turn:
1. Vectors at all sites, once for all dictionaries.
2. Every map's y_hat; its squared errors go into the map's sums, the targets' squared deviations into those of the sites.
3. Every dictionary's active latents: L0 by cell, and how often each latent fired in each of JACKKNIFE groups of documents.
4. Where losses are asked for: the model's last hidden states with every map in place (replace.py), and one product with the
   unembedding for all of them.

A map that stands beside several dictionaries is computed once. Memory: a piece, the sums, and S numbers a group and dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.dictionaries.site_maps import stretches
from diascope.evals.clean import CleanText, Frame, Piece
from diascope.evals.latent_scaling import Scaling, of_two_models
from diascope.evals.replace import Map, hidden_states
from diascope.evals.sums import Tally
from diascope.evals.text import EvalText, Losses
from diascope.sites import Site

JACKKNIFE = 200  # groups of documents at most
Ends = tuple[tuple[Site, ...], tuple[Site, ...]]


@dataclass(eq=False)
class Judged:
    """A map where it stands: between which sites, of what kind of dictionary, and its sums.

    `latents` is the dictionary that it is, where it is one; `apart` asks for the sums of each site by itself too.
    """

    map: Map
    like: Dictionary
    latents: Dictionary | None = None
    apart: bool = False
    tally: Tally = field(init=False)
    by_site: list[Tally] = field(init=False, default_factory=list)
    fired: Tensor | None = field(init=False, default=None)  # [G, S]
    scaling: Scaling | None = field(init=False, default=None)

    @property
    def ends(self) -> Ends:
        return self.like.config.reads, self.like.config.writes

    def open(self, cells: int, groups: int) -> None:
        """Begin with empty sums."""
        self.tally = Tally(cells)
        if self.apart:
            self.by_site = [Tally(cells) for _ in self.like.config.writes]
        if self.latents is not None:
            self.fired = torch.zeros(groups, self.latents.d_sae, dtype=torch.int64)
            self.scaling = Scaling(self.latents) if of_two_models(self.latents) and self.apart else None


class Pass:
    """Sums of what `judged` maps do on a text; `targets[sites]` are those of what they stand for."""

    def __init__(self, text: CleanText, judged: Sequence[Judged]) -> None:
        self.text, self.judged = text, judged
        self.sites = list(dict.fromkeys(s for j in judged for side in j.ends for s in side))
        self.groups = torch.from_numpy(text.cells.rank % JACKKNIFE)
        n = len(text.cells)
        self.clean = Tally(n)  # the main model's losses
        self.targets: dict[tuple[Site, ...], Tally] = {}
        self._frames: dict[tuple[Site, ...], Frame] = {}
        self._usual: dict[tuple[Site, ...], Any] = {}  # whether each row of the piece at hand has a usual norm
        for j in judged:
            j.open(n, int(self.groups.max()) + 1)

    @torch.no_grad()
    def run(self, progress: Callable[[int, int, str], None]) -> None:
        """Look at the whole text. `progress` counts maps on pieces, the losses of a map as one more."""
        total, done = len(self.text) * (len(self.judged) + 1), 0
        total += len(self.judged) * sum(losses for _, _, losses in self.text.cuts())
        progress(0, total, "clean model")
        self.text.look(self.sites, lambda i, n: progress(0, total, f"clean model, {i} of {n}"))
        self.targets = {sites: Tally(len(self.text.cells)) for sites in dict.fromkeys(j.ends[1] for j in self.judged)}
        for piece in self.text.pieces():
            vectors = self.text.vectors(piece)
            for sites, tally in self.targets.items():
                if len(piece.rows):
                    self._target(piece, sites, _beside(vectors, sites), tally)
            done += 1
            for j in self.judged:
                self._errors(piece, j, vectors)
                done += 1
                progress(done, total, "errors")
            if piece.losses and len(piece.predictions):
                progress(done, total, f"losses of {len(self.judged) + 1} models on {len(piece.predictions)} predictions")
                self._losses(piece)
            done += len(self.judged) * piece.losses
            progress(done, total, "")

    def _frame(self, sites: tuple[Site, ...]) -> Frame:
        if sites not in self._frames:
            self._frames[sites] = Frame(self.text, sites)
        return self._frames[sites]

    def _target(self, piece: Piece, sites: tuple[Site, ...], y: Tensor, tally: Tally) -> None:
        frame = self._frame(sites)
        variance, standardised = frame.squares(y.double() - frame.mean)
        usual = self._usual[sites] = frame.is_usual(y)
        tally.add(
            piece.spread, rows=np.ones(len(y)), variance=variance, variance_standardised=standardised, rows_usual=usual,
            variance_usual=variance * usual,
        )  # fmt: skip

    def _errors(self, piece: Piece, j: Judged, vectors: Mapping[Site, Tensor]) -> None:
        reads, writes = j.ends
        x, y = _beside(vectors, reads), _beside(vectors, writes)
        if not len(x):
            return
        d = j.latents
        f = None if d is None else d.encode(x)
        y_hat = j.map(x, y) if d is None or f is None else d.decode(f, x)
        self._error(piece, writes, y, y_hat, j.tally)
        for site, w, tally in zip(writes, stretches(j.like.config.widths_out), j.by_site, strict=False):
            self._target(piece, (site,), y[:, w], tally)
            self._error(piece, (site,), y[:, w], y_hat[:, w], tally)
        if d is not None and f is not None and j.fired is not None:
            j.tally.add(piece.spread, l0=f.counts.numpy())
            owner = self.groups[torch.from_numpy(piece.rows).long()]
            j.fired += torch.bincount(owner[f.rows] * d.d_sae + f.index, minlength=j.fired.numel()).view_as(j.fired)
        if j.scaling:
            j.scaling.add(x)

    def _error(self, piece: Piece, sites: tuple[Site, ...], y: Tensor, y_hat: Tensor, tally: Tally) -> None:
        error, standardised = self._frame(sites).squares(y.double() - y_hat)
        tally.add(piece.spread, error=error, error_standardised=standardised, error_usual=error * self._usual[sites])

    def _losses(self, piece: Piece) -> None:
        piece.text.remember(min(s.layer for s in self.sites))
        clean = self.text.hidden(piece)
        hidden = {(k, i): h for k, j in enumerate(self.judged) for i, h in enumerate(hidden_states(piece.text, j.like, j.map))}
        found: dict[Any, Losses] = {}
        for name, one in (*piece.text.others.items(), ("", piece.text)):
            own = {label: h for label, h in hidden.items() if self._owner(piece.text, label) == name}
            if own or not name:
                found |= one.losses(clean[name], own)  # the main model comes last: its clean losses are kept
        _add(self.clean, piece, found["clean"])
        for k, j in enumerate(self.judged):
            passes = [found[label] for label in hidden if label[0] == k]
            if passes:  # a crosscoder has one a site
                _add(j.tally, piece, passes[0] if len(passes) == 1 else _mean(passes))
            for one, tally in zip(passes if len(passes) > 1 else [], j.by_site, strict=False):
                _add(tally, piece, one)

    def _owner(self, text: EvalText, label: tuple[int, int]) -> str:
        """The model in which a pass was made: "" for the main one."""
        config = self.judged[label[0]].like.config
        name = config.writes[label[1]].model if config.kind == "crosscoder" else None
        return name if name in text.others else ""


def _beside(vectors: Mapping[Site, Tensor], sites: tuple[Site, ...]) -> Tensor:
    return vectors[sites[0]] if len(sites) == 1 else torch.cat([vectors[s] for s in sites], 1)


def _add(tally: Tally, piece: Piece, losses: Losses) -> None:
    values = {f.name: getattr(losses, f.name).double().numpy() for f in fields(Losses)}
    tally.add(piece.predictions, predictions=np.ones(len(losses.ce)), **values)


def _mean(passes: Sequence[Losses]) -> Losses:
    return Losses(*(torch.stack([getattr(p, f.name) for p in passes]).double().mean(0) for f in fields(Losses)))
