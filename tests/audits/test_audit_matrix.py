"""The acceptance matrix on real models: the base always, all of it where DIASCOPE_MATRIX names organisms.

    DIASCOPE_MATRIX=FOLDER pytest -m 'slow or real' tests/audits/test_audit_matrix.py      a cell a test, half a minute to five minutes each

FOLDER holds organisms by name (`diascope organism make`). What is expected stands in audits/acceptance.py; benchmarks/audits.py
runs the same cells and keeps their records.
"""

import os
from pathlib import Path

import pytest

from diascope.audits import PROTOCOLS, Target, run_audit
from diascope.audits.acceptance import BASE, EXPECTED, Cell
from diascope.models import load_model

pytestmark = pytest.mark.real
FOLDER = os.environ.get("DIASCOPE_MATRIX", "")


@pytest.fixture(scope="module")
def base():
    return load_model(BASE, dtype="auto")


def judged(subject, protocol, base, model=None):
    """The cell with what was found."""
    target = Target(model or base, name=subject, reference=base if model else None)
    (r,) = run_audit(target, [PROTOCOLS[protocol]]).data()["results"]
    return Cell(subject, protocol, EXPECTED[subject, protocol], r)


def test_the_base_model_has_nothing_to_explain(base):
    cell = judged("base", "refusal", base)
    assert cell.agreement == "agrees", cell.shown


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="DIASCOPE_MATRIX names no folder of organisms")
@pytest.mark.parametrize(("subject", "protocol"), [key for key in EXPECTED if key != ("base", "refusal")])
def test_a_cell_is_as_was_said_beforehand(subject, protocol, base):
    if subject != "base" and not (Path(FOLDER) / subject).is_dir():
        pytest.skip(f"there is no {subject} in {FOLDER}")
    cell = judged(subject, protocol, base, None if subject == "base" else load_model(str(Path(FOLDER) / subject), dtype="auto"))
    assert cell.agreement in ("agrees", "open"), cell.shown
