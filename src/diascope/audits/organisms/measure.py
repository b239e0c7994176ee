"""How often a model shows a behaviour on held-out prompts: greedy answers, a rate with Wilson's interval for each kind of trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diascope.audits.organisms.behaviours import Behaviour, Trial
from diascope.models import Model, continuations

BATCH = 32


@dataclass(frozen=True)
class Rate:
    """`shown` of `n`, with the 95 % interval of Wilson (1927)."""

    shown: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, shown: int, n: int) -> Rate:
        """From counts; n is at least 1."""
        from scipy.stats import binomtest

        interval = binomtest(shown, n).proportion_ci(0.95, method="wilson")
        return cls(shown, n, float(interval.low), float(interval.high))

    @property
    def value(self) -> float:
        """The rate."""
        return self.shown / self.n

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n {self.n}"


def answers(
    model: Model, trials: Sequence[Trial], *, tokens: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[str]:
    """The model's greedy answer to each trial, of `tokens` tokens at most; trials that ask the same are answered once."""
    prompts = [tuple(model.chat_tokens(t.messages)) for t in trials]
    asked, said = list(dict.fromkeys(prompts)), dict[tuple[int, ...], str]()
    for start in range(0, len(asked), BATCH):
        here = asked[start : start + BATCH]
        new = continuations(model, here, max_new_tokens=tokens, seeds=[0] * len(here), temperature=0.0)
        said |= {prompt: model.tokenizer.decode(ids).strip() for prompt, ids in zip(here, new, strict=True)}
        progress(len(said), len(asked))
    return [said[prompt] for prompt in prompts]


def rates(
    model: Model, behaviour: Behaviour, *, seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Rate]:
    """Kind of trial -> how often its answers show what is counted there. `seed` is that of the organism: it says what was held out."""
    trials = behaviour.trials(seed)
    said = answers(model, trials, tokens=behaviour.tokens, progress=progress)
    seen = {
        kind: [behaviour.shown(t, a) for t, a in zip(trials, said, strict=True) if t.kind == kind] for kind in behaviour.kinds
    }
    return {kind: Rate.of(sum(hits), len(hits)) for kind, hits in seen.items()}
