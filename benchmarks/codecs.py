"""What each codec costs on real rows: squared error over variance, and over variance a dimension (standardised).

    python benchmarks/codecs.py [--model gemma-3-270m] [--tokens 8192] [--layers 0 5 9 12 17]

Rows of BoolQ dev passages at all four sites of some layers, captured in float32; the worst and the best site of each codec.
"""

from __future__ import annotations

import argparse
import json

import torch
from rich.console import Console
from rich.table import Table

from diascope.activations import CODECS
from diascope.evals.text import EvalText
from diascope.models import load_model
from diascope.sites import KINDS, Site
from diascope.tokens import open_corpus, pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m", help="model (default: gemma-3-270m)")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens (default: 8192)")
    parser.add_argument("--layers", type=int, nargs="*", default=[0, 5, 9, 12, 17], help="layers (default: 0 5 9 12 17)")
    parser.add_argument("--json", action="store_true", help="also print one line of JSON")
    args, out = parser.parse_args(), Console(width=110)
    model = load_model(args.model, dtype="float32")
    text = EvalText(model, pack(model, open_corpus("wikipedia-passages-dev").documents, context=512, max_tokens=args.tokens))
    rows = text.capture([Site(layer, kind) for layer in args.layers for kind in KINDS])
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, codec in CODECS.items():
        for site, x in rows.items():
            variance = (x - x.mean(0)).double().square().mean(0)
            error = (codec.decode(codec.encode(x), slice(None)).float() - x).double().square().mean(0)
            standardised = torch.where(variance > 0, error / variance.clamp_min(1e-300), 0.0).mean()
            found.setdefault(name, {})[str(site)] = float(error.sum() / variance.sum()), float(standardised)
    t = Table(
        "codec",
        "bytes an element",
        "FVU, best site",
        "worst site",
        "standardised, best",
        "worst",
        title=f"{len(x):,} rows, {len(rows)} sites",
    )
    for name, sites in found.items():
        columns = []
        for i in range(2):
            low, high = (choose(sites, key=lambda s: sites[s][i]) for choose in (min, max))
            columns += [f"{sites[s][i]:.1e} ({s})" for s in (low, high)]
        t.add_row(name, f"{CODECS[name].bytes_per_row(640) / 640:.2f}", *columns)
    out.print(t)
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
