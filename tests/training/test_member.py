"""The hand-written gradients against autograd in float64: every activation, site map, nesting and skip."""

import itertools
from typing import ClassVar

import pytest
import torch

from diascope.dictionaries import (
    BatchTopK,
    Causal,
    Gated,
    Joint,
    JumpReLU,
    Matryoshka,
    OneToOne,
    ReLU,
    SampledMatryoshka,
    TopK,
)
from diascope.dictionaries.site_maps import stretches
from diascope.training import Coefficient, Controller, FrequencyPenalty, MemberRecipe, QuadraticL0, TrainingRecipe
from diascope.training.member import Member, made

RESID = ("L2.resid_post", "L5.resid_post", "L11.resid_post")
IN, OUT = (tuple(f"L{layer}.{kind}" for layer in (2, 5, 11)) for kind in ("mlp_in", "mlp_out"))
SHAPES = {
    "sae": (OneToOne(), RESID[:1], RESID[:1]),
    "transcoder": (OneToOne(), IN[:1], OUT[:1]),
    "crosscoder": (Joint(), RESID, RESID),
    "weakly causal": (Causal(), RESID, RESID),
    "clt": (Causal(), IN, OUT),
}
WIDTHS = (6, 8, 7)
NESTED = Matryoshka((6, 18, 36), (1.0, 2.0, 3.0))


def make(shape="sae", activation=None, *, skip=False, matryoshka=NESTED, sparsity=None,
         frequency=None, **run):  # fmt: skip
    site_map, reads, writes = SHAPES[shape]
    recipe = MemberRecipe("m", reads, writes, site_map, 36, activation or BatchTopK(5), matryoshka, skip=skip, l0_target=5.0,
                          sparsity=sparsity, frequency=frequency)  # fmt: skip
    widths = WIDTHS[: len(reads)]
    settings = {"aux_coefficient": 0.0, "l0_warmup": 0, **run}
    member = Member(recipe, TrainingRecipe((recipe,), **settings), widths, widths, 0)
    g = torch.Generator().manual_seed(1)
    for name, value in member.params.items():
        drawn = torch.randn(value.shape, generator=g, dtype=torch.float64) * 0.3
        member.params[name] = drawn.abs() + Jump.eps / 2 if name == "theta" else drawn  # the window starts above 0
    for d in member.decoders:
        d /= d.norm(dim=1, keepdim=True)
    member.rule.params = {n: member.params[n] for n in member.rule.params}
    member.bind()
    x, y = (torch.randn(16, sum(widths), generator=g, dtype=torch.float64) for _ in range(2))
    return member, x, x if member.centred else y


def gradients(member, x, y, step=10):
    seen = {}
    member._update = lambda grads, lr, step: seen.update({k: made(v).clone() for k, v in grads})
    member.step(x, y, step, 20)
    return seen


class Jump(torch.autograd.Function):
    """z * H(z - theta) and H(z - theta) with the straight-through derivatives of Rajamanoharan et al. 2024."""

    eps: ClassVar[float] = 0.4

    @staticmethod
    def forward(ctx, z, theta):
        ctx.save_for_backward(z, theta)
        on = (z > theta).double()
        return z * on, on

    @staticmethod
    def backward(ctx, df, don):
        z, theta = ctx.saved_tensors
        window = ((z - theta).abs() < Jump.eps / 2).double() / Jump.eps
        return df * (z > theta), (-theta * window * df - window * don).sum(0)


class Reference:
    """The whole loss, dense and by autograd, straight from the papers' formulas."""

    def __init__(self, member, x, y, step=10):
        self.m, self.x, self.y, self.step = member, x, y, step
        self.p = {k: v.clone().requires_grad_() for k, v in member.params.items()}

    def pre(self):
        p, m = self.p, self.m
        xc = self.x - p["b_dec"] if m.centred else self.x
        return torch.cat([xc[:, b.reads] @ p[f"encoder.{g}"].t() for g, b in enumerate(m.blocks)], 1) + p["b_enc"]

    def decoded(self, f, share=None, *, held=False):
        p = {k: v.detach() for k, v in self.p.items()} if held else self.p
        y_hat = p["b_dec"].expand(len(f), -1)
        for g, b in enumerate(self.m.blocks):
            own = f[:, b.latents]
            if share is not None:
                own = own * (torch.arange(own.shape[1]) < share[g])
            wide = torch.zeros(len(f), y_hat.shape[1], dtype=f.dtype)
            wide[:, b.writes] = own @ p[f"decoder.{g}"]
            if f"skip.{g}" in p:
                affine = torch.zeros_like(wide)
                affine[:, b.skips] = self.x[:, b.reads] @ p[f"skip.{g}"]
                wide = wide + affine
            y_hat = y_hat + wide
        return y_hat

    def reconstruction(self, f):
        ends, weights = self.m.levels.at(self.step)
        losses = [(self.y - self.decoded(f, [e[i] for e in ends])).square().sum(1).mean() for i in range(len(weights))]
        return sum(w * loss for w, loss in zip(weights, losses, strict=True))

    def backward(self, loss):
        loss.backward()
        return {k: v.grad for k, v in self.p.items() if v.grad is not None}


def compare(member, x, y, expected):
    ours = gradients(member, x, y)
    assert ours.keys() == expected.keys()
    for name, g in expected.items():
        assert torch.allclose(ours[name], g, rtol=1e-8, atol=1e-11), name
        assert float(g.abs().max()) > 0, f"{name}: no gradient reaches it, so nothing was compared"


CASES = list(itertools.product(SHAPES, (NESTED, SampledMatryoshka(3, least=3), None)))


@pytest.mark.parametrize(("shape", "matryoshka"), CASES)
@pytest.mark.parametrize("activation", [BatchTopK(5), TopK(5)], ids=["batchtopk", "topk"])
def test_top_k_gradients(shape, matryoshka, activation):
    member, x, y = make(shape, activation, matryoshka=matryoshka, skip=shape in ("transcoder", "clt"))
    reference = Reference(member, x, y)
    pre = reference.pre()
    if isinstance(activation, BatchTopK):
        on = pre >= pre.clamp_min(0).flatten().topk(5 * len(x)).values.min()
    else:
        on = pre >= pre.topk(5, dim=1).values[:, -1:]
    f = pre * (on & (pre > 0))
    compare(member, x, y, reference.backward(reference.reconstruction(f)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "sparsity",
    [QuadraticL0(0.7, 0.5), QuadraticL0(0.7, 2.0, "token"), Coefficient(0.2), Controller(start=0.3)],
    ids=["quadratic", "per token", "coefficient", "controller"],
)
def test_jump_relu_gradients(shape, sparsity):
    member, x, y = make(shape, JumpReLU(Jump.eps), sparsity=sparsity, frequency=FrequencyPenalty(0.3, 0.1))
    reference = Reference(member, x, y)
    f, on = Jump.apply(reference.pre(), reference.p["theta"])
    l0, target = on.sum(1), 5.0
    if isinstance(sparsity, QuadraticL0):
        off = l0.mean() - target if sparsity.reduction == "batch" else l0 - target
        penalty = sparsity.coefficient * sparsity.constant / target * off.square().mean()
    else:
        penalty = (sparsity.value if isinstance(sparsity, Coefficient) else sparsity.start) * l0.mean()
    w = on.mean(0)
    penalty = penalty + 0.3 * (w * (1 + w / 0.1)).sum()
    compare(member, x, y, reference.backward(reference.reconstruction(f) + penalty))


@pytest.mark.parametrize("shape", SHAPES)
def test_relu_gradients(shape):
    member, x, y = make(shape, ReLU(), sparsity=Coefficient(0.2))
    reference = Reference(member, x, y)
    f = reference.pre().relu()
    compare(member, x, y, reference.backward(reference.reconstruction(f) + 0.2 * f.sum(1).mean()))


@pytest.mark.parametrize("shape", SHAPES)
def test_gated_gradients(shape):
    member, x, y = make(shape, Gated(), sparsity=Coefficient(0.2), skip=shape in ("transcoder", "clt"))
    reference = Reference(member, x, y)
    p, pi = reference.p, reference.pre()
    magnitude = p["r"].exp() * (pi - p["b_enc"]) + p["b_mag"]
    f = magnitude.relu() * (pi > 0)
    gate = pi.relu()
    auxiliary = (y - reference.decoded(gate, held=True)).square().sum(1).mean()
    loss = reference.reconstruction(f) + 0.2 * gate.sum(1).mean() + auxiliary
    # the auxiliary term holds b_dec and the skip fixed, but the gate itself still sees b_dec through the centred input
    compare(member, x, y, reference.backward(loss))


def test_a_controller_brings_a_relu_to_its_l0():
    weight, l0 = 1.0, 40.0
    control = Controller(start=1.0, gain=0.1)
    for _ in range(200):  # L0 answers to the weight as a power law
        weight = control.next(weight, l0, 10.0)
        l0 = 40.0 / weight**0.5
    assert l0 == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"activation": TopK(5), "sparsity": Controller()}, "its k fixes L0"),
        ({"activation": ReLU(), "sparsity": QuadraticL0()}, "it takes Controller, Coefficient"),
        ({"activation": BatchTopK(5), "frequency": FrequencyPenalty()}, "needs JumpReLU"),
        ({"activation": BatchTopK(7)}, "disagree"),
        ({"matryoshka": Matryoshka((6, 18), (1.0, 1.0))}, "the width is 36"),
        ({"shape": "clt", "matryoshka": Matryoshka((5, 36), (1.0, 1.0))}, "share the prefixes"),
        ({"skip": True}, "copy its input"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(choices, says):
    with pytest.raises(ValueError, match=says):
        make(**choices)


def test_sampled_prefixes_are_a_function_of_seed_and_step():
    member, _, _ = make(matryoshka=SampledMatryoshka(4, least=2))
    drawn = [member.levels.at(step)[0][0].tolist() for step in range(50)]
    assert drawn == [make(matryoshka=SampledMatryoshka(4, least=2))[0].levels.at(step)[0][0].tolist() for step in range(50)]
    assert all(d[-1] == 36 and d == sorted(set(d)) for d in drawn) and len({tuple(d) for d in drawn}) > 20


def test_stretches_stand_one_after_another():
    assert stretches((2, 3)) == [slice(0, 2), slice(2, 5)]
