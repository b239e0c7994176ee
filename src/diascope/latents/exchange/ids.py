"""Neuronpedia's names: model, source set, source (`12-gemmascope-2-res-16k`) and index, for a source of an index.

    modelId    the model's last name: google/gemma-3-270m -> gemma-3-270m
    set        <who>-<where>-<width>: diascope-res-16k. res, mlp, att (attn_out), transcoder, clt, crosscoder
    sourceId   <layer>-<set>; the first layer where a dictionary reads several

A source that came from Neuronpedia keeps the names that it had (`neuronpedia` in its meta). Two sources of an index that the
rule would call the same are told apart by their own names: 12-diascope-res-16k--sae-b.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from diascope.latents.store import Index, Source
from diascope.sites import Site

WHO = "diascope"
_WHERE = {"resid_post": "res", "mlp_out": "mlp", "attn_out": "att"}


@dataclass(frozen=True)
class Names:
    """What Neuronpedia calls a source."""

    model: str
    set: str
    source: str


def model_id(name: str) -> str:
    """The model's name as an id: its last part, in the letters that ids have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.replace("\\", "/").rstrip("/").rpartition("/")[2]) or "model"


def names(index: Index) -> dict[str, Names]:
    """The names of every source of `index`, by its own name; no two have the same id."""
    found = {s.name: _names(index, s) for s in index.sources.values()}
    often = Counter(n.source for n in found.values())
    return {name: n if often[n.source] == 1 else _apart(n, name) for name, n in found.items()}


def _names(index: Index, source: Source) -> Names:
    kept = source.meta.get("neuronpedia")
    if kept:
        return Names(kept["model"], kept["set"], kept["source"])
    sites = [Site.parse(site) for site in source.meta.get("config", {}).get("sites_in", ())]
    layer = min((site.layer for site in sites), default=0)
    set_name = f"{WHO}-{_where(source, sites)}-{width(len(source))}"
    return Names(model_id(index.meta["model"]), set_name, f"{layer}-{set_name}")


def _where(source: Source, sites: list[Site]) -> str:
    kind = str(source.meta.get("kind", ""))
    if kind in ("transcoder", "crosscoder", "clt"):
        return kind
    return _WHERE.get(sites[0].kind, sites[0].kind.replace("_", "-")) if sites else "latents"


def width(latents: int) -> str:
    """A width as ids say it: 16384 is 16k, 262144 is 262k, 1000000 is 1m, 64 is 64."""
    for unit, size in (("m", 10**6), ("k", 10**3)):
        if latents >= size:
            return f"{latents // size}{unit}"
    return str(latents)


def _apart(n: Names, name: str) -> Names:
    tail = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "source"
    return Names(n.model, f"{n.set}--{tail}", f"{n.source}--{tail}")
