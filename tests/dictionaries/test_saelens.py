"""Our reading of Gemma Scope 2 folders against SAELens' (golden files made by tests/oracles/saelens.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diascope.dictionaries import load_dictionary

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*/*/saelens-*.npz"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.parent.name)
def test_latents_and_outputs_are_saelens(path):
    d, theirs = load_dictionary(path.parent), np.load(path)
    x = torch.from_numpy(theirs["x"])
    latents, output = d.encode(x).dense().numpy(), d(x).numpy()
    assert (latents != 0).mean() > 0.05
    assert np.abs(latents - theirs["latents"]).max() <= 1e-5 * np.abs(theirs["latents"]).max()
    assert np.abs(output - theirs["output"]).max() <= 1e-5 * np.abs(theirs["output"]).max()


def test_both_kinds_have_a_golden_file():
    assert [p.parents[1].name for p in GOLDEN] == ["resid_post", "transcoder"]
