"""Fine-tuning through the model: the loss's gradient, what it may not touch, and that it does what it is for."""

import numpy as np
import pytest
import torch

from diascope.dictionaries import Dictionary, DictionaryConfig, TopK
from diascope.evals import evaluate
from diascope.evals.text import EvalText
from diascope.models.toy import toy_model
from diascope.recipes.end_to_end import EndToEnd, _loss, finetune
from diascope.tokens import Document, pack


@pytest.fixture(scope="module")
def subject():
    return toy_model()


@pytest.fixture(scope="module")
def sequences(subject):
    r = np.random.default_rng(0)
    words = "the cat sat on a mat and the dog ran off with my hat ".split()
    return pack(subject, [Document(f"d{i}", " ".join(r.choice(words, 12))) for i in range(120)], context=64, max_tokens=64 * 60)


def dictionary(kind="sae", **choices):
    site_in, site_out = ("L1.resid_post",) * 2 if kind == "sae" else ("L1.mlp_in", "L1.mlp_out")
    g = torch.Generator().manual_seed(0)
    W = torch.nn.functional.normalize(torch.randn(96, 32, generator=g), dim=1)
    tensors = {
        "W_enc": W.t().contiguous() * 0.3,
        "W_dec": W,
        "b_enc": torch.zeros(96),
        "b_dec": torch.zeros(32),
        "threshold": torch.full((96,), 0.05),
    }
    return Dictionary(DictionaryConfig.single("toy", site_in, site_out, 32, 32, 96, l0_target=20.0, **choices), tensors)


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_it_lowers_kl_and_leaves_model_and_original_alone(subject, sequences, kind):
    d = dictionary(kind)
    weights = [p.clone() for p in subject.module.parameters()]
    flags = [p.requires_grad for p in subject.module.parameters()]
    tuned, losses = finetune(subject, d, sequences, EndToEnd(lr=0.05, beta=1.0))
    assert all(torch.equal(a, b) for a, b in zip(weights, subject.module.parameters(), strict=True))
    assert flags == [p.requires_grad for p in subject.module.parameters()]
    assert torch.equal(d.W_dec, dictionary(kind).W_dec) and not torch.equal(tuned.W_dec, d.W_dec)
    before, after = (
        evaluate(subject, {"d": x}, sequences, ce_tokens=10**6)["d"].metrics["dictionary"]["kl"].value for x in (d, tuned)
    )
    assert after < 0.7 * before, (before, after)
    assert torch.allclose(tuned.W_dec.norm(dim=1), torch.ones(96), atol=1e-5) and not tuned.W_dec.requires_grad
    assert len(losses) == len(sequences) and losses[-1].kl < losses[0].kl


def test_the_loss_is_the_releases(subject, sequences):
    """(MSE + alpha beta KL) / (1 + beta) has the value of the MSE, and the gradient of both at the same size."""
    d = dictionary()
    for p in (d.decoders[0],):
        p.requires_grad_(True)
    one = torch.ones(32)
    grads = {}
    for beta in (0.0, 1.0, 3.0):
        loss, said = _loss(subject, d, sequences, 3, one, EndToEnd(beta=beta, kl_positions=10**6), 0)
        assert float(loss.detach()) == pytest.approx(said.mse, rel=1e-5)
        (grads[beta],) = torch.autograd.grad(loss, [d.decoders[0]])
    kl_part = 2 * grads[1.0] - grads[0.0]  # alpha * dKL
    assert torch.allclose(grads[3.0], (grads[0.0] + 3 * kl_part) / 4, atol=1e-6) and float(kl_part.abs().max()) > 0
    text = EvalText(subject, sequences.part(3, 4))
    with subject.splice(d, keep_error=False):
        spliced = text.hidden()
    assert said.kl == pytest.approx(float(text.losses(text.hidden(), {"d": spliced})["d"].kl.mean()), rel=1e-3)


def test_thresholds_are_set_to_the_target(subject, sequences):
    d = dictionary()
    x = EvalText(subject, sequences).capture([d.site_in])[d.site_in]
    tuned, _ = finetune(subject, d, sequences, EndToEnd(lr=0.01), calibration=x)
    assert float(tuned.encode(x).counts.float().mean()) == pytest.approx(20.0, rel=0.02)


def test_what_it_cannot_do_is_said(subject, sequences):
    with pytest.raises(ValueError, match=r"takes JumpReLU dictionaries, .* this one is TopK"):
        finetune(subject, dictionary(activation=TopK(5)), sequences)


def test_silent_latents_do_not_stop_it_and_nonsense_does(subject, sequences):
    d = dictionary()
    silent = Dictionary(d.config, d.tensors() | {"threshold": torch.full((96,), 1e9)})
    tuned, losses = finetune(subject, silent, sequences.part(0, 3), EndToEnd(lr=0.01))
    assert len(losses) == 3 and torch.isfinite(tuned.b_dec).all()
    huge = Dictionary(d.config, d.tensors() | {"b_dec": torch.full((32,), 1e30)})
    with pytest.raises(ValueError, match=r"at sequence 1 of 3 the loss is no number"):
        finetune(subject, huge, sequences.part(0, 3), EndToEnd())
    with pytest.raises(ValueError, match="lr"):
        EndToEnd(lr=float("nan"))
