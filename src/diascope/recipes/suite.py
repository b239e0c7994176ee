"""The release's whole catalogue for one model, from one pass: every layer, every site, every kind, and the multi-layer ones.

    {resid_post,attn_out,mlp_out}_all/layer_{L}_width_{w}_l0_{class}      SAEs
    transcoder_all/layer_{L}_width_{w}_l0_{class}[_affine]                transcoders, without and with skip
    crosscoder/layer_{a}_{b}_{c}_{d}_width_{w}_l0_{class}                 the four depths jointly, causal
    clt/width_{w}_l0_{class}[_affine]                                     all layers

L0 targets follow the release's law (`l0_target`). A catalogue of the four depths alone goes into the folders without `_all`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from diascope.dictionaries import BatchTopK, Causal
from diascope.dictionaries.formats.gemma_scope_2 import width_name
from diascope.recipes.gemma_scope_2 import l0_target, prefixes, scaled
from diascope.recipes.recipe import RunRecipe
from diascope.training import MemberRecipe

MULTI_L0 = {"medium": 50.0, "big": 150.0}  # of CLTs and crosscoders, over all their layers together
SITES = ("resid_post", "attn_out", "mlp_out")
SINGLE = (*SITES, "transcoder", "skip-transcoder")
MULTI = ("crosscoder", "clt", "skip-clt")


def depths(n_layers: int) -> tuple[int, ...]:
    """The release's four depths: 25, 50, 65 and 85 % of the layers, rounded half up; fewer where small models have them alike."""
    found = (min(math.floor(share * n_layers / 100 + 0.5), n_layers - 1) for share in (25, 50, 65, 85))
    return tuple(dict.fromkeys(found))


def classes(size: str, *, every_layer: bool) -> str:
    """The name of an L0 class in `l0_target`: `big` means 120 in the `_all` folders and 150 in the others."""
    return "big_all" if every_layer and size == "big" else size


@dataclass(frozen=True)
class Catalogue:
    """What to train."""

    layers: tuple[int, ...]
    """Layers of the single-layer dictionaries."""
    widths: tuple[int, ...] = (16384,)
    """Latents of the single-layer dictionaries."""
    sizes: tuple[str, ...] = ("small", "big")
    """L0 classes of the single-layer dictionaries."""
    kinds: tuple[str, ...] = (*SINGLE, *MULTI)
    """Which of SINGLE and MULTI."""
    per_layer: int = 0
    """Latents a layer of the CLT and the crosscoder; 0 leaves them out."""
    multi_sizes: tuple[str, ...] = ("medium",)
    """L0 classes of the CLT and the crosscoder."""


def members(c: Catalogue, n_layers: int) -> tuple[MemberRecipe, ...]:
    """Every member of the catalogue; its name is its folder's with / as --. ValueError for a kind that there is not."""
    if wrong := set(c.kinds) - {*SINGLE, *MULTI}:
        raise ValueError(
            f"there is no kind {', '.join(sorted(wrong))} of dictionary here: choose from {', '.join((*SINGLE, *MULTI))}"
        )
    every = len(c.layers) > len(depths(n_layers))
    found = [
        _single(kind, layer, width, size, n_layers, every)
        for layer in c.layers
        for kind in c.kinds
        if kind in SINGLE
        for width in c.widths
        for size in c.sizes
    ]
    if c.per_layer:
        if n_layers < 2:
            raise ValueError(
                f"a CLT and a crosscoder need several layers, and this model has {n_layers}: leave them out (per_layer=0)"
            )
        for size in c.multi_sizes:
            several = {"crosscoder": _crosscoder(depths(n_layers), c.per_layer, size)}
            several |= {f"{'skip-' if skip else ''}clt": _clt(n_layers, c.per_layer, size, skip) for skip in (False, True)}
            found += [m for kind, m in several.items() if kind in c.kinds]
    return tuple(found)


def _single(kind: str, layer: int, width: int, size: str, n_layers: int, every: bool) -> MemberRecipe:
    k = float(l0_target(layer, n_layers, classes(size, every_layer=every)))
    transcoder, skip = "transcoder" in kind, kind.startswith("skip")
    read, written = (f"L{layer}.mlp_in", f"L{layer}.mlp_out") if transcoder else (f"L{layer}.{kind}",) * 2
    place = f"{'transcoder' if transcoder else kind}{'_all' if every else ''}"
    folder = f"{place}/layer_{layer}_width_{width_name(width)}_l0_{size}{'_affine' if skip else ''}"
    return MemberRecipe(
        _name(folder), read, written, d_sae=width, activation=BatchTopK(round(k)), matryoshka=prefixes(width), skip=skip,
        l0_target=k, folder=folder,
    )  # fmt: skip


def _crosscoder(layers: tuple[int, ...], per_layer: int, size: str) -> MemberRecipe:
    sites, latents, k = tuple(f"L{layer}.resid_post" for layer in layers), per_layer * len(layers), MULTI_L0[size]
    folder = f"crosscoder/layer_{'_'.join(map(str, layers))}_width_{width_name(latents)}_l0_{size}"
    return MemberRecipe(_name(folder), sites, sites, Causal(), latents, BatchTopK(int(k)), None, l0_target=k, folder=folder)


def _clt(n_layers: int, per_layer: int, size: str, skip: bool) -> MemberRecipe:
    read, written = (tuple(f"L{i}.{kind}" for i in range(n_layers)) for kind in ("mlp_in", "mlp_out"))
    latents, k = per_layer * n_layers, MULTI_L0[size]
    folder = f"clt/width_{width_name(latents)}_l0_{size}{'_affine' if skip else ''}"
    return MemberRecipe(
        _name(folder), read, written, Causal(), latents, BatchTopK(int(k)), None, skip=skip, l0_target=k, folder=folder
    )  # fmt: skip


def _name(folder: str) -> str:
    return folder.replace("/", "--")


def suite(
    model: str = "gemma-3-270m", n_layers: int = 18, *, tokens: int = 10**9, widths: tuple[int, ...] = (16384, 262144)
) -> RunRecipe:
    """The full catalogue, for GPUs: every layer, both widths, small and big, and 14,560 latents a layer in CLT and crosscoder."""
    c = Catalogue(tuple(range(n_layers)), widths, per_layer=14_560, multi_sizes=("medium", "big"))
    training = replace(scaled(members(c, n_layers), tokens, epochs=1.0, batch=4096), lr=7e-5)
    return RunRecipe(training, name="suite", model=model, tokens=tokens, context=1024)


def suite_cpu(
    model: str = "gemma-3-270m",
    n_layers: int = 18,
    *,
    tokens: int = 100_000,
    latents: int = 2048,
    per_layer: int = 1024,
    kinds: tuple[str, ...] = (*SINGLE, *MULTI),
) -> RunRecipe:
    """The catalogue on two cores: 2,048 latents, medium L0, every token once; CLT and crosscoder 1,024 latents a layer."""
    c = Catalogue(tuple(range(n_layers)), (latents,), ("medium",), kinds, per_layer)
    return RunRecipe(
        scaled(members(c, n_layers), tokens, epochs=1.0), name="suite_cpu", model=model, tokens=tokens,
        calibration="held-out+wikipedia-passages-dev", controls=False, eval_tokens=8_192, ce_tokens=1_024, index_tokens=32_768,
    )  # fmt: skip
