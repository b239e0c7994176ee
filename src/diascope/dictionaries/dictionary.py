"""The one Dictionary: reads vectors at its input site, writes vectors at its output site.

    pre = x W_enc + b_enc          f = pre where pre > threshold (strictly, and > 0), else 0
    y_hat = f W_dec + b_dec [+ x W_skip]

An SAE reads and writes one site; a transcoder reads mlp_in and writes mlp_out; W_skip makes it a skip-transcoder.
Inputs are raw activations: whatever normalisation training used has been folded into the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diascope.dictionaries.activations import Activation, JumpReLU, Matryoshka, TopK
from diascope.edits import Edit
from diascope.kernels import SparseLatents, decode, select_above
from diascope.kernels.sparse import from_flat
from diascope.sites import Site

CHUNK = 2048  # rows a dense encoder product: bounds memory at CHUNK * d_sae floats


@dataclass(frozen=True)
class DictionaryConfig:
    """What a dictionary is."""

    kind: str  # "sae" or "transcoder"
    model: str
    site_in: str
    site_out: str
    d_in: int
    d_out: int
    d_sae: int
    activation: Activation = field(default_factory=JumpReLU)
    matryoshka: Matryoshka | None = None
    skip: bool = False
    l0_target: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("sae", "transcoder"):
            raise ValueError(f"unknown kind of dictionary {self.kind!r}: this version has sae and transcoder")
        for name in ("site_in", "site_out"):  # one spelling, whatever dialect it came in
            object.__setattr__(self, name, str(Site.parse(getattr(self, name))))
        if self.kind == "sae" and self.site_in != self.site_out:
            raise ValueError(f"an sae reads and writes one site, got {self.site_in} and {self.site_out}")
        if not isinstance(self.activation, Activation):
            raise ValueError(f"{self.activation!r} is no activation")


class Dictionary(nn.Module):
    """A dictionary ready to use. Tensors: W_enc [d_in, d_sae], W_dec [d_sae, d_out], b_enc and threshold [d_sae],
    b_dec [d_out], and W_skip [d_in, d_out] or None. Built from `config` with zeros; `load_dictionary` fills it.
    """

    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor
    b_dec: Tensor
    threshold: Tensor
    W_skip: Tensor | None

    def __init__(self, config: DictionaryConfig, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        for name, shape in tensor_shapes(config).items():
            if name not in tensors:
                raise ValueError(f"the dictionary lacks the tensor {name}")
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, expected {shape} from the config")
            self.register_parameter(name, nn.Parameter(tensors[name].detach().float().contiguous(), requires_grad=False))
        if not config.skip:
            self.W_skip = None
        self.card: dict[str, Any] = {}  # evaluation, as card.json holds it
        self.provenance: dict[str, Any] = {}

    # -- facts
    @property
    def site_in(self) -> Site:
        return Site.parse(self.config.site_in)

    @property
    def site_out(self) -> Site:
        return Site.parse(self.config.site_out)

    @property
    def d_sae(self) -> int:
        return self.config.d_sae

    # -- the map
    def pre_acts(self, x: Tensor) -> Tensor:
        """x W_enc + b_enc: [n, d_sae] of x [n, d_in]."""
        return torch.addmm(self.b_enc, x.to(self.W_enc.dtype), self.W_enc)

    def encode(self, x: Tensor) -> SparseLatents:
        """Active latents of x [..., d_in], each row by itself. ValueError when the width is not d_in."""
        if not isinstance(x, Tensor) or not x.ndim or x.shape[-1] != self.config.d_in:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"this dictionary reads vectors of width {self.config.d_in} at {self.site_in}, got {got}")
        rows = x.reshape(-1, x.shape[-1])
        parts = [self._active(self.pre_acts(chunk)) for chunk in rows.split(CHUNK)] or [self._active(self.pre_acts(rows))]
        offset, starts = 0, [parts[0].start[:1]]
        for part in parts:
            starts.append(part.start[1:] + offset)
            offset += len(part.index)
        index = torch.cat([p.index for p in parts])
        value = torch.cat([p.value for p in parts])
        return SparseLatents(torch.cat(starts), index, value, self.d_sae, tuple(x.shape[:-1]))

    def _active(self, pre: Tensor) -> SparseLatents:
        if isinstance(self.config.activation, TopK):
            top = pre.detach().topk(self.config.activation.k, dim=1)
            columns = top.indices.sort(1).values
            flat = (columns + torch.arange(len(pre), device=pre.device)[:, None] * pre.shape[1]).reshape(-1)
            return from_flat(pre, flat[pre.detach().reshape(-1)[flat] > 0])
        return select_above(pre, self.threshold.clamp_min(0))

    def decode(self, latents: SparseLatents, x: Tensor | None = None) -> Tensor:
        """y_hat [..., d_out] of latents; a skip-transcoder also needs its input x [..., d_in]."""
        y = decode(latents, self.W_dec) + self.b_dec
        if self.W_skip is not None:
            if x is None:
                raise ValueError("a dictionary with a skip connection decodes latents together with its input: pass x")
            if tuple(x.shape[:-1]) != latents.leading:
                raise ValueError(
                    f"x has leading shape {tuple(x.shape[:-1])}, the latents {latents.leading}: pass the x they came from"
                )
            y = y + x.reshape(-1, x.shape[-1]).to(y.dtype) @ self.W_skip
        return y.view(*latents.leading, self.config.d_out)

    def forward(self, x: Tensor) -> Tensor:
        """y_hat [..., d_out] of x [..., d_in]."""
        return self.decode(self.encode(x), x)

    # -- edits: plain functions, for `with model.edit(...)`
    def splice(self, *, keep_error: bool = False) -> Edit:
        """Put y_hat where the model has y; with `keep_error` the difference y - y_hat is added back (a no-op by itself)."""

        def function(x: Tensor, y: Tensor) -> Tensor:
            y_hat = self(x.float())
            return y_hat + (y.float() - y_hat).detach() if keep_error else y_hat

        return Edit(self.site_in, self.site_out, function, label=f"splice {self.site_out}")

    def steer(self, latent: int, *, dose: float) -> Edit:
        """Add `dose` times the latent's unit decoder direction at the output site (dose in activation units)."""
        direction = self.W_dec[self._checked(latent)] * dose
        return Edit(self.site_out, self.site_out, lambda _, y: y + direction.to(y), label=f"steer {latent} by {dose:g}")

    def ablate(self, latent: int) -> Edit:
        """Take away what the latent writes; everything else, the error included, stays."""
        return self.clamp(latent, 0.0)

    def clamp(self, latent: int, value: float) -> Edit:
        """Write as if the latent had activation `value` everywhere; everything else, the error included, stays."""
        j = self._checked(latent)

        def function(x: Tensor, y: Tensor) -> Tensor:
            pre = x.float() @ self.W_enc[:, j] + self.b_enc[j]
            if isinstance(self.config.activation, TopK):
                now = self.encode(x.float()).dense()[..., j]
            else:
                now = torch.where(pre > self.threshold[j].clamp_min(0), pre, 0.0)
            return y.float() + (value - now)[..., None] * self.W_dec[j]

        return Edit(self.site_in, self.site_out, function, label=f"clamp {latent} at {value:g}")

    def _checked(self, latent: int) -> int:
        if not isinstance(latent, int) or not 0 <= latent < self.d_sae:
            raise ValueError(f"there is no latent {latent}: this dictionary has 0 to {self.d_sae - 1}")
        return latent


def tensor_shapes(config: DictionaryConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a dictionary and their shapes."""
    d_in, d_out, d_sae = config.d_in, config.d_out, config.d_sae
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (d_in, d_sae),
        "W_dec": (d_sae, d_out),
        "b_enc": (d_sae,),
        "b_dec": (d_out,),
        "threshold": (d_sae,),
    }
    return shapes | ({"W_skip": (d_in, d_out)} if config.skip else {})
