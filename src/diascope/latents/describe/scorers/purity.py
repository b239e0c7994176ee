"""Label purity: do the windows on which a latent fires come from documents of one label? Chance is near 0, whatever the labels' shares.

    purity = (share of its label among the test positives - that label's share of all test windows) / (1 - that share)

Its label is chosen on the training windows, so a rare one cannot win by luck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from diascope.latents.describe.scorers.score import Score
from diascope.latents.describe.windows import Examples, Window

LEAST = 5  # labelled windows of each half


def purity(examples: Examples, labels: Mapping[int, str], shares: Mapping[str, float]) -> Score | None:
    """Label purity over the test positives; None where fewer than five windows of either half have a label.

    `labels` by the document's number, `shares` of all labelled test windows by label.
    """

    def of(windows: Sequence[Window]) -> list[str]:
        return [labels[w.document] for w in windows if w.document in labels]

    chosen, tested = of(examples.train), of(examples.positive)
    if len(chosen) < LEAST or len(tested) < LEAST:
        return None
    lift = {label: n / len(chosen) - shares.get(label, 0.0) for label, n in Counter(chosen).items()}
    label = max(lift, key=lambda name: (lift[name], name))
    expected = shares.get(label, 0.0)
    if expected >= 1:
        return None
    return Score((tested.count(label) / len(tested) - expected) / (1 - expected), len(tested))
