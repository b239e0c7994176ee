"""Do a few latents tell what the dense readout tells? One finding of every contrast that is audited with a dictionary.

1. k-sparse probes on latents at each place (sparse.py), fitted on training cases; the best on validation cases, of as good ones the smallest.
2. Test cases: its AUROC, and how much that is less than the dense readout's, both over groups.
3. The verdict needs a dictionary that gives these very vectors back, and a first latent that pays for the search over all (verdict.sparse).
"""

from __future__ import annotations

from typing import Any

from diascope.audits import detect, gates, record, sparse, statistics, verdict
from diascope.audits.readouts import Readout
from diascope.audits.settings import AuditConfig
from diascope.audits.target import Target
from diascope.audits.verdict import Finding
from diascope.dictionaries import Dictionary


def explained(
    target: Target,
    d: Dictionary,
    latents: dict[str, Any],
    data: detect.Data,
    dense: Readout,
    told: Finding,
    fidelity: gates.Fidelity,
    gate: tuple[str, str] | None,
    config: AuditConfig,
    sides: str,
) -> tuple[Finding, sparse.Few]:
    """The finding "sparse", and the latents that it is about.

    latents   of every case at each place, CSR [n, S]
    dense     the readout that they are held against, and `told` its finding
    gate      the verdict of a gate that was not passed, with its reason; None where all were
    sides     what is told apart, in words
    """
    seed, rows = config.seed, data.rows("test")
    few = sparse.search(
        latents, data.y, data.group, data.rows("train"), data.rows("validation"), draws=config.permutations, seed=seed
    )
    best = max(few, key=lambda f: (f.validation, -len(f.latents)))
    own = best.score(latents[best.place])[rows]
    ours = statistics.ordered(data.y[rows], own)
    theirs = statistics.ordered(data.y[rows], dense.score(data.at(dense))[rows])
    found = statistics.auroc(data.y[rows], own, data.group[rows], seed=seed)
    less = statistics.bootstrap(lambda w: ours(w) - theirs(w), data.group[rows], seed=seed)
    first = float(best.selected.p_family[best.latents[0]])
    word, why = gate or verdict.sparse(
        fidelity.passed, found.low, first, less.low, config.sparse_gap, config.level, (told.verdict, told.why)
    )
    claim = f"{len(best.latents)} latents at {d.site_in}, {best.place}, tell {sides}"
    numbers = record.of_sparse(target.model, d, few, best, latents, data, found, less, fidelity, dense, seed)
    return Finding("sparse", claim, word, why, numbers), best
