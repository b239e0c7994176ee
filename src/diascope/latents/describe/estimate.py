"""What a run will ask of its judge, said before it asks: requests, tokens, cost and time.

The questions themselves are made with the template in the place of the judge's description, for a few latents, and counted
with the subject's tokenizer; the rest is proportion. Answers count with their limits, and remembered ones as if they were
asked, so the numbers are upper bounds but for what tokenizers differ in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diascope.latents.describe.battery import Battery
from diascope.latents.describe.explain import MAX_TOKENS
from diascope.latents.describe.scorers.score import Quiz
from diascope.latents.describe.windows import Examples

SAMPLE = 4  # latents whose questions are made and counted


@dataclass(frozen=True)
class Estimate:
    """Requests and tokens at most; cost in the prices' currency; seconds where a request was timed."""

    latents: int
    requests: int
    prompt_tokens: int
    answer_tokens: int
    cost: float
    seconds: float | None

    def __str__(self) -> str:
        time = "" if self.seconds is None else f", about {_duration(self.seconds)}"
        cost = f", {self.cost:,.2f} at the given prices" if self.cost else ""
        return (
            f"{self.latents:,} latents: at most {self.requests:,} requests, {self.prompt_tokens / 1e6:,.2f} M tokens in and "
            f"{self.answer_tokens / 1e6:,.2f} M out{cost}{time}"
        )


def estimate(
    battery: Battery,
    explanations: Sequence[Sequence[str]],
    descriptions: Sequence[str],
    examples: Sequence[Examples],
    rows: int,
    *,
    prices: tuple[float, float] = (0.0, 0.0),
    seconds_a_request: float | None = None,
    parallel: int = 1,
) -> Estimate:
    """The estimate for `examples`, the latents that are left.

    explanations   questions for descriptions, for each of the first few latents
    descriptions   what stands in for their descriptions
    rows           descriptions that are scored a latent, controls included
    prices         of a million tokens, in and out
    """
    tokens = battery.grid.model.tokenizer
    requests = prompt = answer = 0
    sample = list(zip(explanations, descriptions, examples))[:SAMPLE]
    for questions, description, e in sample:
        asked = [Quiz(tuple(questions), MAX_TOKENS, lambda _: None)]  # type: ignore[arg-type, return-value]
        asked += [*battery.quizzes(description, e).values()] * rows + [*battery.quizzes_alone(e).values()]
        requests += sum(len(q.questions) for q in asked)
        answer += sum(len(q.questions) * q.max_tokens for q in asked)
        prompt += sum(len(tokens(text, add_special_tokens=False)["input_ids"]) + 8 for q in asked for text in q.questions)
    scale = len(examples) / max(len(sample), 1)
    requests, prompt, answer = (round(scale * n) for n in (requests, prompt, answer))
    return Estimate(
        len(examples),
        requests,
        prompt,
        answer,
        (prompt * prices[0] + answer * prices[1]) / 1e6,
        None if seconds_a_request is None else requests * seconds_a_request / max(parallel, 1),
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
