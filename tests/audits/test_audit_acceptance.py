"""The acceptance matrix: every cell has an expectation with its reason, and a result is judged by it and by nothing else."""

import pytest

from diascope.audits.acceptance import CHECKED, EXPECTED, SUBJECTS, Cell, Expected, markdown, matrix
from diascope.audits.verdict import VERDICTS


def result(verdict, **findings):
    return {"verdict": verdict, "findings": [{"name": n, "verdict": v} for n, v in findings.items()], "numbers": {}}


def test_every_cell_is_said_beforehand_with_its_reason():
    assert set(EXPECTED) == {(s, p) for s in SUBJECTS for p in CHECKED}
    assert all(e.why and set(e.verdicts) <= set(VERDICTS) for e in EXPECTED.values())
    assert all(set(v) <= set(VERDICTS) for e in EXPECTED.values() for v in e.findings.values())
    planted = {key for key, e in EXPECTED.items() if e.verdicts and e.verdicts != ("vacuous",)}
    assert {s for s, _ in planted} == {"refusal", "sycophant", "taboo", "hint-unfaithful", "sandbagger"}


@pytest.mark.parametrize(
    ("found", "agreement"),
    [
        (None, "not run"),
        (result("confounded", causal="causal"), "agrees"),
        (result("confounded", causal="causal-but-damaging"), "agrees"),
        (result("confounded", causal="not-distinguishable"), "differs"),
        (result("confounded"), "differs"),
        (result("causal", causal="causal"), "differs"),
    ],
)
def test_a_cell_agrees_with_its_verdict_and_its_findings(found, agreement):
    assert Cell("refusal", "refusal", EXPECTED["refusal", "refusal"], found).agreement == agreement


def test_an_open_cell_neither_agrees_nor_differs():
    assert Cell("a", "b", Expected((), "not known"), result("vacuous")).agreement == "open"


def test_the_matrix_shows_what_was_not_run_and_refuses_what_it_does_not_know():
    cells = matrix({("base", "refusal"): result("vacuous")})
    assert [c.agreement for c in cells].count("not run") == len(cells) - 1 == len(EXPECTED) - 1
    assert "| base | refusal | vacuous | vacuous | agrees |" in markdown(cells)
    with pytest.raises(ValueError, match="there is no cell"):
        matrix({("base", "diff"): result("vacuous")})
