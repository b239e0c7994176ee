"""The gate of prevalence: what a rate over pairs at risk allows to be said."""

import numpy as np
import pytest

from diascope.audits.gates import prevalence


@pytest.mark.parametrize(
    ("switched", "stayed", "not_at_risk", "outcome"),
    [
        (20, 0, 0, "shown"),
        (0, 20, 0, "vacuous"),
        (5, 15, 0, "underpowered"),  # 0.25 [0.11, 0.47] holds 0.2
        (1, 0, 19, "underpowered"),  # 1 of 1 is 1.00 [0.21, 1.00]: above the least, and one pair
        (4, 0, 16, "underpowered"),
        (5, 0, 15, "shown"),
    ],
)
def test_a_rate_says_as_much_as_its_pairs(switched, stayed, not_at_risk, outcome):
    pairs = [(True, False)] * switched + [(False, False)] * stayed + [(True, True)] * not_at_risk
    events = np.array([e for pair in pairs for e in pair])
    label, group = ["yes", "no"] * len(pairs), [str(i // 2) for i in range(2 * len(pairs))]
    found = prevalence(events, label, group, ("yes", "no"), 0.2)
    assert found.outcome == outcome and found.rate.n == switched + stayed
