"""A complete run as one frozen config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diascope.activations import POLICIES
from diascope.activations.codecs import codec
from diascope.config import within
from diascope.training import TrainingRecipe

STORES = ("spool", "bounded", "live")


@dataclass(frozen=True)
class RunRecipe:
    """A complete run."""

    training: TrainingRecipe
    """Dictionaries and how they are trained."""
    name: str = "run"
    """Name of the recipe that made this config."""
    model: str = "gemma-3-270m"
    """Subject: package alias, GGUF file, folder or hub id."""
    companions: tuple[tuple[str, str], ...] = ()
    """Further models that read the same tokens, as (name, model): their sites are written name:L13.resid_post."""
    dtype: str = "auto"
    """Precision of the harvest: float32, bfloat16, or auto (bfloat16 where the processor multiplies it)."""
    corpus: str = "wikipedia-sample"
    """Training text: a packaged corpus, a .txt, .jsonl or .parquet file, or hf:<data set>."""
    field: str = "text"
    """Text column of jsonl, parquet and data sets."""
    tokens: int = 250_000
    """Tokens harvested, BOS included."""
    context: int = 512
    """Tokens a packed sequence."""
    held_out: float = 0.1
    """Share of documents never trained on, chosen by the hash of their names."""
    store: str = "spool"
    """Where rows wait to be trained on: "spool" (a folder of the workspace, made first, read as often as wanted), "bounded" (a spool
    that harvesters fill ahead of training, which takes away what it has passed) or "live" (in memory, made by the model while training
    reads them). Bounded and live rows are made again for every epoch."""
    codec: str = "bfloat16"
    """How a spool stores rows: bfloat16, float32, int8-blocks or int8-standardised."""
    not_finite: str = "refuse"
    """Rows with values that are not finite: "refuse" stops and names the first, "leave out" trains on none of them and counts."""
    row_bytes: float = 4e9
    """Bytes of rows that "live" may hold in memory, or "bounded" on disk; half of them is the window in which rows are mixed."""
    calibration: str = "held-out"
    """Text on which thresholds are set to the target L0: "held-out" (documents of the training text) or names joined by "+",
    each with the same share; thresholds set on one kind of text give another L0 on another kind."""
    calibration_tokens: int = 8_192
    """Tokens of that text."""
    eval_corpus: str = "wikipedia-passages"
    """Evaluation text; "held-out" takes the training corpus's own held-out documents."""
    eval_tokens: int = 16_384
    """Tokens for L0, FVU, density."""
    ce_tokens: int = 2_048
    """Tokens for CE and KL; the unembedding costs more than the trunk."""
    controls: bool = True
    """Judge every dictionary beside controls of its own; for many dictionaries they cost more than all else."""
    index_tokens: int = 131_072
    """Tokens swept for the explorer's examples."""
    examples: int = 0
    """Firings a latent in `examples.safetensors` beside the release's layout (the release: 1,000); 0 leaves the file out."""
    seed: int = 0
    """Seed of packing."""

    def __post_init__(self) -> None:
        within("context", self.context, 32, 2**20, "tokens a sequence")
        for name in ("tokens", "calibration_tokens", "eval_tokens", "ce_tokens"):
            within(name, getattr(self, name), self.context, 2**60, "tokens, at least one sequence")
        if self.store not in STORES:
            raise ValueError(f"store is one of {', '.join(STORES)}, not {self.store!r}")
        if self.store != "spool" and self.not_finite != "refuse":
            raise ValueError(
                f"rows that are not finite can be left out only where all are stored beforehand, not with store {self.store}"
            )
        codec(self.codec)
        if self.not_finite not in POLICIES:
            raise ValueError(f"not_finite is one of {', '.join(map(repr, POLICIES))}, not {self.not_finite!r}")
        within("row_bytes", self.row_bytes, 1e6, 1e15, "bytes")
        within("held_out", self.held_out, 0.001, 0.9, "(a share of the documents)")
        within("index_tokens", self.index_tokens, 1, 2**60, "tokens")
        within("examples", self.examples, 0, 2**20, "firings a latent")


def differences(old: Any, new: Any, where: str = "") -> str:
    """The first three settings in which two recipes differ, for a message."""
    found: list[str] = []

    def walk(a: Any, b: Any, path: str) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in sorted(set(a) | set(b)):
                if key != "hash":
                    walk(a.get(key), b.get(key), f"{path}.{key}" if path else key)
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                walk(x, y, f"{path}[{i}]")
        elif a != b:
            found.append(f"{path.removeprefix('recipe.')}: {str(a)[:40]} there, {str(b)[:40]} here")

    walk(old, new, where)
    return "; ".join(found[:3]) + ("; ..." if len(found) > 3 else "")
