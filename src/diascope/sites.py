"""A site is a place in a model where a vector is read or written; this module knows its names in every dialect.

    Site.parse("L12.resid_post")                     our own
    Site.parse("model.layers.12.output")             Gemma Scope 2 (`hf_hook_point_in` / `hf_hook_point_out`)
    Site.parse("blocks.12.hook_resid_post")          TransformerLens

A name that other tools give to a *different* vector (TransformerLens' `hook_mlp_in`, which is the raw residual, or
`ln2.hook_normalized`, which lacks the norm's learned gain) is refused with the reason, never quietly mapped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

RELEASED = ("resid_post", "attn_out", "mlp_in", "mlp_out")
"""Kinds that Gemma Scope 2 has dictionaries at."""
KINDS = (*RELEASED, "resid_pre", "attn_write")
STREAM = ("resid_pre", "resid_post")
"""Kinds that are the residual stream itself."""
ADDED = ("attn_write", "mlp_out")
"""Kinds that are added to it. Vectors of both sorts are what the unembedding can read."""

_GEMMA_SCOPE = {
    "resid_post": "output",
    "attn_out": "self_attn.o_proj.input",
    "mlp_in": "pre_feedforward_layernorm.output",
    "mlp_out": "post_feedforward_layernorm.output",
    "resid_pre": "input",
    "attn_write": "post_attention_layernorm.output",
}
_TRANSFORMER_LENS = {
    "resid_post": "hook_resid_post",
    "attn_out": "attn.hook_z",
    "mlp_in": "mlp.hook_in",
    "mlp_out": "hook_mlp_out",
    "resid_pre": "hook_resid_pre",
    "attn_write": "hook_attn_out",
}
_MISLEADING = {
    "hook_mlp_in": "the raw residual before the norm, not what the MLP reads; say L{0}.mlp_in for the normed vector",
    "ln2.hook_normalized": "the normed residual without the learned gain; Gemma Scope 2 transcoders read L{0}.mlp_in",
}


@dataclass(frozen=True, order=True)
class Site:
    """Where a vector is read or written: a layer (counted from 0), a kind, and optionally which model."""

    layer: int
    kind: str
    model: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown site kind {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.layer < 0:
            raise ValueError(f"a site's layer counts from 0, got {self.layer}")

    def __str__(self) -> str:
        prefix = f"{self.model}:" if self.model else ""
        return f"{prefix}L{self.layer}.{self.kind}"

    @classmethod
    def parse(cls, name: str | Site) -> Site:
        """The site called `name` in our dialect, Gemma Scope 2's or TransformerLens's.

        Raises ValueError for an unknown name, and for names that mean a different vector elsewhere.
        """
        if isinstance(name, Site):
            return name
        if not isinstance(name, str):
            raise ValueError(f"a site is a name such as L12.resid_post, not {name!r}")
        text = name.strip()
        model = None
        if m := re.fullmatch(r"([\w-]+):(.+)", text):
            model, text = m.groups()
        if m := re.fullmatch(r"[Ll](\d+)\.(\w+)", text):
            if m[2] in KINDS:
                return cls(int(m[1]), m[2], model)
        elif m := re.fullmatch(r"model\.(?:language_model\.)?layers\.(\d+)\.(.+)", text):
            for kind, suffix in _GEMMA_SCOPE.items():
                if m[2] == suffix:
                    return cls(int(m[1]), kind, model)
        elif m := re.fullmatch(r"blocks\.(\d+)\.(.+)", text):
            if m[2] in _MISLEADING:
                raise ValueError(f"{name!r} is {_MISLEADING[m[2]].format(m[1])}")
            for kind, suffix in _TRANSFORMER_LENS.items():
                if m[2] == suffix:
                    return cls(int(m[1]), kind, model)
        raise ValueError(
            f"no site is called {name!r}: write L<layer>.<kind> with kind one of {', '.join(KINDS)}, for example "
            "L12.resid_post (Gemma Scope 2's and TransformerLens's hook names are understood too)"
        )

    @property
    def depth(self) -> tuple[int, int]:
        """Sites in the order in which a forward pass computes them (the branches of a parallel block count as serial)."""
        return self.layer, ("resid_pre", "attn_out", "attn_write", "mlp_in", "mlp_out", "resid_post").index(self.kind)

    def gemma_scope(self) -> str:
        """The hook point as Gemma Scope 2's config.json writes it."""
        return f"model.layers.{self.layer}.{_GEMMA_SCOPE[self.kind]}"

    def transformer_lens(self) -> str:
        """The hook name in TransformerLens."""
        return f"blocks.{self.layer}.{_TRANSFORMER_LENS[self.kind]}"


def spelled(sites: str | Site | Sequence[str | Site]) -> tuple[str, ...]:
    """One or several sites, in whatever dialect they came, as names in ours."""
    given = (sites,) if isinstance(sites, str | Site) else sites
    return tuple(str(Site.parse(s)) for s in given)
