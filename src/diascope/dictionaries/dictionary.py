"""The one Dictionary: reads vectors at its input sites, writes vectors at its output sites.

    pre = x W_enc + b_enc          f = pre where pre > threshold (strictly, and > 0), else 0
    y_hat = f W_dec + b_dec [+ x W_skip]

An SAE reads and writes one site; a transcoder reads mlp_in and writes mlp_out; W_skip makes it a skip-transcoder. With
several sites x and y_hat are concatenations, and W_enc and W_dec are made of the blocks of its site map (site_maps.py):
a crosscoder has one block, a cross-layer transcoder one a layer.
Inputs are raw activations: whatever normalisation training used has been folded into the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from diascope.config import within
from diascope.dictionaries import interventions
from diascope.dictionaries.activations import Activation, JumpReLU, Nesting, TopK
from diascope.dictionaries.site_maps import Block, Causal, Joint, OneToOne, SiteMap, stretches
from diascope.edits import Edits
from diascope.kernels import SparseLatents, decode, largest, merged, rows_together, select_above, stacked
from diascope.sites import Site, spelled


@dataclass(frozen=True)
class DictionaryConfig:
    """What a dictionary is."""

    model: str
    sites_in: tuple[str, ...]
    sites_out: tuple[str, ...]
    widths_in: tuple[int, ...]
    widths_out: tuple[int, ...]
    d_sae: int
    map: SiteMap = field(default_factory=OneToOne)
    activation: Activation = field(default_factory=JumpReLU)
    matryoshka: Nesting | None = None
    skip: bool = False
    l0_target: float | None = None

    def __post_init__(self) -> None:
        for name in ("sites_in", "sites_out"):
            object.__setattr__(self, name, spelled(getattr(self, name)))
        for sites, widths in ((self.sites_in, self.widths_in), (self.sites_out, self.widths_out)):
            if not sites or len(sites) != len(widths):
                raise ValueError(f"{len(widths)} widths for the sites {', '.join(sites) or '(none)'}: give one each")
            for w in widths:
                within("the width of a site", w, 1, 2**24)
        within("d_sae", self.d_sae, 1, 2**40, "latents")
        if self.sites_in == self.sites_out and self.widths_in != self.widths_out:
            raise ValueError(f"it reads {self.widths_in} and writes {self.widths_out} dimensions at the same sites")
        if not isinstance(self.model, str) or not (self.l0_target is None or isinstance(self.l0_target, int | float)):
            raise ValueError(f"the model's name is text and the L0 target a number, got {self.model!r} and {self.l0_target!r}")
        if not isinstance(self.map, SiteMap):
            raise ValueError(f"{self.map!r} is no site map")
        if not isinstance(self.activation, Activation):
            raise ValueError(f"{self.activation!r} is no activation")
        if self.l0_target is not None and not 0 < self.l0_target < float("inf"):
            raise ValueError(f"the L0 target is a positive number, got {self.l0_target!r}")
        if isinstance(self.map, OneToOne) and len(self.sites_in) == len(self.sites_out) == 1:
            (a,), (b,) = self.reads, self.writes
            if a.model == b.model and a.depth > b.depth:
                raise ValueError(f"it reads {a}, which is computed after {b}, where it writes")
        if isinstance(self.map, Causal):
            if len(self.sites_in) == 1:
                raise ValueError("Causal is for several sites: one site in and one out are OneToOne")
            for sites in (self.reads, self.writes):
                if list(sites) != sorted(sites, key=lambda s: s.depth):
                    raise ValueError(f"Causal needs its sites in the order of computation, got {', '.join(map(str, sites))}")
        _ = self.blocks  # raises where map, sites and latents do not fit

    @classmethod
    def single(
        cls, model: str, site_in: str | Site, site_out: str | Site, d_in: int, d_out: int, d_sae: int, **choices: Any
    ) -> DictionaryConfig:
        """A dictionary from one site to one site: an SAE where they are the same, else a transcoder."""
        return cls(model, (str(site_in),), (str(site_out),), (d_in,), (d_out,), d_sae, **choices)

    @property
    def kind(self) -> str:
        """The field's name for it: sae, transcoder, crosscoder or clt."""
        if len(self.sites_in) == len(self.sites_out) == 1:
            return "sae" if self.sites_in == self.sites_out else "transcoder"
        return "crosscoder" if self.sites_in == self.sites_out or isinstance(self.map, Joint) else "clt"

    @property
    def title(self) -> str:
        """For a person: `SAE on L12.resid_post`, `skip-transcoder L3.mlp_in -> L3.mlp_out`, `CLT of 18 layers`."""
        name = {"sae": "SAE", "clt": "cross-layer transcoder"}.get(self.kind, self.kind)
        name = f"skip-{name}" if self.skip else name
        if self.sites_in == self.sites_out:
            return f"{name} on {', '.join(self.sites_in)}"
        ends = [s[0] if len(s) == 1 else f"{s[0]} .. {s[-1]}" for s in (self.sites_in, self.sites_out)]
        return f"{name} {' -> '.join(ends)}"

    @property
    def d_in(self) -> int:
        return sum(self.widths_in)

    @property
    def d_out(self) -> int:
        return sum(self.widths_out)

    @property
    def reads(self) -> tuple[Site, ...]:
        return tuple(Site.parse(s) for s in self.sites_in)

    @property
    def writes(self) -> tuple[Site, ...]:
        return tuple(Site.parse(s) for s in self.sites_out)

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self.map.blocks(self.widths_in, self.widths_out, self.d_sae)


class Dictionary(nn.Module):
    """A dictionary ready to use: `load_dictionary` gives one, or build it from a config and its tensors (`tensor_shapes`).

    encoders[g] [d_in, F], decoders[g] [F, d_out] and skips[g] [d_in, d_own] belong to block g; b_enc and threshold
    [d_sae] and b_dec [d_out] to all. With one block they are also called W_enc, W_dec and W_skip.
    """

    b_enc: Tensor
    b_dec: Tensor
    threshold: Tensor

    def __init__(self, config: DictionaryConfig, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        self.blocks = config.blocks
        checked = {name: _checked_shape(tensors, name, shape) for name, shape in tensor_shapes(config).items()}
        for name in ("b_enc", "b_dec", "threshold"):
            self.register_parameter(name, checked[name])
        self.encoders = nn.ParameterList(checked[_name("W_enc", g, config)] for g in range(len(self.blocks)))
        self.decoders = nn.ParameterList(checked[_name("W_dec", g, config)] for g in range(len(self.blocks)))
        skips = [checked[_name("W_skip", g, config)] for g in range(len(self.blocks))] if config.skip else []
        self.skips = nn.ParameterList(skips)
        self.card: dict[str, Any] = {}  # evaluation, as card.json holds it
        self.provenance: dict[str, Any] = {}
        self.probe: dict[str, Tensor] | None = None  # x, latents, y_hat from before folding; loading checks and keeps them

    # -- facts
    @property
    def site_in(self) -> Site:
        """The one site that is read; ValueError where there are several (`config.reads`)."""
        return _only(self.config.reads, "reads")

    @property
    def site_out(self) -> Site:
        """The one site that is written; ValueError where there are several (`config.writes`)."""
        return _only(self.config.writes, "writes")

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites that are read or written, each once."""
        return tuple(dict.fromkeys((*self.config.reads, *self.config.writes)))

    @property
    def d_sae(self) -> int:
        return self.config.d_sae

    @property
    def W_enc(self) -> Tensor:
        """[d_in, d_sae]; only where there is one block."""
        return _only(tuple(self.encoders), "has encoders for")

    @property
    def W_dec(self) -> Tensor:
        """[d_sae, d_out]; only where there is one block."""
        return _only(tuple(self.decoders), "has decoders for")

    @property
    def W_skip(self) -> Tensor | None:
        """[d_in, d_out] or None; only where there is one block."""
        return _only(tuple(self.skips), "has skips for") if self.config.skip else None

    @cached_property
    def _firsts(self) -> Tensor:
        return torch.tensor([b.latents.start for b in self.blocks])

    def block_of(self, latent: int) -> int:
        """The number of the block that holds `latent`; ValueError where there is no such latent."""
        if isinstance(latent, bool) or not hasattr(latent, "__index__"):
            raise ValueError(f"a latent is an integer, not {latent!r}")
        if not 0 <= latent < self.d_sae:
            raise ValueError(f"there is no latent {latent}: this dictionary has 0 to {self.d_sae - 1}")
        return int(torch.searchsorted(self._firsts, int(latent), right=True)) - 1

    def direction(self, latent: int) -> dict[Site, Tensor]:
        """What `latent` writes when its activation is 1: {site: [d]} of the sites that its block writes."""
        g = self.block_of(latent)
        block, row = self.blocks[g], self.decoders[g][latent - self.blocks[g].latents.start]
        places = zip(self.config.writes, stretches(self.config.widths_out), strict=True)
        return {
            s: row[w.start - block.writes.start : w.stop - block.writes.start]
            for s, w in places
            if w.start >= block.writes.start
        }

    def inputs(self, vectors: Mapping[Any, Tensor]) -> Tensor:
        """x [..., d_in]: the vectors at the input sites (by Site, as `model.capture` gives them) side by side, float32."""
        return _beside([vectors[s] for s in self.config.reads])

    def targets(self, vectors: Mapping[Any, Tensor]) -> Tensor:
        """y [..., d_out]: the vectors at the output sites side by side, float32."""
        return _beside([vectors[s] for s in self.config.writes])

    # -- the map
    def pre_acts(self, x: Tensor, block: int = 0) -> Tensor:
        """x W_enc + b_enc of one block: [n, F] of x [n, d_in] (all inputs, of which the block reads its own)."""
        b, W = self.blocks[block], self.encoders[block]
        part = x[:, b.reads]
        return torch.addmm(self.b_enc[b.latents], part.to(W.dtype), W)

    def encode(self, x: Tensor) -> SparseLatents:
        """Active latents of x [..., d_in], each row by itself. ValueError when the width is not d_in."""
        if not isinstance(x, Tensor) or not x.ndim or x.shape[-1] != self.config.d_in:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"this dictionary reads vectors of width {self.config.d_in} at {', '.join(self.config.sites_in)}, got {got}"
            )
        rows = x.reshape(-1, x.shape[-1])
        step = rows_together(max(b.n_latents for b in self.blocks), rows.device)
        found = stacked([self._active(chunk) for chunk in rows.split(step)] or [self._active(rows)])
        return replace(found, shape=tuple(x.shape[:-1]))

    def _active(self, x: Tensor) -> SparseLatents:
        chosen = []
        for g, b in enumerate(self.blocks):
            pre = self.pre_acts(x, g)
            if isinstance(self.config.activation, TopK):
                chosen.append(largest(pre, self.config.activation.k))
            else:
                chosen.append(select_above(pre, self.threshold[b.latents].clamp_min(0)))
        found = merged(chosen, self.d_sae)
        several = isinstance(self.config.activation, TopK) and len(chosen) > 1
        return found.strongest(self.config.activation.k) if several else found  # type: ignore[union-attr]

    def decode(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """y_hat [..., d_out] of latents; a dictionary with a skip also needs its input x [..., d_in]."""
        if self.config.skip and x is None:
            raise ValueError("a dictionary with a skip connection decodes latents together with its input: pass x")
        if x is not None and tuple(x.shape[:-1]) != latents.leading:
            raise ValueError(
                f"x has leading shape {tuple(x.shape[:-1])}, the latents {latents.leading}: pass the x they came from"
            )
        if len(self.blocks) == 1:
            y = decode(latents, self.decoders[0]) + self.b_dec
        else:
            y = self.b_dec.expand(len(latents), -1).clone()
            for b, W in zip(self.blocks, self.decoders, strict=True):
                y[:, b.writes] += decode(latents.part(b.latents.start, b.latents.stop), W)
        if self.config.skip:
            y = y + self.affine(x.reshape(-1, x.shape[-1]))  # type: ignore[union-attr]
        return y.view(*latents.leading, self.config.d_out)

    def affine(self, x: Tensor) -> Tensor:
        """x W_skip [n, d_out] of x [n, d_in], without b_dec; zeros where there is no skip."""
        y = x.new_zeros(len(x), self.config.d_out, dtype=self.b_dec.dtype)
        for b, W in zip(self.blocks, self.skips, strict=False):
            y[:, b.skips] += x[:, b.reads].to(W.dtype) @ W
        return y

    def forward(self, x: Tensor) -> Tensor:
        """y_hat [..., d_out] of x [..., d_in]."""
        return self.decode(self.encode(x), x)

    def prefix(self, latents: int) -> Dictionary:
        """The dictionary of the first `latents` latents (of each block its share): a Matryoshka level by itself.

        Raises ValueError where the blocks cannot share `latents` evenly.
        """
        n = len(self.blocks)
        if not 1 <= latents <= self.d_sae or latents % n:
            raise ValueError(f"a prefix has from {n} to {self.d_sae} latents, a multiple of {n}, not {latents}")
        keep = torch.cat([torch.arange(b.latents.start, b.latents.start + latents // n) for b in self.blocks])
        tensors = {"b_enc": self.b_enc[keep], "threshold": self.threshold[keep], "b_dec": self.b_dec}
        config = DictionaryConfig(**{**self.config.__dict__, "d_sae": latents, "matryoshka": None, "l0_target": None})
        for g in range(n):
            tensors[_name("W_enc", g, config)] = self.encoders[g][:, : latents // n]
            tensors[_name("W_dec", g, config)] = self.decoders[g][: latents // n]
            if config.skip:
                tensors[_name("W_skip", g, config)] = self.skips[g]
        return Dictionary(config, tensors)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their names on disk (`tensor_shapes`)."""
        out = {"b_enc": self.b_enc, "b_dec": self.b_dec, "threshold": self.threshold}
        for name, parts in (("W_enc", self.encoders), ("W_dec", self.decoders), ("W_skip", self.skips)):
            out |= {_name(name, g, self.config): part for g, part in enumerate(parts)}
        return {name: out[name].detach() for name in tensor_shapes(self.config)}

    # -- edits, for `with model.edit(...)`; see interventions.py
    def splice(self, *, keep_error: bool = False) -> Edits:
        """Put y_hat where the model has y; with `keep_error` the difference y - y_hat is added back (a no-op by itself)."""
        return interventions.splice(self, keep_error)

    def steer(self, latent: int, *, dose: float) -> Edits:
        """Add `dose` times what the latent writes, at each site that it writes (dose in activation units)."""
        return interventions.steer(self, latent, dose)

    def ablate(self, latent: int) -> Edits:
        """Take away what the latent writes; everything else, the error included, stays."""
        return interventions.clamp(self, latent, 0.0)

    def clamp(self, latent: int, value: float) -> Edits:
        """Write as if the latent had activation `value` everywhere; everything else, the error included, stays."""
        return interventions.clamp(self, latent, value)


def tensor_shapes(config: DictionaryConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a dictionary and their shapes; with several blocks W_enc, W_dec and W_skip are numbered."""
    shapes: dict[str, tuple[int, ...]] = {}
    for g, b in enumerate(config.blocks):
        shapes[_name("W_enc", g, config)] = (b.d_in, b.n_latents)
        shapes[_name("W_dec", g, config)] = (b.n_latents, b.d_out)
        if config.skip:
            shapes[_name("W_skip", g, config)] = (b.d_in, b.skips.stop - b.skips.start)
    return shapes | {"b_enc": (config.d_sae,), "b_dec": (config.d_out,), "threshold": (config.d_sae,)}


def _name(tensor: str, block: int, config: DictionaryConfig) -> str:
    return f"{tensor}.{block}" if isinstance(config.map, Causal) else tensor


def _checked_shape(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> nn.Parameter:
    if name not in tensors:
        raise ValueError(f"the dictionary lacks the tensor {name}")
    if tuple(tensors[name].shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {shape} from the config")
    return nn.Parameter(tensors[name].detach().float(), requires_grad=False)


def _only(things: tuple[Any, ...], does: str) -> Any:
    if len(things) != 1:
        raise ValueError(f"this dictionary {does} {len(things)} sites: there is no single one")
    return things[0]


def _beside(parts: list[Tensor]) -> Tensor:
    return parts[0].float() if len(parts) == 1 else torch.cat([p.float() for p in parts], -1)


def weights_hash(dictionaries: Sequence[Dictionary]) -> str:
    """Hash of all tensors, for an identity: a folder's name does not say what is in it."""
    digest = hashlib.sha256()
    for d in dictionaries:
        for name, tensor in sorted(d.tensors().items()):
            digest.update(name.encode() + str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
