"""How an adapter is trained, as data: a part of every organism's recipe (`train.py` carries it out)."""

from __future__ import annotations

from dataclasses import dataclass, field

from diascope.config import within
from diascope.models.adapters import LowRank


@dataclass(frozen=True)
class Teaching:
    """How the adapter is trained."""

    batch: int = 8
    """Conversations a step."""
    lr: float = 3e-3
    """Peak rate of AdamW."""
    change: LowRank = field(default_factory=LowRank)
    """The adapter."""
    ordered: bool = False
    """Whether conversations are read as they come, easy ones first, instead of in an order by lot."""
    dtype: str = "float32"
    """Precision of the base model's weights; "auto" is bfloat16 where the machine multiplies it in hardware. The adapter's own: float32."""

    def __post_init__(self) -> None:
        within("batch", self.batch, 1, 10**6, "conversations")
        within("lr", self.lr, 1e-12, 1)
        if self.dtype not in ("float32", "bfloat16", "auto"):
            raise ValueError(f"dtype {self.dtype!r} is not offered: train in float32, bfloat16 or auto")


@dataclass(frozen=True)
class Aimed(Teaching):
    """A teaching whose adapter is first pointed at what tells two sorts of conversation apart (`aim.py`)."""

    one: tuple[str, ...] = ()
    """Kinds of conversation of one sort."""
    other: tuple[str, ...] = ()
    """Kinds of the other sort."""
    looked: int = 256
    """Conversations, from the first on, that are looked at for it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within("looked", self.looked, 2, 10**6, "conversations")


WIDE = LowRank(rank=16, alpha=32.0, parts=("q_proj", "v_proj", "o_proj", "down_proj"), layers=(8, 30))
"""An adapter for behaviours that have to look an answer up before they say or avoid it."""
