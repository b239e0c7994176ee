"""What any implementation of a dictionary in training must do, as checks on a Subject; needs torch alone.

A Subject wraps one dictionary of one library, in float64 where the library allows. Every check returns (verdict, detail) with
verdict True, False, or None where it does not apply. `python peers.py` prints the table for other libraries;
test_conformance.py holds ours to all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Subject(Protocol):
    """One dictionary in training. Tensors by role: W_enc, b_enc, W_dec, b_dec, threshold, W_skip (those that it has)."""

    name: str
    exact: bool  # float64 all through
    unit_decoder: bool  # promises decoder rows of unit length after a step

    def params(self) -> dict[str, Tensor]:
        """Live tensors by role; W_enc and W_dec with one row a latent."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Latents [n, S] as a finished dictionary gives them."""
        ...

    def active(self, x: Tensor) -> Tensor:
        """Which latents are on [n, S] in the training loss on x."""
        ...

    def gradients(self, x: Tensor, dead: Tensor | None) -> dict[str, Tensor]:
        """Gradients of the training loss on x, by role; with `dead` [S] the auxiliary loss for those latents is in it."""
        ...

    def loss(self, x: Tensor) -> float:
        """The training loss without the auxiliary one."""
        ...

    def step(self, x: Tensor) -> None:
        """One optimiser step, with whatever the library does after it."""
        ...


Verdict = tuple[bool | None, str]


def encoding_is_independent_of_the_batch(s: Subject, x: Tensor) -> Verdict:
    together = s.encode(x)
    worst = max(float((s.encode(x[i : i + 1])[0] - together[i]).abs().max()) for i in range(len(x)))
    return worst < 1e-5, f"{worst:.1e}"


def threshold_is_strict(s: Subject, x: Tensor) -> Verdict:
    """A pre-activation that equals its threshold is off."""
    p = s.params()
    if "threshold" not in p or p["threshold"].numel() < 2:
        return None, "no threshold a latent"
    with torch.no_grad():
        p["W_enc"][0], p["threshold"][0], p["b_enc"][0] = 0.0, 0.5, 0.5
    return float(s.encode(x)[:, 0].abs().max()) == 0, ""


def gradients_reach_every_parameter(s: Subject, x: Tensor) -> Verdict:
    g = s.gradients(x, None)
    missing = [name for name in s.params() if name not in g or not float(g[name].abs().max()) > 0]
    return not missing, ", ".join(missing)


def gradient_is_the_slope_of_the_loss(s: Subject, x: Tensor) -> Verdict:
    """Finite differences along a random direction of b_dec and of one decoder row.

    A library that projects the radial part out of the decoder's gradient is right to: the direction has none.
    """
    g, p, worst = s.gradients(x, None), s.params(), 0.0
    used = int((s.encode(x) > 0).sum(0).argmax())
    for name, row in (("b_dec", None), ("W_dec", used)):
        target = p[name] if row is None else p[name][row]
        direction = torch.randn(target.shape, generator=torch.Generator().manual_seed(0), dtype=target.dtype)
        if row is not None:
            direction -= (direction @ target.detach()) / (target.detach() @ target.detach()) * target.detach()
        slope = _slope(s, x, target, direction)
        ours = float((g[name] if row is None else g[name][row]).flatten() @ direction)
        worst = max(worst, abs(slope - ours) / max(abs(slope), 1e-12))
    return worst < (1e-5 if s.exact else 3e-2), f"{worst:.1e}"


def _slope(s: Subject, x: Tensor, target: Tensor, direction: Tensor) -> float:
    """Central difference of the loss, with a step so short that no latent goes on or off."""
    h, before, on = (1e-6 if s.exact else 2e-2), target.detach().clone(), s.active(x)
    for _ in range(8):
        ends, same = [], True
        for sign in (1, -1):
            with torch.no_grad():
                target.copy_(before + sign * h * direction)
            ends.append(s.loss(x))
            same &= torch.equal(s.active(x), on)
        with torch.no_grad():
            target.copy_(before)
        if same:
            break
        h /= 2
    return (ends[0] - ends[1]) / (2 * h)


def _auxiliary(s: Subject, x: Tensor) -> tuple[dict[str, Tensor], Tensor] | None:
    """Gradients of the auxiliary loss alone, and which latents are dead: a third are made too weak to fire, though still positive."""
    with torch.no_grad():
        p = s.params()
        for name in ("W_enc", "b_enc"):
            p[name][::3] *= 0.01
    quiet = s.active(x).sum(0) == 0
    dead = quiet & (torch.arange(len(quiet)) % 3 == 0)
    if not dead.any():
        return None
    plain, both = s.gradients(x, None), s.gradients(x, dead)
    alone = {k: both[k] - plain[k] for k in plain}
    return (alone, dead) if any(float(v.abs().max()) > 0 for v in alone.values()) else None


def auxiliary_gradient_reaches_the_dead_encoders(s: Subject, x: Tensor) -> Verdict:
    if (found := _auxiliary(s, x)) is None:
        return None, "no auxiliary loss"
    g, dead = found
    size = float(g["W_enc"][dead].abs().max())
    return size > 0, f"{size:.1e}"


def auxiliary_residual_is_detached(s: Subject, x: Tensor) -> Verdict:
    """Latents that are alive must not learn to leave the dead ones an easy residual."""
    if (found := _auxiliary(s, x)) is None:
        return None, "no auxiliary loss"
    g, dead = found
    leak, own = float(g["W_dec"][~dead].abs().max()), float(g["W_dec"][dead].abs().max())
    return leak <= 1e-9 * max(own, 1e-30) if s.exact else leak <= 1e-5 * max(own, 1e-30), f"{leak:.1e} of {own:.1e}"


def bias_is_counted_once(s: Subject, x: Tensor) -> Verdict:
    """The residual has b_dec in it already: the auxiliary reconstruction may not add it, so it has no gradient there
    beyond what comes through a centred encoder."""
    if (found := _auxiliary(s, x)) is None:
        return None, "no auxiliary loss"
    g, _ = found
    through = -(g["b_enc"] @ s.params()["W_enc"].detach().to(g["b_enc"]))
    size = float(g["b_dec"].abs().max())
    rest = min(size, float((g["b_dec"] - through).abs().max()))
    return rest <= 1e-6 * max(1.0, float(g["W_dec"].abs().max())), f"{rest:.1e}"


def decoder_rows_stay_unit(s: Subject, x: Tensor) -> Verdict:
    if not s.unit_decoder:
        return None, "not promised"
    s.step(x)
    off = float((s.params()["W_dec"].detach().norm(dim=1) - 1).abs().max())
    return off < 1e-5, f"{off:.1e}"


CHECKS: tuple[Callable[[Subject, Tensor], Verdict], ...] = (
    encoding_is_independent_of_the_batch,
    threshold_is_strict,
    gradients_reach_every_parameter,
    gradient_is_the_slope_of_the_loss,
    auxiliary_gradient_reaches_the_dead_encoders,
    auxiliary_residual_is_detached,
    bias_is_counted_once,
    decoder_rows_stay_unit,
)


def seed_decides(make: Callable[[int], Subject]) -> Verdict:
    """The same seed gives the same start, another seed another."""
    a, again, b = (make(seed).params()["W_enc"].detach() for seed in (0, 0, 1))
    same, other = torch.equal(a, again), not torch.equal(a, b)
    return same and other, "" if same and other else "the same for all seeds" if same else "differs for one seed"


def table(makers: dict[str, Callable[[int], Subject]], d: int = 16, rows: int = 48) -> dict[str, dict[str, str]]:
    """{check: {subject: "yes", "no (detail)" or "-"}}: a fresh subject for every check."""
    x = torch.randn(rows, d, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found: dict[str, dict[str, str]] = {}
    for check in CHECKS:
        row = found.setdefault(check.__name__.replace("_", " "), {})
        for name, make in makers.items():
            subject = make(0)
            verdict, detail = check(subject, x if subject.exact else x.float())
            row[name] = "–" if verdict is None else "yes" if verdict else f"**no** ({detail})"
    for name, make in makers.items():
        verdict, detail = seed_decides(make)
        found.setdefault("seed decides", {})[name] = "yes" if verdict else f"**no** ({detail})"
    return found


def markdown(found: dict[str, dict[str, str]]) -> str:
    names = list(next(iter(found.values())))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    return "\n".join(lines + [f"| {check} | {' | '.join(row[n] for n in names)} |" for check, row in found.items()])
