"""A held-back word in a dictionary: the latents that fire at control tokens and hardly anywhere else, and the words that they promote.

1. Score of latent j on a request: mean_t f_j(t) * ln(1 / (density_j + 1e-8)), t over its ordinary control tokens (control_tokens.py): a term's
   frequency times its inverse document frequency (Cywinski et al. 2025, arXiv:2505.14352). Density: the share of tokens of plain requests
   and of neutral text on which j fires in the audited model.
2. Change: the score minus that of the same tokens in the reference model, or minus the mean over plain requests.
3. A word is a hit on a request where it is among the `TOP` tokens that one of the `TOP` latents with the largest change above 0 there promotes
   (the decoder row through the final norm's gain and the unembedding). The word in question is the one that the elicitation chose on
   training and validation requests; p is how many of the 199 words next to it have as many hits on test requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diascope.audits import experiment, gates, neutral, record, sparse, statistics
from diascope.audits.control_tokens import Control
from diascope.audits.settings import AuditConfig
from diascope.audits.standing_out import LISTED, TOP, Outstanding, rates
from diascope.audits.target import Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary
from diascope.models import Model
from diascope.numerics import Estimate


def look(
    target: Target,
    d: Dictionary,
    asked: Control,
    plain: Control,
    spelled: Sequence[str],
    elicited: Outstanding,
    least: float,
    config: AuditConfig,
    gate: tuple[str, str] | None,
) -> Finding:
    """The finding "latents"; `gate` is the verdict that the elicitation's rate forces."""
    density, tokens = densities(target, d, plain)
    own, fvu = scores(target, d, asked, density, config.seed)
    with target.as_reference() as reference:
        if reference is not None:
            before = scores(reference, d, asked, density, config.seed)[0]
        else:
            before = np.broadcast_to(scores(target, d, plain, density, config.seed)[0].mean(0), own.shape)
    change, test = own - before, asked.part == "test"
    strongest, first = [_risen(c) for c in change], _risen(change[~test].mean(0))
    promotes = promoted(target.model, d, np.unique(np.concatenate([*strongest, first])))
    said = _said(strongest, promotes, list(spelled))
    found = Outstanding(elicited.order, elicited.nats, said[test][:, elicited.order])
    word, why = _verdict(found, fvu.value, least, config, gate)
    rate, chosen = found.rate, spelled[elicited.order[0]]
    at = {"split": "test", "seed": config.seed}
    mean = lambda v: record.plain(statistics.mean(v[test], asked.group[test], seed=config.seed), **at)  # noqa: E731
    table = [
        {"latent": int(j), "change": mean(change[:, j]), "score": mean(own[:, j]), "density": float(density[j]), "promotes": promotes[int(j)]}
        for j in first
    ]  # fmt: skip
    often = np.argsort(-said[~test].mean(0), kind="stable")[:LISTED]
    numbers = {
        "word": chosen, "rate": record.plain(rate, **at), "p": found.p, "latents": table,
        "changes": {" ".join([str(line["latent"]), *(t.strip() for t in line["promotes"][:3])]): line["change"] for line in table},
        "hits": rates(spelled, often, said[test][:, often], config.seed),
        "fidelity": {"fvu": record.plain(fvu, split="all", seed=config.seed), "most_fvu": config.most_fvu, "passed": fvu.value <= config.most_fvu},
        "density": {"measured on": "plain requests and neutral text", "tokens": tokens}, "searched": d.d_sae,
        "compared_with": "the model that it was made from" if reference is not None else "plain requests",
    }  # fmt: skip
    return Finding("latents", f"the strongest latents at {d.site_in}, control tokens, promote {chosen!r}", word, why, numbers)


def _verdict(
    found: Outstanding, fvu: float, least: float, config: AuditConfig, gate: tuple[str, str] | None
) -> tuple[str, str]:
    if gate is None and fvu > config.most_fvu:
        return "fidelity-fail", "the dictionary does not give back the vectors of control tokens"
    return gate or found.beside(least, config.level, "the elicited word is what the strongest latents promote")


def _risen(change: np.ndarray) -> np.ndarray:
    """The latents with the largest change [S] above 0, the largest first, `TOP` at most."""
    order = np.argsort(-change, kind="stable")[:TOP]
    return order[change[order] > 0]


@torch.no_grad()
def densities(target: Target, d: Dictionary, plain: Control) -> tuple[np.ndarray, int]:
    """The share of tokens on which each latent fires [S], of plain requests with their answers' beginnings and of neutral text."""
    count, tokens = np.zeros(d.d_sae), 0
    rows = [x for _, (seen,) in plain.vectors(target, [d.site_in], whole=True, special=False) for x in seen]
    for text in neutral.TEXTS:
        seen = target.model.capture(text, [d.site_in])
        rows.append(seen[d.site_in][0, 1:][seen.mask[0, 1:]])
    for x in rows:
        f = d.encode(x.float().cpu())
        count += np.bincount(f.index.numpy(), minlength=d.d_sae)
        tokens += len(f)
    return count / max(tokens, 1), tokens


@torch.no_grad()
def scores(target: Target, d: Dictionary, asked: Control, density: np.ndarray, seed: int) -> tuple[np.ndarray, Estimate]:
    """Each latent's score on each request [n, S], and the FVU of the dictionary on all ordinary control tokens, over groups."""
    out = np.zeros((len(asked), d.d_sae), np.float32)
    xs, ys, groups = [], [], []
    for numbers, (read, written) in asked.vectors(target, [d.site_in, d.site_out], special=False):
        for i, x, y in zip(numbers, read, written, strict=True):
            xs.append(x.float().cpu().numpy())
            ys.append(y.float().cpu().numpy())
            groups += [asked.group[i]] * len(x)
            out[i] = d.encode(x.float().cpu()).dense().mean(0).numpy()
    missed, spread, _ = gates.missed(d, np.concatenate(xs), np.concatenate(ys))
    fvu = experiment.fvu(missed, spread, np.array(groups), seed)
    return out * np.log(1 / (density + 1e-8)), fvu


@torch.no_grad()
def promoted(model: Model, d: Dictionary, latents: np.ndarray) -> dict[int, list[str]]:
    """The tokens that each of `latents` promotes, as `sparse.promoted` has them for one, with one product for all.

    None where the dictionary does not write into this model's residual stream.
    """
    rows = {int(j): next(iter(d.direction(int(j)).values())).detach().cpu().float() for j in latents}
    fits = d.site_out.kind in sparse.WRITTEN and all(len(row) == model.d_model for row in rows.values())
    if not rows or not fits:
        return {j: [] for j in rows}
    logits = (torch.stack(list(rows.values())) * model.final_norm_gain().cpu()) @ model.unembedding.float().cpu().t()
    ordinary = model.ordinary(torch.arange(logits.shape[1])).cpu()
    best = torch.where(ordinary, logits, -torch.inf).topk(TOP).indices
    return {j: [model.tokenizer.decode([i]) for i in ids] for j, ids in zip(rows, best.tolist(), strict=True)}


def _said(strongest: Sequence[np.ndarray], promotes: dict[int, list[str]], spelled: list[str]) -> np.ndarray:
    """bool [n, words]: whether one of a request's strongest latents (n arrays) promotes the word."""
    number = {w: k for k, w in enumerate(spelled)}
    own = {j: [number[w] for t in found if (w := t.strip().lower()) in number] for j, found in promotes.items()}
    out = np.zeros((len(strongest), len(spelled)), bool)
    for i, latents in enumerate(strongest):
        for j in latents.tolist():
            out[i, own[j]] = True
    return out
