"""One dictionary in training: forward and gradients by hand, because both are sparse.

With x, y scaled rows [B, d], x_c = x - b_dec for an SAE (x for a transcoder), encoder rows E [S, d], decoder rows D [S, d]:

1. pre = x_c E^T + b_enc, the one dense product.
2. Candidates: BatchTopK takes the k B largest; JumpReLU takes pre > theta - bandwidth/2 (its straight-through window
   included), with value 0 where pre <= theta.
3. Matryoshka: a row's active latents, in ascending order, are cut at the P prefixes. Treated as P rows, one sparse
   decode gives the P segments; their running sum gives every prefix's y_hat. So any number of prefixes costs one decode.
4. Loss = sum_p w_p |y - y_hat_p|^2 / B. G_p = dLoss/dy_hat_p; the gradient at segment s is the sum of G_p over p >= s.
5. dD = f^T G, df = (G D^T) at the candidates, dE = df^T x_c, db_enc = sum df; for an SAE b_dec also gets -db_enc E.
6. JumpReLU: dtheta = -(theta / eps) K((pre - theta) / eps) df, plus the L0 and frequency penalties' -(1 / eps) K(.)
   (Rajamanoharan et al. 2024, equations 9 and 11), K the unit rectangle.
7. Decoder rows: the part of the gradient along the row is taken out, Adam (beta1 = 0), then unit length again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.dictionaries import BatchTopK, JumpReLU
from diascope.kernels import SparseLatents, decode, latent_gradient, select_above, weight_gradient
from diascope.kernels.sparse import from_flat
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.schedule import learning_rate, pressure


@dataclass
class StepStats:
    """What one step tells about itself."""

    fvu: float  # squared error of the full reconstruction over the batch's variance about its mean
    l0: float
    threshold: float
    dead: int


class Member:
    """A dictionary in training, in scaled units: x / scale_in, y / scale_out (each a number or one a dimension)."""

    def __init__(self, recipe: MemberRecipe, run: TrainingRecipe, d_in: int, d_out: int, index: int) -> None:
        self.recipe, self.run = recipe, run
        self.is_sae = recipe.site_in == recipe.site_out
        self.jump = isinstance(recipe.activation, JumpReLU)
        self.draw = rng.torch_generator(run.seed, "member", index)
        F = recipe.d_sae
        self.decoder = torch.empty(F, d_out)
        self.encoder = torch.empty(F, d_in)
        self.b_enc, self.b_dec = torch.zeros(F), torch.zeros(d_out)
        self.theta = torch.full((F,), run.theta_start if self.jump else 0.0)
        self.skip = torch.zeros(d_in, d_out) if recipe.skip else None
        self.scale_in, self.scale_out = torch.ones(d_in), torch.ones(d_out)
        self.since_fired = torch.zeros(F, dtype=torch.int64)
        self.guess = 0.0  # last batch's selection threshold: where the next search starts
        self._second: dict[str, Tensor] = {}
        if not isinstance(recipe.activation, (JumpReLU, BatchTopK)):
            raise ValueError(
                f"{recipe.name}: {type(recipe.activation).__name__} is read but not trained; train BatchTopK or JumpReLU"
            )
        if isinstance(recipe.activation, BatchTopK) and recipe.activation.k != round(recipe.l0_target):
            raise ValueError(
                f"{recipe.name}: BatchTopK(k={recipe.activation.k}) and l0_target={recipe.l0_target:g} disagree: give one number"
            )
        prefixes = recipe.matryoshka.prefixes if recipe.matryoshka else (F,)
        if prefixes[-1] != F:
            raise ValueError(f"{recipe.name}: the last Matryoshka prefix is {prefixes[-1]}, the width is {F}")
        weights = recipe.matryoshka.weights if recipe.matryoshka else (1.0,)
        self.prefixes = torch.tensor(prefixes)
        self.weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)

    # -- start
    def start(self, scale_in: Tensor, scale_out: Tensor, mean_out: Tensor, x: Tensor, y: Tensor, affine: Tensor | None) -> None:
        """Set scales and starting weights from moments and a sample of raw rows x [n, d_in], y [n, d_out].

        `affine` [d_in, d_out] is the least-squares map of raw rows, for the skip.
        """
        self.scale_in, self.scale_out = scale_in, scale_out
        x, y = x / scale_in, y / scale_out
        self.b_dec = (mean_out / scale_out).clone()
        if self.skip is not None and affine is not None:
            self.skip = affine * scale_in[:, None] / scale_out
            self.b_dec = self.b_dec - x.mean(0) @ self.skip
        if self.run.decoder_start == "rows":
            residual = y - self.b_dec - (x @ self.skip if self.skip is not None else 0)
            pick = torch.randint(len(y), (len(self.decoder),), generator=self.draw)
            noise = torch.randn(self.decoder.shape, generator=self.draw)
            base = residual[pick]
            self.decoder = base / base.norm(dim=1, keepdim=True).clamp_min(1e-12) + 0.1 * noise / noise.shape[1] ** 0.5
        else:
            bound = (6 / self.decoder.shape[1]) ** 0.5
            self.decoder.uniform_(-bound, bound, generator=self.draw)
        self.decoder /= self.decoder.norm(dim=1, keepdim=True)
        if self.is_sae:
            self.encoder = self.decoder.clone()
        else:  # the encoder direction that answers to a target direction: correlate inputs with targets
            xc = x - x.mean(0)
            residual = y - y.mean(0) - (xc @ self.skip if self.skip is not None else 0)
            self.encoder = self.decoder @ (residual.t() @ xc)
            self.encoder /= self.encoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
            self.b_enc = -(self.encoder @ x.mean(0))
        self._shrink(x, y)

    def _shrink(self, x: Tensor, y: Tensor) -> None:
        """Scale the encoder so that the first reconstruction has its best length: random latents overshoot many times."""
        x, y = x[:1024], y[:1024]
        xc = x - self.b_dec if self.is_sae else x
        rest = y - self.b_dec - (x @ self.skip if self.skip is not None else 0)
        pre = torch.addmm(self.b_enc, xc, self.encoder.t())
        k = 4 * round(self.recipe.l0_target) * len(x)
        bar = float(torch.topk(pre.flatten(), min(k, pre.numel()), sorted=False).values.min())
        first = decode(select_above(pre, max(bar, 0.0)), self.decoder)
        best = float((first * rest).sum() / first.square().sum().clamp_min(1e-12))
        self.encoder *= min(1.0, max(best, 0.02))
        self.b_enc *= min(1.0, max(best, 0.02))

    # -- one step
    def step(self, x: Tensor, y: Tensor, step: int, steps: int) -> StepStats:
        """One optimiser step on raw rows x [B, d_in], y [B, d_out]."""
        x, y = x / self.scale_in, y / self.scale_out
        B, now = len(x), pressure(self.run, step, steps)
        xc = x - self.b_dec if self.is_sae else x
        pre = torch.addmm(self.b_enc, xc, self.encoder.t())
        near = self._candidates(pre, now)
        row_theta = self.theta[near.index]
        active = near.value > row_theta
        f = near.with_values(torch.where(active, near.value, 0.0))

        segments = _segments(f, self.prefixes)
        base = self.b_dec + (x @ self.skip if self.skip is not None else 0)
        parts = decode(segments, self.decoder).view(B, len(self.prefixes), -1)
        y_hat = parts.cumsum(1) + (base[:, None] if base.ndim == 2 else base)
        error = y_hat - y[:, None]
        G = (2 / B) * self.weights.to(error)[None, :, None] * error
        total = G.sum(1)
        G = G.flip(1).cumsum(1).flip(1).reshape(B * len(self.prefixes), -1)

        grads = {"decoder": weight_gradient(segments, G), "b_dec": total.sum(0)}
        df = latent_gradient(segments, G, self.decoder)
        slope = torch.where(active, df, 0.0)
        if self.jump:
            grads["theta"] = self._theta_gradient(near, df, B, now)
        fired = torch.bincount(f.index[active], minlength=len(self.theta)) > 0
        self.since_fired = torch.where(fired, 0, self.since_fired + B)
        dead = self.since_fired > self.run.dead_after
        sparse = near.with_values(slope)
        grads["encoder"] = weight_gradient(sparse, xc)
        grads["b_enc"] = torch.zeros_like(self.b_enc).index_add_(0, near.index, slope)
        if self.is_sae:
            grads["b_dec"] = grads["b_dec"] - grads["b_enc"] @ self.encoder
        if self.skip is not None:
            grads["skip"] = x.t() @ total
        if self.run.aux_coefficient and int(dead.sum()) >= self.run.aux_k:
            self._auxiliary(pre, dead, xc, -error[:, -1], grads)
        self._update(grads, learning_rate(self.run, step, steps), step)

        last = error[:, -1]
        variance = (y - y.mean(0)).square().sum()
        return StepStats(float(last.square().sum() / variance), float(active.sum()) / B, self.guess, int(dead.sum()))

    def _candidates(self, pre: Tensor, now: float) -> SparseLatents:
        if self.jump:
            bandwidth = self.recipe.activation.bandwidth  # type: ignore[union-attr]
            return select_above(pre, (self.theta - bandwidth / 2).clamp_min(0))
        k = round(self.recipe.l0_target * (1 + 3 * (1 - now))) * len(pre)
        near = select_above(pre, self.guess * 0.9)
        if len(near.index) < k or len(near.index) > 4 * k:  # the guess was off: look again at everything positive
            near = select_above(pre, _guess(pre, k))
        if len(near.index) > k:
            bar = torch.topk(near.value, k, sorted=False).values.min()
            self.guess = float(bar)
            near = near.kept(near.value >= bar)
        return near

    def _theta_gradient(self, near: SparseLatents, df: Tensor, B: int, now: float) -> Tensor:
        bandwidth = self.recipe.activation.bandwidth  # type: ignore[union-attr]
        theta = self.theta[near.index]
        window = ((near.value - theta).abs() < bandwidth / 2).to(df.dtype) / bandwidth
        l0 = float((near.value > theta).sum()) / B
        target = self.recipe.l0_target
        slope = now * self.run.l0_coefficient * self.run.l0_constant / target * 2 * (l0 - target)
        per_entry = -theta * window * df - slope * window / B
        if self.run.frequency_coefficient:
            w = torch.bincount(near.index[near.value > theta], minlength=len(self.theta)).to(df.dtype) / B
            rate = self.run.frequency_coefficient * (1 + 2 * w / self.run.frequency_scale)
            per_entry = per_entry - now * rate[near.index] * window / B
        return torch.zeros_like(self.theta).index_add_(0, near.index, per_entry)

    def _auxiliary(self, pre: Tensor, dead: Tensor, xc: Tensor, residual: Tensor, grads: dict[str, Tensor]) -> None:
        """Dead latents, the aux_k largest a row, reconstruct the residual; its own scale is divided out."""
        which = dead.nonzero().squeeze(1)
        B, k = len(pre), min(self.run.aux_k, len(which))
        top = pre[:, which].topk(k, dim=1)
        columns, order = which[top.indices].sort(1)
        flat = (columns + torch.arange(B)[:, None] * pre.shape[1]).reshape(-1)
        f = from_flat(pre, flat[top.values.gather(1, order).reshape(-1) > 0])
        weight = self.run.aux_coefficient / residual.square().sum().clamp_min(1e-12)
        G = 2 * weight * (decode(f, self.decoder) - residual)
        grads["decoder"] += weight_gradient(f, G)
        slope = latent_gradient(f, G, self.decoder)
        grads["encoder"] += weight_gradient(f.with_values(slope), xc)
        grads["b_enc"].index_add_(0, f.index, slope)

    def _update(self, grads: dict[str, Tensor], lr: float, step: int) -> None:
        d = self.decoder
        grads["decoder"] -= (grads["decoder"] * d).sum(1, keepdim=True) * d
        beta2, correction = self.run.beta2, 1 - self.run.beta2 ** (step + 1)
        for name, g in grads.items():
            second = self._second.setdefault(name, torch.zeros_like(g))
            second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            # Adam with beta1 = 0; in place, the gradient's memory serves as the denominator's
            ratio = g.div_(second.div(correction).sqrt_().add_(1e-8))
            if self.run.update_clip:  # a latent that first fires at step t would move sqrt(t) times the rate
                ratio.clamp_(-self.run.update_clip, self.run.update_clip)
            getattr(self, name).add_(ratio, alpha=-lr)
        d /= d.norm(dim=1, keepdim=True)
        if self.jump:
            self.theta.clamp_min_(0.0)

    # -- state for checkpoints
    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as tensors."""
        names = ["decoder", "encoder", "b_enc", "b_dec", "theta", "scale_in", "scale_out", "since_fired"]
        out = {n: getattr(self, n) for n in names} | ({"skip": self.skip} if self.skip is not None else {})
        out |= {f"second.{n}": v for n, v in self._second.items()}
        return out | {"scalars": torch.tensor([self.guess], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, value in state.items():
            if name.startswith("second."):
                self._second[name.removeprefix("second.")] = value.clone()
            elif name != "scalars":
                setattr(self, name, value.clone())
        self.guess = float(state["scalars"][0])


def _segments(f: SparseLatents, prefixes: Tensor) -> SparseLatents:
    """Each row of f cut at the prefixes into P rows: [B * P, S], entries unchanged."""
    P = len(prefixes)
    if P == 1:
        return f
    segment = torch.searchsorted(prefixes, f.index, right=True)
    counts = torch.bincount(f.rows * P + segment, minlength=len(f) * P)
    start = torch.zeros(len(counts) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=start[1:])
    return SparseLatents(start, f.index, f.value, f.d_sae)


def _guess(pre: Tensor, k: int) -> float:
    """A bar that about 1.5 k entries of `pre` pass, from every 61st entry; never below 0."""
    sample = pre.view(-1)[::61].numpy()
    keep = min(len(sample) - 1, int(1.5 * k / 61) + 1)
    return max(0.0, float(-np.partition(-sample, keep)[keep]))
