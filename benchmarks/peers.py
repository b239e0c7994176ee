"""Fidelity against SAELens, sparsify and dictionary_learning as released: the same rows, tokens, steps and tuning effort.

    python benchmarks/peers.py --workspace DIR --python PEERS/bin/python [--tokens 60000] [--latents 2048] [--k 60]

1. One harvest of Gemma 3 270M at L12.resid_post; calibration rows from the dev passages, evaluation rows from the test passages.
2. For each kind and each library that has it: every rate of one grid with seed 0; the one with the lowest FVU on the calibration
   rows; then seeds 1 and 2 with it. Where a penalty makes latents sparse (ReLU, gated, JumpReLU) its coefficient is sought at each
   rate, up to five trainings, until L0 is within 15 % of k; ours finds it in one (Controller, QuadraticL0). Then everybody's
   thresholds are set so that L0 is k on the calibration rows. Peers train in PEERS (peers_train.py has its packages).
3. Ours over the best peer: ratio of summed squared errors over the evaluation rows and the three seeds, with a 95 % interval from
   resampling documents, the same ones for both and for all seeds.

Ours is trained in the peers' metric, one scale for all dimensions (metric_power 0), so that FVU is what all of them minimise.
Finished trainings are kept under DIR/jobs; the same command goes on. Results: DIR/peers.json.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from diascope.activations import RowReader
from diascope.config import config_hash, to_data
from diascope.dictionaries import BatchTopK, Dictionary, Gated, JumpReLU, Matryoshka, ReLU, TopK, with_l0
from diascope.evals.text import EvalText
from diascope.numerics import Estimate, ratio_over_documents
from diascope.progress import Bars
from diascope.recipes.gemma_scope_2 import scaled
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.sites import Site
from diascope.storage.files import write_json
from diascope.tokens import open_corpus, pack
from diascope.training import MemberRecipe, TrainingRecipe, train_group

SITE = "L12.resid_post"
RATES = (3e-3, 1e-2, 3e-2)
SIGN_RATES = (2e-3, 7e-3, 2e-2)  # sparsify's signum moves every entry by its rate
SEEDS = (0, 1, 2)
PEERS = {
    "topk": (("sae_lens", "topk"), ("dictionary_learning", "topk"), ("sparsify", "topk-adam"), ("sparsify", "topk-signum")),
    "batchtopk": (("sae_lens", "batchtopk"), ("dictionary_learning", "batchtopk")),
    "matryoshka": (("sae_lens", "matryoshka"), ("dictionary_learning", "matryoshka")),
    "jumprelu": (("sae_lens", "jumprelu"), ("dictionary_learning", "jumprelu")),
    "gated": (("sae_lens", "gated"), ("dictionary_learning", "gated")),
    "relu": (("sae_lens", "relu"), ("dictionary_learning", "relu")),
}
OURS = {"jumprelu": JumpReLU(bandwidth=0.01), "gated": Gated(), "relu": ReLU()}  # 0.001 is for a hundred times as many steps
COEFFICIENTS = {"sae_lens": 1.0, "dictionary_learning": 0.1}  # where the search begins
Result = dict[str, np.ndarray]


def our_recipe(kind: str, args: argparse.Namespace, lr: float, seed: int) -> TrainingRecipe:
    n, k = args.latents, args.k
    nested = Matryoshka((n // 16, n // 4, n), (1.0, 1.0, 1.0)) if kind == "matryoshka" else None
    activation = TopK(k) if kind == "topk" else OURS.get(kind, BatchTopK(k))
    member = MemberRecipe("ours", SITE, SITE, d_sae=n, activation=activation, matryoshka=nested,
                          l0_target=float(k), metric_power=0.0)  # fmt: skip
    dead_after = int(args.epochs * args.tokens) // 4  # and, as the peers: momentum, and k from the start
    return replace(
        scaled((member,), args.tokens, epochs=args.epochs, batch=args.batch),
        lr=lr,
        seed=seed,
        dead_after=dead_after,
        beta1=0.9,
        decoder_start="rows",
        l0_warmup=0 if kind in ("topk", "batchtopk", "matryoshka") else int(args.epochs * args.tokens) // args.batch // 5,
    )


class Bench:
    """The rows, the jobs done so far, and how a training is carried out."""

    def __init__(self, args: argparse.Namespace, bars: Bars) -> None:
        self.args, self.bars, self.folder = args, bars, args.workspace / "jobs"
        recipe = RunRecipe(our_recipe("topk", args, 1e-3, 0), name="peers", tokens=args.tokens)
        run = Run(recipe, args.workspace, bars.stage)
        self.reader: RowReader = run.harvest()
        self.folder.mkdir(exist_ok=True)
        site = Site.parse(SITE)
        self.train = self.reader.read(site, np.arange(len(self.reader))).float()
        rows = {}
        for name, corpus, tokens in (("calibration", "wikipedia-passages-dev", 8_192), ("eval", "wikipedia-passages", 16_384)):
            text = EvalText(run.model, pack(run.model, open_corpus(corpus).documents, context=512, max_tokens=tokens))
            rows[name], self.documents = text.capture([site])[site], text.documents
        self.calibration, self.eval = rows["calibration"], rows["eval"]
        for name, x in (("train", self.train), *rows.items()):
            np.save(args.workspace / f"{name}.npy", x.numpy())

    @property
    def steps(self) -> int:
        return int(self.args.epochs * len(self.train)) // self.args.batch

    def result(self, library: str, kind: str, lr: float, seed: int, coefficient: float | None = None) -> Result:
        """Errors of one training, carried out unless it was before."""
        a = self.args
        job = {"library": library, "kind": kind, "latents": a.latents, "k": a.k, "lr": lr, "seed": seed, "batch": a.batch,
               "steps": self.steps, "rows": self.reader.manifest["tokens"]}  # fmt: skip
        if coefficient is not None:
            job["coefficient"] = coefficient
        if library == "ours":
            job["recipe"] = to_data(our_recipe(kind, a, lr, seed))
        out = self.folder / f"{library}-{kind}-{lr:g}-{seed}-{config_hash(job)}.npz"
        if not out.exists():
            self.bars.stage("train", "")(
                0,
                0,
                f"{library} {kind}, rate {lr:g}, seed {seed}, {self.steps} steps"
                + (f", coefficient {coefficient:.3g}" if coefficient else ""),
            )
            self._ours(out, kind, lr, seed) if library == "ours" else self._theirs(out, job)
        with np.load(out) as found:
            return dict(found)

    def _ours(self, out: Path, kind: str, lr: float, seed: int) -> None:
        recipe = our_recipe(kind, self.args, lr, seed)
        (trained,) = train_group(recipe, self.reader, self.folder / f"training-{config_hash(recipe)}", model="gemma-3-270m")
        d = trained.dictionary
        if kind == "relu":  # a threshold of zero, which can then be set as everybody's is
            d = Dictionary(replace(d.config, activation=JumpReLU()), d.tensors() | {"threshold": torch.zeros(d.config.d_sae)})
        d = d if kind == "topk" else with_l0(d, self.calibration, self.args.k)
        found: Result = {}
        for name, x in (("eval", self.eval), ("calibration", self.calibration)):
            error = (x - d(x)).double()
            found |= {
                name: error.square().sum(1).numpy(),
                f"{name}_standardised": (error / self.eval.std(0)).square().sum(1).numpy(),
            }
            found[f"{name}_l0"] = np.array(float(d.encode(x).counts.double().mean()))
        np.savez(part := out.with_suffix(".part.npz"), **found)  # type: ignore[arg-type]
        part.rename(out)

    def _theirs(self, out: Path, job: dict[str, Any]) -> None:
        files = {name: str(self.args.workspace / f"{name}.npy") for name in ("train", "calibration", "eval")}
        path, part = self.folder / "job.json", out.with_suffix(".part.npz")
        path.write_text(json.dumps(job | files | {"out": str(part)}))
        script = Path(__file__).with_name("peers_train.py")
        done = subprocess.run([self.args.python, str(script), str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{job['library']} {job['kind']} failed:\n{done.stderr[-2000:]}")
        part.rename(out)

    def coefficient(self, library: str, kind: str, lr: float, start: float) -> float:
        """The sparsity coefficient with which L0 comes within 15 % of k, or the nearest of five: secant steps in the logarithms."""
        tried: list[tuple[float, float]] = []  # log coefficient, log (L0 / k)
        while len(tried) < 5 and all(abs(off) > 0.15 for _, off in tried):
            at = math.log(start)
            if tried:
                at = tried[-1][0] + 0.7 * tried[-1][1]
            if len(tried) > 1:
                (a, off), (b, last) = tried[-2:]
                at = min(max(b - last * (b - a) / (last - off or 1e-9), b - 3), b + 3)
            found = self.result(library, kind, lr, 0, math.exp(at))
            tried.append((at, math.log(max(float(found["own_l0"]), 0.1) / self.args.k)))
        return math.exp(min(tried, key=lambda t: abs(t[1]))[0])

    def best(self, library: str, kind: str) -> tuple[float, list[Result]]:
        """The grid's best rate on the calibration rows, and the results of the three seeds with it."""
        grid, settings = SIGN_RATES if kind.endswith("signum") else RATES, dict[float, float | None]()
        start = COEFFICIENTS.get(library)
        for rate in sorted(grid, key=lambda rate: rate != grid[1]):  # the middle one first: its coefficient starts the others
            settings[rate] = start = self.coefficient(library, kind, rate, start) if kind in OURS and start else None
        lr = min(grid, key=lambda rate: float(self.result(library, kind, rate, 0, settings[rate])["calibration"].sum()))
        return lr, [self.result(library, kind, lr, seed, settings[lr]) for seed in SEEDS]

    def fvu(self, results: list[Result], key: str = "eval") -> Estimate:
        x = self.eval.double()
        centred = (x - x.mean(0)) / (self.eval.std(0).double() if key.endswith("standardised") else 1.0)
        variance = centred.square().sum(1).numpy()
        return ratio_over_documents(np.mean([r[key] for r in results], 0), variance, self.documents)

    def ratio(self, ours: list[Result], theirs: list[Result]) -> Estimate:
        return ratio_over_documents(sum(r["eval"] for r in ours), sum(r["eval"] for r in theirs), self.documents)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--python", required=True, help="interpreter of the peers' environment")
    parser.add_argument("--tokens", type=int, default=60_000, help="tokens harvested (default: 60000)")
    parser.add_argument("--epochs", type=float, default=2.0, help="passes over them (default: 2)")
    parser.add_argument("--batch", type=int, default=512, help="rows a step (default: 512)")
    parser.add_argument("--latents", type=int, default=2048, help="latents (default: 2048)")
    parser.add_argument("--k", type=int, default=60, help="active latents a token (default: 60)")
    parser.add_argument("--kinds", nargs="*", default=list(PEERS), help=f"which of {', '.join(PEERS)}")
    args, out = parser.parse_args(), Console(width=120)
    t = Table(
        "",
        "library",
        "rate",
        "L0",
        "FVU",
        "FVU std.",
        "by seed",
        title=f"{args.latents} latents, {args.tokens} tokens x {args.epochs:g}",
    )
    report: dict[str, Any] = {}
    with Bars(out) as bars:
        bench = Bench(args, bars)
        for kind in args.kinds:
            found = {"ours": bench.best("ours", kind)} | {f"{a}, {b}": bench.best(a, b) for a, b in PEERS[kind]}
            for name, (lr, results) in found.items():
                raw, standardised = bench.fvu(results), bench.fvu(results, "eval_standardised")
                seeds = " ".join(f"{bench.fvu([r]).value:.4f}" for r in results)
                l0 = float(np.mean([r["eval_l0"] for r in results]))
                grid = SIGN_RATES if name.endswith("signum") else RATES
                edge = "" if lr in grid[1:-1] else " (edge)"
                t.add_row(kind, name, f"{lr:g}{edge}", f"{l0:.1f}", str(raw), f"{standardised.value:.4f}", seeds)
            rival = min((n for n in found if n != "ours"), key=lambda n: bench.fvu(found[n][1]).value)
            pairs = [bench.ratio([a], [b]).value for a, b in zip(found["ours"][1], found[rival][1])]
            ratio = bench.ratio(found["ours"][1], found[rival][1])
            report[kind] = {"best peer": rival, "ratio": [ratio.value, ratio.low, ratio.high], "by seed": pairs}
    out.print(t)
    for kind, r in report.items():
        value, low, high = r["ratio"]
        out.print(
            f"{kind}: ours over {r['best peer']}: {value:.3f} [{low:.3f}, {high:.3f}]; by seed {', '.join(f'{p:.3f}' for p in r['by seed'])}"
        )
    write_json(args.workspace / "peers.json", report)


if __name__ == "__main__":
    main()
