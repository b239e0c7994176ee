"""What a dictionary is, said without running it: kind, shapes, hook points, norms, provenance, and where it could go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diascope.dictionaries.artefact import PROBE, format_of, load_dictionary
from diascope.dictionaries.dictionary import Dictionary
from diascope.dictionaries.formats import FORMATS
from diascope.dictionaries.resolve import resolve
from diascope.sites import Site
from diascope.storage.files import reading


@dataclass(frozen=True)
class Inspection:
    """`facts` in reading order, tensors with their shapes, and for every format what survives or why it is refused."""

    facts: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    formats: dict[str, str]

    def data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"facts": self.facts, "shapes": {k: list(v) for k, v in self.shapes.items()}, "formats": self.formats}


def inspect(reference: str | Path, **hints: Any) -> Inspection:
    """Look at the dictionary that `reference` names (`load_dictionary`'s words and hints), lazily: norms come from a sample.

    Raises ValueError as load_dictionary does, damage excepted: that is for `verify`.
    """
    path = resolve(reference)
    d = load_dictionary(path, lazy=True, **hints)
    with reading(path, "export it again"):
        return _inspection(path, d)


def _inspection(path: Path, d: Dictionary) -> Inspection:
    c = d.config
    facts = {
        "is": c.title,
        "format": FORMATS[format_of(path).name].library,
        "model": c.model or "not said",
        "reads": _sites(c.reads),
        "writes": "the same" if c.sites_in == c.sites_out else _sites(c.writes),
        "latents": f"{c.d_sae:,}" + (f" in {len(d.blocks)} blocks of {d.blocks[0].n_latents:,}" if len(d.blocks) > 1 else ""),
        "activation": _activation(d),
        "target L0": f"{c.l0_target:g}" if c.l0_target else "not said",
        "nesting": str(c.matryoshka) if c.matryoshka else "none, or not said",
        "decoder rows": _norms(d),
        "probe": f"{PROBE} (checked when loaded)" if (path / PROBE).exists() else "none",
    }
    if corpus := d.provenance.get("corpus"):
        facts["trained on"] = f"{corpus.get('name')}, {corpus.get('licence')}"
    if digest := d.provenance.get("recipe_hash"):
        facts["recipe"] = str(digest)
    if value := d.card.get("metrics", {}).get("dictionary", {}).get("delta_ce"):
        facts["delta CE"] = f"{value['value']:+.3f} nats a token, n {value['n']:,}"
    shapes = {name: tuple(t.shape) for name, t in d.tensors().items()}
    formats = {name: f"no: {reason}" if (reason := f.refuses(d)) else str(f.fidelity(d)) for name, f in FORMATS.items()}
    return Inspection(facts, shapes, formats)


def _sites(sites: tuple[Site, ...]) -> str:
    names = [f"{s} (Gemma Scope 2: {s.gemma_scope()}; TransformerLens: {s.transformer_lens()})" for s in sites]
    return names[0] if len(names) == 1 else f"{', '.join(map(str, sites))} (as {names[0].split(' ', 1)[1]})"


def _activation(d: Any) -> str:
    name = type(d.config.activation).__name__
    if name == "TopK":
        return f"TopK, k {d.config.activation.k}"
    if name == "ReLU":
        return "ReLU"
    t = d.threshold.clamp_min(0)
    return f"{name}, thresholds {float(t.min()):.3g} to {float(t.max()):.3g}"


@torch.no_grad()
def _norms(d: Any) -> str:
    """Lengths of at most 64 decoder rows a block."""
    n = torch.cat([W[:: max(1, len(W) // 64)].norm(dim=1) for W in d.decoders])
    if bool((n - 1).abs().max() < 1e-4):
        return "unit length"
    return f"lengths {float(n.min()):.3g} to {float(n.max()):.3g} ({len(n)} sampled)"
