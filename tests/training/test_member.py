"""The hand-written gradients against autograd in float64."""

import pytest
import torch

from diascope.dictionaries import BatchTopK, JumpReLU, Matryoshka
from diascope.training import MemberRecipe, TrainingRecipe
from diascope.training.member import Member


def capture_gradients(member, x, y, step=10):
    seen = {}
    member._update = lambda grads, lr, step: seen.update({k: v.clone() for k, v in grads.items()})
    member.step(x, y, step, 20)
    return seen


def dense_loss(member, params, x, y, active, penalty=None):
    """The same loss, dense, from the paper's formulas; `active` is the fixed selection."""
    xc = x - params["b_dec"] if member.is_sae else x
    pre = xc @ params["encoder"].t() + params["b_enc"]
    f = pre * active
    loss = 0.0
    for m, w in zip(member.prefixes.tolist(), member.weights.tolist()):
        y_hat = f[:, :m] @ params["decoder"][:m] + params["b_dec"]
        if member.skip is not None:
            y_hat = y_hat + x @ params["skip"]
        loss = loss + w * (y - y_hat).square().sum(1).mean()
    return loss, pre


def make(activation, *, transcoder=False, matryoshka=True, **run):
    recipe = MemberRecipe(
        "m",
        site_in="L12.mlp_in" if transcoder else "L12.resid_post",
        site_out="L12.mlp_out" if transcoder else "L12.resid_post",
        d_sae=32,
        activation=activation,
        matryoshka=Matryoshka((4, 16, 32), (1.0, 2.0, 3.0)) if matryoshka else None,
        skip=transcoder,
        l0_target=5.0,
    )
    member = Member(recipe, TrainingRecipe((recipe,), aux_coefficient=0.0, l0_warmup=0, **run), 8, 8, 0)
    g = torch.Generator().manual_seed(1)
    for name in ("decoder", "encoder", "b_enc", "b_dec", "skip"):
        value = getattr(member, name)
        if value is not None:
            setattr(member, name, torch.randn(value.shape, generator=g, dtype=torch.float64) * 0.3)
    member.decoder /= member.decoder.norm(dim=1, keepdim=True)
    member.theta = member.theta.double()
    x, y = (torch.randn(16, 8, generator=g, dtype=torch.float64) for _ in range(2))
    return member, x, y if transcoder else x


@pytest.mark.parametrize("matryoshka", [True, False])
@pytest.mark.parametrize("transcoder", [True, False])
def test_batchtopk_gradients_equal_autograd(transcoder, matryoshka):
    member, x, y = make(BatchTopK(5), transcoder=transcoder, matryoshka=matryoshka)
    names = ["decoder", "encoder", "b_enc", "b_dec"] + (["skip"] if transcoder else [])
    params = {n: getattr(member, n).clone().requires_grad_() for n in names}
    pre = ((x - member.b_dec) if member.is_sae else x) @ member.encoder.t() + member.b_enc
    bar = pre.clamp_min(0).flatten().topk(5 * len(x)).values.min()
    loss, _ = dense_loss(member, params, x, y, (pre >= bar) & (pre > 0))
    loss.backward()
    ours = capture_gradients(member, x, y)
    for name in names:
        assert torch.allclose(ours[name], params[name].grad, rtol=1e-9, atol=1e-12), name


def test_jumprelu_theta_gradient_is_the_straight_through_estimator():
    eps, run = 0.4, {"frequency_coefficient": 0.3, "l0_coefficient": 0.7, "theta_start": 0.3}
    member, x, y = make(JumpReLU(bandwidth=eps), **run)
    params = {n: getattr(member, n).clone().requires_grad_() for n in ["decoder", "encoder", "b_enc", "b_dec"]}
    pre = (x - member.b_dec) @ member.encoder.t() + member.b_enc
    on = pre > member.theta
    f = (pre * on).detach().requires_grad_()
    loss = sum(
        w * (y - f[:, :m] @ member.decoder[:m] - member.b_dec).square().sum(1).mean()
        for m, w in zip(member.prefixes.tolist(), member.weights.tolist())
    )
    (df,) = torch.autograd.grad(loss, f)
    window = ((pre - member.theta).abs() < eps / 2).double() / eps
    l0, target, w = on.double().sum(1).mean(), 5.0, on.double().mean(0)
    expected = (-member.theta * window * df).sum(0)
    expected -= 0.7 * 0.5 / target * 2 * (l0 - target) * window.sum(0) / len(x)
    expected -= 0.3 * (1 + 2 * w / 0.1) * window.sum(0) / len(x)
    dense, _ = dense_loss(member, params, x, y, on)
    dense.backward()
    ours = capture_gradients(member, x, y)
    assert torch.allclose(ours["theta"], expected, rtol=1e-9, atol=1e-12)
    for name, p in params.items():
        assert torch.allclose(ours[name], p.grad, rtol=1e-9, atol=1e-12), name
