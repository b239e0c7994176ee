"""Steering the real Gemma 3 270M: equal without a push, with as many threads as there are, and as by a hook with one."""

import pytest
import torch

from diascope.latents.steering import Push, side_by_side
from diascope.models import load_model

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def model():
    return load_model("gemma-3-270m", dtype="float32")


@pytest.mark.parametrize("words", [2, 7, 14])  # with two threads the rows of such batches differ by rounding
def test_no_dose_is_no_difference(model, words):
    prompt = " ".join("The city lies on a river and the only bridge over it was made of wood".split()[:words])
    push = Push.of_vector("L12.resid_post", torch.ones(model.d_model), dose=0.0)
    pairs = list(side_by_side(model, prompt, [push], max_new_tokens=4, temperature=1.0, seed=words))
    assert pairs and all(p.default == p.steered for p in pairs)


def test_an_additive_push_is_a_hook_that_adds(model):
    ids = model.tokenize("My favourite city is")
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 200
    pairs = list(side_by_side(model, ids, [Push.of_vector("L12.resid_post", v, dose=2.0)], max_new_tokens=6))

    def hook(module, args, output):
        y = (output[0] if isinstance(output, tuple) else output).clone()
        y[:, 1:] += 2.0 * v
        return (y, *output[1:]) if isinstance(output, tuple) else y

    handle = model.parts.blocks[12].register_forward_hook(hook)
    try:
        for pair in pairs:
            with torch.no_grad():
                log_p = model.module(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            assert int(log_p.argmax()) == pair.steered.id
            assert float(log_p.max()) == pytest.approx(pair.steered.log_probability, abs=1e-3)
            ids.append(pair.steered.id)
    finally:
        handle.remove()
    assert [p.default.id for p in pairs] != [p.steered.id for p in pairs]
