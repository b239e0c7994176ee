"""diascope's members as Subjects."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diascope.dictionaries import BatchTopK, Gated, JumpReLU, ReLU, TopK
from diascope.training import Coefficient, MemberRecipe, TrainingRecipe
from diascope.training.export import calibrate, fold
from diascope.training.member import Member, made

D, S, K = 16, 64, 4
ACTIVATIONS = {"BatchTopK": BatchTopK(K), "TopK": TopK(K), "JumpReLU": JumpReLU(0.5), "ReLU": ReLU(), "Gated": Gated()}
ROLES = {
    "encoder.0": "W_enc",
    "decoder.0": "W_dec",
    "b_enc": "b_enc",
    "b_dec": "b_dec",
    "theta": "threshold",
    "r": "r",
    "b_mag": "b_mag",
}


class Ours:
    exact, unit_decoder = True, True

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        activation = ACTIVATIONS[name]
        control = Coefficient(0.05) if name in ("ReLU", "Gated", "JumpReLU") else None
        recipe = MemberRecipe("m", d_sae=S, activation=activation, matryoshka=None, l0_target=float(K), sparsity=control)
        # `decoder_start` "he", no warm-up: the loss is the full one from the first step
        run = TrainingRecipe(
            (recipe,), seed=seed, l0_warmup=0, decoder_start="he", aux_coefficient=1 / 32, aux_k=4, lr_warmup=0
        )
        self.m = Member(recipe, run, (D,), (D,), 0)
        g = torch.Generator().manual_seed(100 + seed)
        x = torch.randn(256, D, generator=g)
        self.m.start(torch.ones(D), torch.ones(D), torch.full((D,), 0.1), x, x, [])
        self.m.params = {k: v.double() for k, v in self.m.params.items()}
        self.m.params["b_enc"] += 0.01  # some latents are off from the start, and none sits at exactly 0
        if "theta" in self.m.params:
            self.m.params["theta"].fill_(0.4)
        self.m.rule.params = {k: self.m.params[k] for k in self.m.rule.params}
        self.m.scale_in, self.m.scale_out = self.m.scale_in.double(), self.m.scale_out.double()
        self.m.bind()

    def params(self) -> dict[str, Tensor]:
        return {ROLES[k]: v for k, v in self.m.params.items()}

    def _finished(self):
        if self.name == "BatchTopK" and not float(self.m.rule.theta.max()):
            x = torch.randn(512, D, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
            self.m.rule.guess = 0.5
            calibrate(self.m, x)
        return fold(self.m, "").double()

    def encode(self, x: Tensor) -> Tensor:
        return self._finished().encode(x).dense()

    def active(self, x: Tensor) -> Tensor:
        near = self.m.rule.select(self.m._pres(self.m._seen(x)), 1.0)
        return near.with_values(self.m.rule.values(near)[1].double()).dense() > 0

    def _step(self, x: Tensor, dead: Tensor | None, update) -> None:
        self.m.since_fired[:] = 0
        if dead is not None:
            self.m.since_fired[dead] = 10**9
        self.m.run = replace(self.m.run, dead_after=4 * len(x))  # before as many rows nothing can be dead, and this is step 5
        own, self.m._update = self.m._update, update or self.m._update
        try:
            self.m.step(x, x, 5, 10)
        finally:
            self.m._update = own

    def gradients(self, x: Tensor, dead: Tensor | None) -> dict[str, Tensor]:
        seen: dict[str, Tensor] = {}
        self._step(x, dead, lambda grads, lr, step: seen.update({ROLES[k]: made(v).clone() for k, v in grads}))
        return seen

    def loss(self, x: Tensor) -> float:
        """Straight from the formulas (test_member.py compares every gradient with autograd; this is the loss itself)."""
        m = self.m
        pre = m._pres(m._seen(x))
        near = m.rule.select(pre, 1.0)
        f = near.with_values(m.rule.values(near)[0])
        y = f.dense() @ m.params["decoder.0"] + m.params["b_dec"]
        loss = (x - y).square().sum(1).mean()
        if self.name == "ReLU":
            loss = loss + 0.05 * f.dense().sum(1).mean()
        if self.name == "JumpReLU":
            loss = loss + 0.05 * (f.dense() > 0).double().sum(1).mean()
        if self.name == "Gated":
            # the auxiliary term holds decoder and bias fixed except through the gate's own input
            gate = near.dense()
            held_D, held_b = self._held
            loss = loss + 0.05 * gate.sum(1).mean() + (x - gate @ held_D - held_b).square().sum(1).mean()
        return float(loss)

    @property
    def _held(self) -> tuple[Tensor, Tensor]:
        if not hasattr(self, "_kept"):
            self._kept = (self.m.params["decoder.0"].clone(), self.m.params["b_dec"].clone())
        return self._kept

    def step(self, x: Tensor) -> None:
        self._step(x, None, None)


MAKERS = {f"diascope {name}": (lambda seed, name=name: Ours(name, seed)) for name in ACTIVATIONS}
