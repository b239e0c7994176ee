"""Check artefacts against evidence: hashes of every file, a dictionary's own probes, and stored examples run through the model.

Folders of the release carry `examples.safetensors`: activations [S, n], seq_ids and positions [S, n], tokens [N, T].
Running the model on those tokens and encoding must give those activations (by their median relative error): a wrong hook
or a missing norm gain cannot pass. Extra firings that were not stored are not looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diascope.activations import RowReader
from diascope.dictionaries import Dictionary, load_dictionary
from diascope.dictionaries.resolve import resolve
from diascope.latents.release import read_examples
from diascope.latents.store import Index
from diascope.models import Model
from diascope.storage.files import read_json
from diascope.storage.seals import SEAL, check_seal

PLACES = {"spool": "spool", "checkpoint": "training/checkpoint", "index": "index"}  # in a workspace
LARGEST_ERROR = 0.05  # median relative error of activations; bf16 against fp32 stays below 0.02


@dataclass(frozen=True)
class Verdict:
    """What was checked and how it came out."""

    probes: bool  # probes were there, and were met when the folder was loaded
    examples: int  # stored activations compared
    median_error: float  # of |ours - stored| / stored, over those; nan without examples

    @property
    def ok(self) -> bool:
        return (self.probes or self.examples > 0) and (self.examples == 0 or self.median_error <= LARGEST_ERROR)


def verify(
    path: str | Path, model: Model | None = None, *, sites: Any = None, sequences: int = 8, latents: int = 256
) -> Verdict:
    """Load the dictionary at `path` (which checks its probes) and, with a model, its stored examples.

    At most `sequences` stored sequences are run, and at most `latents` stored activations compared on them.
    Raises ValueError when the folder is damaged or there is nothing to check it against.
    """
    folder = resolve(path, examples=model is not None)
    dictionary = load_dictionary(folder, sites=sites)
    probes = (folder / "probe.safetensors").exists()
    examples = folder / "examples.safetensors"
    if not probes and not examples.exists():
        raise ValueError(f"{folder} carries neither probes nor examples: there is nothing to verify it against")
    if not examples.exists():
        return Verdict(probes, 0, float("nan"))
    if model is None and probes:
        return Verdict(probes, 0, float("nan"))
    if model is None:
        raise ValueError(f"{folder} carries stored examples: give the model to run them through (--model)")
    errors = _errors(dictionary, model, examples, sequences, latents)
    return Verdict(probes, len(errors), float(errors.median()) if len(errors) else float("nan"))


def artefacts(path: str | Path) -> list[tuple[str, Path]]:
    """(kind, folder) of what lies at `path`: itself, or everything in a workspace; kinds: spool, checkpoint, index, dictionary."""
    path = Path(path)
    if not (path / "recipe.json").is_file() or (path / "log.jsonl").exists():
        if (path / "manifest.json").is_file() and (path / "runs").is_dir():
            return [("spool", path)]
        return [("index" if (path / "index.json").is_file() else "dictionary", path)]
    found = [(kind, path / place) for kind, place in PLACES.items() if (path / place).is_dir()]
    found += [("dictionary", p.parent) for p in sorted((path / "dictionaries").glob("*/config.json"))]
    return found + [("dictionary", p.parent) for p in sorted((path / "gemma-scope-2").glob("**/config.json"))]


def check_files(kind: str, path: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """Compare a spool, checkpoint or index with its hashes; what was found, in words. ValueError names the first bad file."""
    if kind == "spool" and bounded(path):
        runs = sorted((path / "runs").glob(f"[!.]*/{SEAL}"))
        for run in (found.parent for found in runs):
            check_seal(run, way_out=f"delete {run}: the same command makes it again")
        return f"{len(runs)} runs are there just now (the spool is bounded), and have their hashes"
    if kind == "spool":
        reader = RowReader(path)
        reader.check(progress)
        return f"{len(reader.done)} runs of {len(reader):,} rows have their hashes"
    if kind == "index":
        Index(path).check()
    sealed = (path / SEAL).is_file() if kind == "index" else check_seal(path)
    return "all files have their hashes" if sealed else "readable, but it carries no hashes"


def bounded(spool: Path) -> bool:
    """Whether its runs come and go; a damaged manifest is RowReader's to name."""
    try:
        return "bounded" in read_json(spool / "manifest.json")
    except (OSError, ValueError, TypeError):
        return False


@torch.no_grad()
def _errors(dictionary: Dictionary, model: Model, path: Path, n_sequences: int, n_latents: int) -> torch.Tensor:
    stored = read_examples(path, dictionary.d_sae)
    tokens, firings = torch.from_numpy(stored.sequences.tokens), stored.firings
    latent = np.repeat(np.arange(dictionary.d_sae), np.diff(firings.start))
    counts = np.bincount(firings.sequence, minlength=len(tokens))
    common = np.argsort(-counts, kind="stable")[:n_sequences]
    errors = []
    for s in common[counts[common] > 0].tolist():
        seen = model.capture(tokens[s][None].long(), dictionary.config.reads)
        f = dictionary.encode(dictionary.inputs(seen)[0]).dense()
        here = np.flatnonzero(firings.sequence == s)
        pick = here[np.linspace(0, len(here) - 1, min(len(here), max(1, n_latents // len(common)))).astype(int)]
        there = torch.from_numpy(firings.activation[pick])
        ours = f[torch.from_numpy(firings.position[pick]).long(), torch.from_numpy(latent[pick])]
        errors.append((ours - there).abs() / there)
    return torch.cat(errors) if errors else torch.zeros(0)
