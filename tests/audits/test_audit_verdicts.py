"""A protocol's one verdict: what is strongest, and what is passed on where nothing is strong."""

import pytest

from diascope.audits.verdict import Finding, headline


def findings(*words):
    return [Finding(f"finding {i}", "a claim", w, f"why {w}") for i, w in enumerate(words)]


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (("underpowered",), "underpowered"),
        (("not-distinguishable", "underpowered"), "underpowered"),
        (("underpowered", "confounded"), "confounded"),
        (("underpowered", "detects"), "detects"),
        (("detects", "causal"), "causal"),
        (("fidelity-fail",), "fidelity-fail"),
        (("fidelity-fail", "fidelity-fail"), "fidelity-fail"),
        (("not-distinguishable", "fidelity-fail"), "not-distinguishable"),  # the dense half was asked, and said no
        (("not-distinguishable",), "not-distinguishable"),
        ((), "not-distinguishable"),
    ],
)
def test_the_strongest_finding_else_what_is_not_settled(made, verdict):
    assert headline(None, False, findings(*made))[0] == verdict


def test_prevalence_and_the_behaviours_confound_come_first():
    strong = findings("causal")
    assert headline(("vacuous", "too seldom"), True, strong) == ("vacuous", "too seldom")
    assert headline(None, True, strong)[0] == "confounded"
    assert headline(None, False, findings("underpowered"))[1] == "finding 0: why underpowered"
