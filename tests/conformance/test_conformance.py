"""Every activation of ours against every check of the suite."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from checks import CHECKS, seed_decides
from ours import MAKERS, D

X = torch.randn(48, D, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_conformance(name, check):
    subject = MAKERS[name](0)
    subject._held if name.endswith("Gated") else None
    verdict, detail = check(subject, X)
    assert verdict is not False, detail
    always_on = name.endswith(("ReLU", "Gated")) and "Jump" not in name  # what is positive fires, so no positive latent is dead
    if check.__name__.startswith(("gradient", "encoding", "decoder") if always_on else ("auxiliary", "bias", "gradient")):
        assert verdict is True, f"not checked: {detail}"


@pytest.mark.parametrize("name", MAKERS)
def test_the_seed_decides(name):
    assert seed_decides(MAKERS[name])[0]


def test_a_broken_subject_fails():
    """The checks can fail: a gradient that never reaches the dead encoders, a leaking residual, a bias counted twice."""
    subject = MAKERS["diascope BatchTopK"](0)
    true = subject.gradients

    def broken(x, dead):
        g = true(x, dead)
        if dead is not None:
            plain = true(x, None)
            g["W_enc"] = plain["W_enc"]
            g["W_dec"] = g["W_dec"] + 1.0
            g["b_dec"] = g["b_dec"] + 1.0
        return g

    subject.gradients = broken
    for check in CHECKS:
        if check.__name__.startswith(("auxiliary", "bias")):
            assert check(subject, X)[0] is False, check.__name__
