"""How long each library trains for what quality: FVU and delta CE against seconds, ours and the peers', on the same rows of a real model.

    python benchmarks/time_to_quality.py --workspace DIR --python PEERS/bin/python [--device cuda] [--tokens 600000] [--passes 1 2 4]

1. One harvest of Gemma 3 270M at L12.resid_post. Calibration rows from the dev passages, evaluation from the test passages (peers.py).
2. Every library trains with every rate for every number of passes, each run with its whole schedule, in the fastest mode that it has
   (ours: bf16 product; SAELens and dictionary_learning: their bf16 autocast; sparsify: fp32, which its trainer is made for). Of the rates,
   the one with the lowest FVU on the calibration rows counts.
3. Seconds are the trainer's own call: ours from rows on disk to the folded dictionary, theirs from rows in memory to trained weights. A
   short run of each library goes before, so that compilation and the device's start are in nobody's seconds.
4. All dictionaries at L0 k (TopK as it is, the others by one threshold set on the calibration rows), judged by one evaluator.

Ours over a peer: the peer's seconds, from the line through its own points (logarithm of seconds against FVU), at which it would have our
FVU after each number of passes; where it never comes so far, more than its longest run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import SITE, our_recipe
from rich.console import Console
from rich.table import Table

from diascope.dictionaries import Dictionary, DictionaryConfig, JumpReLU, TopK, with_l0
from diascope.evals import evaluate
from diascope.evals.text import EvalText
from diascope.models import load_model
from diascope.progress import Bars
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.sites import Site
from diascope.storage.files import write_json
from diascope.tokens import Sequences, open_corpus, pack
from diascope.training import train_group

LIBRARIES = {
    "ours, BatchTopK": ("ours", "batchtopk"),
    "SAELens, BatchTopK": ("sae_lens", "batchtopk"),
    "dictionary_learning, BatchTopK": ("dictionary_learning", "batchtopk"),
    "ours, TopK": ("ours", "topk"),
    "sparsify, TopK": ("sparsify", "topk-adam"),
}
Found = dict[str, Any]  # seconds, calibration FVU, dictionary


class Bench:
    """The rows, and how each library is trained on them."""

    def __init__(self, args: argparse.Namespace, bars: Bars) -> None:
        self.args, self.bars, self.folder = args, bars, args.workspace / "jobs"
        recipe = RunRecipe(our_recipe("topk", args, 1e-3, 0), name="time to quality", tokens=args.tokens)
        self.model = load_model(recipe.model, dtype="auto", device=args.device)
        run = Run(recipe, args.workspace, bars.stage, model=self.model)
        self.reader, site = run.harvest(), Site.parse(SITE)
        self.folder.mkdir(exist_ok=True)
        self.calibration = EvalText(self.model, self.text("wikipedia-passages-dev", 8_192)).capture([site])[site].cpu()
        self.files = {name: str(args.workspace / f"{name}.npy") for name in ("train", "calibration", "eval")}
        np.save(self.files["train"], self.reader.read(site, np.arange(len(self.reader))).numpy())
        for name in ("calibration", "eval"):  # theirs are judged on the calibration rows only; see `judged` for the rest
            np.save(self.files[name], self.calibration.numpy())

    def text(self, corpus: str, tokens: int) -> Sequences:
        return pack(self.model, open_corpus(corpus).documents, context=512, max_tokens=tokens)

    def steps(self, passes: float) -> int:
        return max(1, int(passes * len(self.reader)) // self.args.batch)

    def ours(self, kind: str, lr: float, passes: float) -> Found:
        args = argparse.Namespace(**vars(self.args) | {"epochs": passes})
        recipe = replace(our_recipe(kind, args, lr, 0), product="bfloat16")
        folder = self.folder / f"ours-{kind}-{lr:g}-{passes:g}-{time.time_ns()}"
        began, first = time.perf_counter(), list[float]()
        note = lambda *_: first.append(time.perf_counter())  # noqa: E731
        (trained,) = train_group(recipe, self.reader, folder, model="gemma-3-270m", device=self.args.device, progress=note)
        seconds = time.perf_counter() - began
        d = trained.dictionary if kind == "topk" else with_l0(trained.dictionary, self.calibration, self.args.k)
        return {"seconds": seconds, "steps": first[-1] - first[0], "dictionary": d, "calibration": self.fvu(d)}

    def fvu(self, d: Dictionary) -> float:
        x = self.calibration
        return float((x - d(x)).double().square().sum() / (x - x.mean(0)).double().square().sum())

    def theirs(self, library: str, kind: str, settings: list[tuple[float, float]]) -> list[Found]:
        """All of a library's runs in one process, a short one first."""
        a, paths, outs = self.args, [], []
        for lr, passes in [(settings[0][0], 20 * a.batch / len(self.reader)), *settings]:
            name = f"{library}-{kind}-{lr:g}-{passes:.3g}"
            out, save = self.folder / f"{name}.npz", self.folder / f"{name}-weights.npz"
            job = {"library": library, "kind": kind, "latents": a.latents, "k": a.k, "lr": lr, "seed": 0, "batch": a.batch,
                   "steps": max(20, self.steps(passes)), "device": a.device, "autocast": True, "autocast_dtype": "bfloat16"}  # fmt: skip
            path = self.folder / f"{name}.json"
            path.write_text(json.dumps(job | self.files | {"out": str(out), "save": str(save)}))
            paths.append(str(path))
            outs.append((out, save))
        script = Path(__file__).with_name("peers_train.py")
        done = subprocess.run([a.python, str(script), *paths], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{library} {kind} failed:\n{done.stderr[-1500:]}")
            return []
        return [self._read(kind, out, save) for out, save in outs[1:]]

    def _read(self, kind: str, out: Path, save: Path) -> Found:
        with np.load(out) as found, np.load(save) as w:
            seconds, tensors = float(found["seconds"]), {name: torch.from_numpy(w[name]) for name in w.files}
        S, d = tensors["W_dec"].shape
        activation = TopK(self.args.k) if kind.startswith("topk") else JumpReLU()
        config = DictionaryConfig.single("gemma-3-270m", SITE, SITE, d, d, S, activation=activation)
        tensors["threshold"] = tensors["threshold"].expand(S).clone()
        dictionary = Dictionary(config, tensors)
        return {"seconds": seconds, "steps": seconds, "dictionary": dictionary, "calibration": self.fvu(dictionary)}

    def trained(self) -> dict[str, dict[float, Found]]:
        """Of each library and number of passes, the best rate's run."""
        found: dict[str, dict[float, Found]] = {}
        settings = [(lr, passes) for passes in self.args.passes for lr in self.args.rates]
        for name, (library, kind) in LIBRARIES.items():
            self.bars.stage("train", "")(0, 0, name)
            if library == "ours":
                self.ours(kind, settings[0][0], 20 * self.args.batch / len(self.reader))
                runs = [self.ours(kind, lr, passes) for lr, passes in settings]
            elif self.args.python:
                runs = self.theirs(library, kind, settings)
            else:
                continue
            for (lr, passes), run in zip(settings, runs):
                said = f"{name}, rate {lr:g}, {passes:g} passes: {run['seconds']:.1f} s, FVU {run['calibration']:.4f} (calibration rows)"
                self.bars.stage("trained", "")(0, 0, said)
                best = found.setdefault(name, {}).get(passes)
                if best is None or run["calibration"] < best["calibration"]:
                    found[name][passes] = run | {"rate": lr}
        return found

    def judged(self, found: dict[str, dict[float, Found]]) -> None:
        """FVU, L0 and delta CE of all, on the test passages."""
        every = {(n, p): run for n, runs in found.items() for p, run in runs.items()}
        dictionaries = {f"{n} x{p:g}": run["dictionary"] for (n, p), run in every.items()}
        text = self.text("wikipedia-passages", self.args.eval_tokens)
        results = evaluate(self.model, dictionaries, text, ce_tokens=self.args.eval_tokens)
        for run, result in zip(every.values(), results.values(), strict=True):
            own = result.metrics["dictionary"]
            for metric in ("fvu", "delta_ce", "l0"):
                run[metric] = own[metric].value, own[metric].low, own[metric].high


def to_reach(target: float, runs: dict[float, Found]) -> tuple[float, bool]:
    """Seconds at which these runs would have FVU `target`, on the line between two neighbours; else their longest, and False."""
    points = sorted((run["seconds"], run["fvu"][0]) for run in runs.values())
    for (a, high), (b, low) in zip([(points[0][0], float("inf")), *points], points):
        if low <= target:
            share = (high - target) / (high - low) if np.isfinite(high) and high > low else 1.0
            return float(np.exp(np.log(a) + share * (np.log(b) - np.log(a)))), True
    return points[-1][0], False


def report(found: dict[str, dict[float, Found]], out: Console) -> list[dict[str, Any]]:
    table = Table("", "passes", "rate", "seconds (of it steps)", "FVU", "delta CE", "L0", "seconds to this FVU over ours")
    lines = []
    for name, runs in found.items():
        mine = found.get(f"ours, {name.split(', ')[1]}", {})
        for passes, run in runs.items():
            ratio = ""
            if not name.startswith("ours") and passes in mine:
                seconds, reached = to_reach(mine[passes]["fvu"][0], runs)
                ratio = f"{'' if reached else '> '}{seconds / mine[passes]['seconds']:.1f} (ours x{passes:g}: {mine[passes]['fvu'][0]:.4f})"
            said = [f"{v:.4f} ({low:.4f} to {high:.4f})" for v, low, high in (run["fvu"], run["delta_ce"])]
            table.add_row(
                name,
                f"{passes:g}",
                f"{run['rate']:g}",
                f"{run['seconds']:.1f} ({run['steps']:.1f})",
                *said,
                f"{run['l0'][0]:.1f}",
                ratio,
            )
            lines.append({"name": name, "passes": passes, "ratio": ratio} | {k: v for k, v in run.items() if k != "dictionary"})
    out.print(table)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--python", default="", help="interpreter of the peers' environment; empty leaves them out")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--tokens", type=int, default=600_000, help="tokens harvested (default: 600000)")
    parser.add_argument("--passes", type=float, nargs="+", default=[1, 2, 4], help="passes over them (default: 1 2 4)")
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3, 1e-2], help="learning rates (default: 0.003 0.01)")
    parser.add_argument("--batch", type=int, default=4096, help="rows a step (default: 4096)")
    parser.add_argument("--latents", type=int, default=16_384, help="latents (default: 16384)")
    parser.add_argument("--k", type=int, default=60, help="active latents a token (default: 60)")
    parser.add_argument("--eval-tokens", type=int, default=8_192, help="tokens that all are judged on (default: 8192)")
    args, out = parser.parse_args(), Console(width=150)
    args.epochs = args.passes[0]
    with Bars(Console(stderr=True)) as bars:
        bench = Bench(args, bars)
        found = bench.trained()
        bench.judged(found)
    write_json(args.workspace / "time_to_quality.json", {"device": args.device, "runs": report(found, out)})


if __name__ == "__main__":
    main()
