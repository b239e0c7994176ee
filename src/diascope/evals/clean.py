"""What the clean model does on a text, computed once a text and kept on disk for the next evaluation.

<cache>/evaluation/clean/<hash of all weights and of the packed text>/
    <site>.safetensors                  n, mean, m2 of the counted rows, and norms of some of them: what errors are measured against
    <site>/<first>-<last>.safetensors   the rows themselves, of texts for which that is little
    hidden/<first>-<last>.safetensors   final hidden states of these sequences' predictions, by model

KL needs the clean model's whole distribution at every prediction, which for 262,144 words is no thing to store: it comes from the
hidden state by the product that the spliced models' losses take too, and with it CE and logsumexp. So what is saved is the
trunk: up to the sites on the whole text, and above the first of them on the losses' text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diascope.dictionaries import Dictionary
from diascope.dictionaries.site_maps import stretches
from diascope.evals import kept
from diascope.evals.sums import Cells, Spread
from diascope.evals.text import EvalText
from diascope.models import Model
from diascope.numerics import Moments
from diascope.sites import Site
from diascope.storage.files import commit_file, reading
from diascope.tokens import Sequences

PIECE = 2048  # tokens that are looked at together
HELD = 2**29  # bytes of vectors that are kept for the second look; beyond them the model computes them again
NORMS = 2**20  # rows, evenly spaced, whose norms give the median
LARGEST = 1e8  # bytes of a site's rows, and of hidden states, that are kept on disk; of more, none


class Piece:
    """Some sequences of the text: their rows' cells, and whether losses are computed on them."""

    def __init__(self, model: Model, sequences: Sequences, cells: Cells, first: int, last: int, losses: bool) -> None:
        self.first, self.last, self.losses = first, last, losses
        self.text = EvalText(model, sequences.part(first, last))
        here = cells.of[first:last]
        self.rows = here[self.text.rows.numpy()]
        self.spread = Spread(self.rows)
        self.predictions = Spread(here[self.text.predicts.numpy()])


class CleanText:
    """A packed text as the clean model sees it, piece by piece; losses are asked for on its first `with_losses` sequences."""

    def __init__(self, model: Model, sequences: Sequences, with_losses: int, *, keep: bool = True) -> None:
        """`keep`: look on disk first, and put there what is computed, where that is worth it (evals/kept.py)."""
        self.model, self.sequences, self.with_losses = model, sequences, min(with_losses, len(sequences))
        self.counted = sequences.rows(model)
        self.cells = Cells(sequences, self.counted)
        models = [model, *model.companions.values()]
        self.folder: Path | None = None
        if keep and all(map(kept.worth_it, models)):
            identity = {"weights": [kept.weights(m) for m in models], "tokens": kept.tokens(sequences), "version": 1}
            self.folder = kept.place("clean", identity)
        self.moments: dict[Site, Moments] = {}
        self._norms: dict[Site, Tensor] = {}
        self._held: dict[int, dict[Site, Tensor]] = {}
        self._sites: list[Site] = []

    def __len__(self) -> int:
        return len(self.cuts())

    def cuts(self) -> list[tuple[int, int, bool]]:
        """(first sequence, the one after the last, whether losses are asked for) of each piece."""
        step, out = max(1, PIECE // self.sequences.tokens.shape[1]), []
        for low, high, losses in ((0, self.with_losses, True), (self.with_losses, len(self.sequences), False)):
            out += [(first, min(first + step, high), losses) for first in range(low, high, step)]
        return out

    def pieces(self) -> Iterator[Piece]:
        """The text in its order."""
        for first, last, losses in self.cuts():
            yield Piece(self.model, self.sequences, self.cells, first, last, losses)

    # -- vectors
    def look(self, sites: list[Site], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Learn the moments at `sites`: from disk, or by one pass over the text."""
        self._sites = sites
        missing = [s for s in sites if not self._read(s)]
        if not missing:
            return
        step = -(-int(self.counted.sum()) // NORMS)
        size = {s: self.model.width(s) for s in missing}
        moments, norms, seen, held = {s: Moments.empty(n) for s, n in size.items()}, {s: [] for s in missing}, 0, 0
        for number, piece in enumerate(self.pieces()):
            progress(number, len(self))
            vectors = self._rows(piece)
            for s in missing:
                moments[s] = moments[s].merge(Moments.of(vectors[s]))
                norms[s].append(vectors[s][-seen % step :: step].double().norm(dim=1))
            seen += len(piece.rows)
            held += sum(v.numel() * 4 for v in vectors.values())
            if held <= HELD:
                self._held[piece.first] = vectors
        for s in missing:
            self.moments[s], self._norms[s] = moments[s], torch.cat(norms[s])
            self._write(s)

    def start(self, tokens: int, sites: list[Site]) -> tuple[dict[Site, Tensor], np.ndarray]:
        """(rows [n, d] float32 by site, document of each [n]) of the first pieces that hold `tokens` tokens, or of all."""
        self._sites = sites
        whole = max(1, tokens // self.sequences.tokens.shape[1])
        first = [p for p in self.pieces() if p.first < whole]
        found = [self._rows(p) for p in first]
        return {s: torch.cat([f[s] for f in found]) for s in sites}, np.concatenate([p.text.documents for p in first])

    def vectors(self, piece: Piece) -> dict[Site, Tensor]:
        """Rows [n, d] float32 of a piece at the sites that were looked at; those held are given out once."""
        return self._held.pop(piece.first, None) or self._rows(piece)

    def _rows(self, piece: Piece) -> dict[Site, Tensor]:
        """The rows of a piece: from disk, or computed and, where they are few, put there in the model's own precision."""
        found, paths = dict[Site, Tensor](), {s: self._path_of(s, piece) for s in self._sites}
        for site, path in paths.items():
            if path and path.is_file():
                with reading(path, "delete it: it is computed again"):
                    found[site] = load_file(path)["rows"].float()
        if missing := [s for s in self._sites if s not in found]:
            found |= piece.text.capture(missing)
        for site in missing:
            if path := paths[site]:
                with commit_file(path) as work:
                    save_file({"rows": found[site].to(self.model.of(site).dtype)}, work)
        return found

    def _path_of(self, site: Site, piece: Piece) -> Path | None:
        size = int(self.counted.sum()) * self.model.width(site) * self.model.of(site).dtype.itemsize
        own = self._path(site)
        return own.with_suffix("") / f"{piece.first}-{piece.last}.safetensors" if own and size <= LARGEST else None

    def usual(self, sites: tuple[Site, ...], scale: Tensor) -> float:
        """Three times the median norm of the rows at `sites` side by side, in units of `scale` [d] (one number a site)."""
        widths = [len(self.moments[s].mean) for s in sites]
        places = zip(sites, stretches(tuple(widths)), strict=True)
        squared = torch.stack([(self._norms[s] / scale[w.start]).square() for s, w in places])
        return 3 * float(squared.sum(0).sqrt().median())

    def _path(self, site: Site) -> Path | None:
        return self.folder and self.folder / (str(site).replace(":", "--").replace(".", "-") + ".safetensors")

    def _read(self, site: Site) -> bool:
        if site in self.moments:
            return True
        path = self._path(site)
        if not path or not path.is_file():
            return False
        with reading(path, "delete it: it is computed again"):
            found = load_file(path)
            self.moments[site] = Moments(int(found["n"]), found["mean"], found["m2"])
            self._norms[site] = found["norms"]
        return True

    def _write(self, site: Site) -> None:
        if path := self._path(site):
            m = self.moments[site]
            with commit_file(path) as work:
                save_file({"n": torch.tensor(m.n), "mean": m.mean, "m2": m.m2, "norms": self._norms[site]}, work)

    # -- losses
    def hidden(self, piece: Piece) -> dict[str, Tensor]:
        """Final hidden states of a piece's predictions [m, d_model] by model ("" for the main one): from disk, or computed."""
        path = self.folder and self.folder / "hidden" / f"{piece.first}-{piece.last}.safetensors"
        texts = {"": piece.text, **piece.text.others}
        if path and path.is_file():
            with reading(path, "delete it: it is computed again"):
                found = load_file(path)
                return {name: found[f"model:{name}"] for name in texts}
        found = {name: text.hidden() for name, text in texts.items()}
        size = self.with_losses * self.sequences.tokens.shape[1] * self.model.d_model * 4 * len(texts)
        if path and size <= LARGEST:
            with commit_file(path) as work:
                save_file({f"model:{name}": h.contiguous() for name, h in found.items()}, work)
        return found


def rows_of(
    model: Model, sequences: Sequences, tokens: int | None = None, *, keep: bool = True
) -> Callable[[Dictionary], tuple[Tensor, Tensor]]:
    """For `evaluate(training_rows=...)`: a dictionary's inputs and targets on the first `tokens` of `sequences` (all of them),
    for fitting its controls; `keep` as in `evaluate`."""
    text = CleanText(model, sequences, 0, keep=keep)
    last: dict[tuple[Site, ...], dict[Site, Tensor]] = {}

    def rows(d: Dictionary) -> tuple[Tensor, Tensor]:
        if d.sites not in last:  # dictionaries of the same sites often come one after another
            last.clear()
            last[d.sites], _ = text.start(tokens or sequences.tokens.size, list(d.sites))
        return d.inputs(last[d.sites]), d.targets(last[d.sites])

    return rows


class Frame:
    """What errors at some sites are measured against: the clean rows' mean, deviations and usual norm."""

    def __init__(self, clean: CleanText, sites: tuple[Site, ...]) -> None:
        moments = [clean.moments[s] for s in sites]
        self.mean = torch.cat([m.mean for m in moments])
        variance = torch.cat([m.m2 / max(m.n - 1, 1) for m in moments])
        # a dimension that does not vary counts nothing: Gemma 3 has norm gains of exactly zero (numerics.deviations)
        sd = variance.sqrt()
        self.sd = torch.where(sd > 1e-6 * variance.mean().sqrt(), sd, torch.inf)
        each = [m.variance.sum().sqrt().clamp_min(1e-12).expand(len(m.mean)) for m in moments]
        self.scale = torch.cat(each) if len(sites) > 1 else torch.ones(len(self.mean), dtype=torch.float64)
        self.bar = clean.usual(sites, self.scale)

    def squares(self, off: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Squared length of each row of `off` [n, d], in units of the sites' deviations and of every dimension's."""
        return (off / self.scale).square().sum(1).numpy(), (off / self.sd).square().sum(1).numpy()

    def is_usual(self, y: Tensor) -> np.ndarray:
        """Whether each row's norm is within three medians [n]."""
        return ((y.double() / self.scale).norm(dim=1) <= self.bar).numpy()
