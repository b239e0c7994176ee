"""The JSON of Anthropic's viewer, circuit-tracer and Neuronpedia, out and in.

Out: the graph pruned, ids that nobody shares (latent `l_f_p`, token `E_id_p`, error `l_-1_p`, bias `l_-2_-1`, target
`{L+1}_id_p`), raw signed weights. What this schema has no word for (biases, excluded positions, tokens before a window)
keeps its own feature_type; extra keys (`dictionary`, `measured`) pass the schema. What interventions say of the edges, of the
supernode that was tried (a supernode of the viewer) and of swaps is in `metadata.info`.
In: any file of that schema, as the plain data that `view` gives, so that one page opens both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diascope.circuits.graph import Graph
from diascope.circuits.influence import prune
from diascope.circuits.nodes import Kind
from diascope.storage.files import read_json, write_json

TYPES = {
    Kind.TOKEN: "embedding", Kind.LATENT: "cross layer transcoder", Kind.ERROR: "mlp reconstruction error",
    Kind.EXCLUDED: "excluded position", Kind.BIAS: "bias", Kind.EARLIER: "earlier tokens", Kind.TARGET: "logit",
}  # fmt: skip
KINDS = {name: kind.name.lower() for kind, name in TYPES.items()} | {"lorsa": "latent", "lorsa error": "error"}


def to_viewer(
    graph: Graph,
    *,
    slug: str,
    node_share: float = 0.8,
    edge_share: float = 0.98,
) -> dict[str, Any]:
    """The pruned graph in the schema that the viewers share. `slug` names it."""
    small = prune(graph, node_share=node_share, edge_share=edge_share)
    ids = [_id(small, n) for n in range(len(small))]
    first = int(small.targets()[0])
    nodes = [_node(small, n, ids[n], n == first) for n in range(len(small))]
    links = [
        {"source": ids[s], "target": ids[t], "weight": w}
        for s, t, w in zip(small.source.tolist(), small.target.tolist(), small.edge.tolist())
    ]
    about = graph.about
    told = about.get("verification", {})
    node = told.get("supernode", {})
    metadata = {
        "slug": slug, "scan": about["model"], "transcoder_list": sorted({n for n in about["latents_are"] if n}), "schema_version": 1,
        "prompt_tokens": graph.tokens, "prompt": "".join(graph.tokens), "node_threshold": node_share,
        "info": {"creator_name": "diascope", "generator": {"name": "diascope"}, "closure": about.get("closure"),
                 "scores": about.get("scores"), "verification": told.get("says"), "supernode": node.get("says"), "swaps": about.get("swaps", [])},
    }  # fmt: skip
    tried = {tuple(k) for k in node.get("latents", ())}
    key = list(zip(small.layer.tolist(), small.position.tolist(), small.index.tolist()))
    members = [ids[n] for n in (small.kind == Kind.LATENT).nonzero().squeeze(1).tolist() if key[n] in tried]
    groups = [["heaviest supernode", *members]] if len(members) > 1 else []
    q = {"pinnedIds": [], "supernodes": groups, "linkType": "both", "clickedId": "", "sg_pos": ""}
    return {"metadata": metadata, "qParams": q, "nodes": nodes, "links": links}


def write_viewer(graph: Graph, path: str | Path, **options: Any) -> Path:
    """`to_viewer` into a file; the slug is the file's name."""
    write_json(path, to_viewer(graph, slug=Path(path).stem, **options))
    return Path(path)


def _facts(g: Graph, n: int) -> tuple[int, int, int, int]:
    """Kind, layer, position and index; a latent's index counted within its layer, as the viewers count."""
    kind, layer, p, i = (int(c[n]) for c in (g.kind, g.layer, g.position, g.index))
    return kind, layer, p, i - g.about["first_latents"][layer] if kind == Kind.LATENT else i


def _id(g: Graph, n: int) -> str:
    kind, layer, p, i = _facts(g, n)
    return {
        Kind.TOKEN: f"E_{i}_{p}", Kind.LATENT: f"{layer}_{i}_{p}", Kind.ERROR: f"{layer}_-1_{p}", Kind.EXCLUDED: f"{layer}_-1_{p}",
        Kind.BIAS: f"{layer}_-2_{p}", Kind.EARLIER: f"{layer}_-3_{p}",
        Kind.TARGET: f"{g.about['layers'] + 1}_{i if i >= 0 else n}_{p}",
    }[Kind(kind)]  # fmt: skip


def paired(layer: int, latent: int) -> int:
    """One number for a layer and a latent of it, Cantor's pairing, by which the viewers look latents up."""
    return (layer + latent) * (layer + latent + 1) // 2 + latent


def _node(g: Graph, n: int, name: str, first: bool) -> dict[str, Any]:
    kind, layer, p, i = _facts(g, n)
    latent, target = kind == Kind.LATENT, kind == Kind.TARGET
    number = {
        Kind.LATENT: paired(layer, i),
        Kind.TARGET: i,
        Kind.TOKEN: p,
    }
    clerp = g.label(n) if latent else g.target_names[n] if target else g.name(n)
    chance = g.about["probabilities"][g.targets().tolist().index(n)] if target else 0.0
    return {
        "node_id": name, "feature": number.get(Kind(kind), -1), "feature_type": TYPES[Kind(kind)], "ctx_idx": max(p, 0),
        "layer": "E" if kind == Kind.TOKEN else str(g.about["layers"] + 1 if target else layer), "run_idx": 0, "reverse_ctx_idx": 0,
        "jsNodeId": f"{layer}_{i}-0" if latent else f"{name}-0", "clerp": clerp, "token_prob": chance, "is_target_logit": target and first,
        "influence": float(g.influence[n]), "activation": float(g.activation[n]) if latent else None,
        "measured": None if math.isnan(float(g.measured[n])) else float(g.measured[n]),
    }  # fmt: skip


def from_viewer(data: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data as `view` gives, of a graph in the shared schema. ValueError names what is missing or loose."""
    for key in ("metadata", "nodes", "links"):
        if key not in data:
            raise ValueError(f"a graph of this schema has metadata, nodes and links, and this one lacks {key}")
    place: dict[str, int] = {}
    nodes = []
    for n in data["nodes"]:
        if missing := {"node_id", "layer", "feature_type"} - set(n):
            raise ValueError(f"a node lacks {', '.join(sorted(missing))}: this is no graph of the viewers' schema")
        if n["node_id"] in place:
            continue  # circuit-tracer gives an error and a latent one id at times: the first stands for both
        place[n["node_id"]] = len(nodes)
        nodes.append(_read(n, len(nodes)))
    total: dict[int, float] = {}
    edges = []
    for link in data["links"]:
        if link["source"] not in place or link["target"] not in place:
            raise ValueError(f"a link goes from {link['source']} to {link['target']}, and one of them is no node")
        s, t, w = place[link["source"]], place[link["target"]], float(link["weight"])
        total[t] = total.get(t, 0.0) + abs(w)
        edges.append([s, t, w])
    edges = [[s, t, w, abs(w) / total[t] if total[t] else 0.0] for s, t, w in edges]
    meta = data["metadata"]
    tokens = list(meta.get("prompt_tokens", []))
    targets = [n for n in nodes if n["kind"] == "target"]
    about = {"model": meta.get("scan", ""), "targets": [n["label"] or n["name"] for n in targets], "tokens": tokens,
             "probabilities": [n["weight"] for n in targets], "from": "viewer JSON", "all_nodes": len(nodes), "all_edges": len(edges)}  # fmt: skip
    groups = [[place[i] for i in group[1:] if i in place] for group in data.get("qParams", {}).get("supernodes") or []]
    return {"about": about, "tokens": tokens, "nodes": nodes, "edges": edges, "supernodes": [g for g in groups if len(g) > 1]}


def _read(n: Mapping[str, Any], number: int) -> dict[str, Any]:
    kind = KINDS.get(n["feature_type"], "latent" if "transcoder" in n["feature_type"] else "excluded")
    parts = n["node_id"].split("_")
    layer = -1 if n["layer"] == "E" else int(n["layer"])
    index = int(parts[1]) if kind == "latent" and len(parts) == 3 else -1
    return {
        "id": number, "node": None, "kind": kind, "layer": layer, "position": None if kind in ("bias", "earlier") else n.get("ctx_idx"), "index": index,
        "name": n["node_id"], "label": n.get("clerp") or "", "activation": n.get("activation"), "value": None,
        "influence": n.get("influence") or 0.0, "weight": n.get("token_prob") or 0.0, "predicted": None, "measured": n.get("measured"),
    }  # fmt: skip


def read_viewer(path: str | Path) -> dict[str, Any]:
    """`from_viewer` of a file."""
    return from_viewer(read_json(path))
