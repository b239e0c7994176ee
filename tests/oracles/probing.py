"""sae-probes' selection of latents and its probes against ours, on the same latents and labels: the oracle behind docs/oracles.md.

    .venv/bin/python tests/oracles/probing.py ours WORK DICTIONARY [TASKS]     # in diascope's environment; 6 tasks unless said
    PEER/bin/python tests/oracles/probing.py theirs WORK                       # sae-probes==0.4.2 and scikit-learn

1. `ours` reads each task's prompts with the model, encodes the last token, ranks latents and fits probes as
   diascope.evals.probing does, and writes latents, labels, the order and the AUROC of every probe.
2. `theirs` gives the same latents to sae-probes' own `get_sorted_indices` and `find_best_reg` (L2) and prints, task by task, whether the
   same latents are chosen and how far the AUROC is, with latents in float32 as it has them and in float64. Its `run_sae_eval` is those two functions behind a cache of files.
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import numpy as np
import torch

KS, TRAIN, TEST = (1, 2, 5, 20), 512, 300
KINDS = ("float32", "float64")  # sae-probes fits in the precision of the latents, which is float32 there; we in float64


def ours(work: Path, path: str, n: int) -> None:
    import diascope
    from diascope.evals.probe_sets import MINI, load_task
    from diascope.evals.probes import auroc, fit
    from diascope.evals.probing import ranking, sparse
    from diascope.evals.subject import Subject

    model, d = diascope.load_model("gemma-3-270m"), diascope.load_dictionary(path)
    subject, found = Subject(model, [d]), {}
    work.mkdir(parents=True, exist_ok=True)
    for name in MINI[:: max(1, len(MINI) // n)][:n]:
        task = load_task(name)
        train, test = task.split(TRAIN, TEST)
        x = d.inputs(subject.last([task.prompts[j] for j in (*train, *test)])).numpy()
        f, y = sparse(d, x), task.labels[np.concatenate([train, test])]
        own, rest = f[: len(train)], f[len(train) :]
        order = ranking(own, y[: len(train)])[: max(KS)]
        features, tests = own[:, order].toarray(), rest[:, order].toarray()
        aurocs = {k: auroc(y[len(train) :], fit(features[:, :k], y[: len(train)]).score(tests[:, :k])) for k in KS}
        found[name] = {"order": order.tolist(), "auroc": aurocs, "train": len(train), "test": len(test)}
        np.savez_compressed(work / f"{name}.npz", latents=f.toarray(), labels=y)
        (work / "ours.json").write_text(json.dumps(found, indent=1))
        print(name, {k: round(v, 4) for k, v in aurocs.items()})


def theirs(work: Path) -> int:
    sys.modules.setdefault("xgboost", types.ModuleType("xgboost"))  # imported for probes that are not asked here
    from sae_probes.run_sae_evals import get_sorted_indices, mean_act_normalization
    from sae_probes.utils_training import find_best_reg

    found = json.loads((work / "ours.json").read_text())
    same, errors = {k: 0 for k in KS}, {(k, kind): [] for k in KS for kind in KINDS}
    for name, own in found.items():
        arrays, n = np.load(work / f"{name}.npz"), own["train"]
        latents, y = torch.from_numpy(arrays["latents"]), arrays["labels"]
        order = get_sorted_indices(latents[:n], torch.from_numpy(y[:n]), mean_act_normalization)
        for k in KS:
            top = order[:k]
            same[k] += set(top.tolist()) == set(own["order"][:k])
            for kind in KINDS:
                x = latents[:, top].numpy().astype(kind)
                auc = find_best_reg(x[:n], y[:n], x[n:], y[n:], penalty="l2", seed=42).metrics.test_auc
                errors[k, kind].append(abs(auc - own["auroc"][str(k)]))
                print(f"{name:36s} k {k:2d} {kind}: AUC {auc:.6f}, ours {own['auroc'][str(k)]:.6f}")
    print("| k | same latents | AUC, largest difference | mean difference | the same, given float64 |\n|---|---|---|---|---|")
    for k in KS:
        usual, exact = (errors[k, kind] for kind in KINDS)
        print(f"| {k} | {same[k]} of {len(found)} | {max(usual):.1e} | {np.mean(usual):.1e} | {max(exact):.1e} |")
    return int(any(same[k] < len(found) or max(errors[k, "float64"]) > 1e-5 for k in KS))


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        ours(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 6)
    else:
        sys.exit(theirs(Path(sys.argv[2])))
