"""One dictionary in training: forward and gradients by hand, because both are sparse.

With x, y scaled rows [B, d], x_c = x - b_dec where a dictionary writes what it reads (x else), and for each block of
latents encoder rows E [F, d], decoder rows D [F, d]:

1. pre = x_c E^T + b_enc, the one dense product.
2. The rule (rules/) picks candidates and gives their activations f.
3. Matryoshka: a row's active latents, in ascending order, are cut at the P prefixes. Treated as P rows, one sparse
   decode gives the P segments; their running sum gives every prefix's y_hat. So any number of prefixes costs one decode.
4. Loss = sum_p w_p |y - y_hat_p|^2 / B. G_p = dLoss/dy_hat_p; the gradient at segment s is the sum of G_p over p >= s.
5. dD = f^T G, df = (G D^T) at the candidates; the rule turns df into slopes; dE = slope^T x_c, db_enc = sum slope;
   b_dec also gets -db_enc E where it is subtracted from the input.
6. Auxiliary loss: latents that have not fired for long reconstruct what the others leave (Gao et al. 2024).
7. Decoder rows: the part of the gradient along the row is taken out, Adam, then unit length again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diascope import rng
from diascope.dictionaries import DictionaryConfig
from diascope.distributed import ALONE, Team
from diascope.kernels import (
    AdamStep,
    Product,
    SparseLatents,
    adam,
    adam_of,
    column_sums,
    columns,
    decode,
    latent_gradient,
    prefix_errors,
    weight_gradient,
)
from diascope.training.nesting import Levels
from diascope.training.pre_acts import Block, PreActivations
from diascope.training.recipe import MemberRecipe, TrainingRecipe
from diascope.training.rules import RULES, Gradients
from diascope.training.schedule import learning_rate, pressure


@dataclass
class StepStats:
    """What one step tells about itself."""

    fvu: float  # squared error of the full reconstruction over the batch's variance about its mean, in scaled units
    l0: float
    threshold: float  # BatchTopK's bar; 0 for others
    dead: int
    weight: float  # of the sparsity penalty; 0 where k fixes L0


@dataclass(frozen=True)
class Aside:
    """The auxiliary loss at one block: its latents, its derivative in what they write [B, d_out] and in them [nnz]."""

    block: int
    latents: SparseLatents
    gradient: Tensor
    slope: Tensor


class Member:
    """A dictionary in training, in scaled units: x / scale_in, y / scale_out (each one number a dimension)."""

    def __init__(
        self,
        recipe: MemberRecipe,
        run: TrainingRecipe,
        widths_in: tuple[int, ...],
        widths_out: tuple[int, ...],
        index: int,
        team: Team = ALONE,
    ) -> None:
        """With a team, the member holds the latents of its place on the latent axis (shards.py), and steps take its rows."""
        self.recipe, self.run, self.team, self.index = recipe, run, team, index
        n_blocks = len(recipe.map.blocks(widths_in, widths_out, recipe.d_sae))
        if recipe.d_sae // n_blocks % team.latent.size:
            raise ValueError(
                f"{recipe.name} has {recipe.d_sae // n_blocks} latents a block, which {team.latent.size} processes cannot share evenly"
            )
        self.config = DictionaryConfig(
            "",
            tuple(map(str, recipe.reads)),
            tuple(map(str, recipe.writes)),
            widths_in,
            widths_out,
            recipe.d_sae // team.latent.size,
            recipe.map,
            skip=recipe.skip,
        )
        self.blocks = self.config.blocks
        self.centred = recipe.sites_in == recipe.sites_out  # b_dec is taken off the input
        self.draw = rng.torch_generator(run.seed, "member", index)
        self.rule = RULES[type(recipe.activation)](recipe, run, team)
        self.levels = Levels(recipe, self.blocks, run.seed, team.latent)
        S, d_in, d_out = self.config.d_sae, self.config.d_in, self.config.d_out
        self.params: dict[str, Tensor] = {"b_enc": torch.zeros(S), "b_dec": torch.zeros(d_out)}
        for g, b in enumerate(self.blocks):
            self.params |= {f"decoder.{g}": torch.empty(b.n_latents, b.d_out), f"encoder.{g}": torch.empty(b.n_latents, b.d_in)}
            if recipe.skip:
                self.params[f"skip.{g}"] = torch.zeros(b.d_in, b.skips.stop - b.skips.start)
        self.scale_in, self.scale_out = torch.ones(d_in), torch.ones(d_out)
        self.since_fired = torch.zeros(S, dtype=torch.int64)
        self._first: dict[str, Tensor] = {}  # Adam's moments by parameter; the first only where beta1 is not 0
        self._second: dict[str, Tensor] = {}
        self.bind()

    def bind(self) -> None:
        """The rule's parameters are the member's: one dict is optimised and saved."""
        self.params |= {name: value for name, value in self.rule.params.items() if name not in self.params}
        self.rule.params = {name: self.params[name] for name in self.rule.params}
        if hasattr(self.rule, "b_enc"):
            self.rule.b_enc = self.params["b_enc"]  # type: ignore[attr-defined]

    @property
    def device(self) -> torch.device:
        """Where its steps happen, and where its rows must lie."""
        return self.scale_in.device

    def to(self, device: torch.device | str) -> Member:
        """Move everything there; itself. Starting, folding and checkpoints are the processor's."""
        for held in (self.params, self._first, self._second):
            held.update({name: value.to(device) for name, value in held.items()})
        self.scale_in, self.scale_out, self.since_fired = (
            t.to(device) for t in (self.scale_in, self.scale_out, self.since_fired)
        )
        self.levels.to(device)
        self.bind()
        return self

    def _list(self, name: str) -> list[Tensor]:
        return [self.params[f"{name}.{g}"] for g in range(len(self.blocks))] if f"{name}.0" in self.params else []

    @property
    def decoders(self) -> list[Tensor]:
        return self._list("decoder")

    @property
    def encoders(self) -> list[Tensor]:
        return self._list("encoder")

    @property
    def skips(self) -> list[Tensor]:
        return self._list("skip")

    # -- start
    def start(self, scale_in: Tensor, scale_out: Tensor, mean_out: Tensor, x: Tensor, y: Tensor, affine: list[Tensor]) -> None:
        """Set scales and starting weights from moments and a sample of raw rows x [n, d_in], y [n, d_out].

        `affine` holds each block's least-squares map of raw rows, for the skip; empty starts it at zero.
        """
        assert not self.centred or torch.equal(scale_in, scale_out)
        self.scale_in, self.scale_out = scale_in, scale_out
        x, y = x / scale_in, y / scale_out
        self.params["b_dec"] = (mean_out / scale_out).to(x, copy=True)
        for g, (b, A) in enumerate(zip(self.blocks, affine, strict=False)):
            skip = self.params[f"skip.{g}"] = (A * scale_in[b.reads, None] / scale_out[b.skips]).to(x).contiguous()
            self.params["b_dec"][b.skips] -= x[:, b.reads].mean(0) @ skip
        for g in range(len(self.blocks)):
            self._start_decoder(g, x, y)
            self._start_encoder(g, x, y)
        self._shrink(x[:1024], y[:1024])
        self.bind()
        self.rule.start(self.params["b_enc"])

    def _start_decoder(self, g: int, x: Tensor, y: Tensor) -> None:
        b, D = self.blocks[g], self.decoders[g]
        if self.run.decoder_start == "rows":
            residual = (y - self._base(x))[:, b.writes]
            pick = torch.randint(len(y), (len(D),), generator=self.draw)
            noise = torch.randn(D.shape, generator=self.draw)
            base = residual[pick]
            D.copy_(base / base.norm(dim=1, keepdim=True).clamp_min(1e-12) + 0.1 * noise / noise.shape[1] ** 0.5)
        else:
            bound = (6 / D.shape[1]) ** 0.5
            D.uniform_(-bound, bound, generator=self.draw)
        D /= D.norm(dim=1, keepdim=True)

    def _start_encoder(self, g: int, x: Tensor, y: Tensor) -> None:
        b, D, E = self.blocks[g], self.decoders[g], self.encoders[g]
        if self.centred:
            own = D[:, b.own]
            E.copy_(own if own.shape == D.shape else own / own.norm(dim=1, keepdim=True))
            return
        # the encoder direction that answers to a target direction: correlate inputs with targets
        x, y = x[:, b.reads], y[:, b.writes]
        xc, residual = x - x.mean(0), y - y.mean(0)
        if self.skips:
            residual[:, b.own] -= xc @ self.skips[g]
        E.copy_(D @ (residual.t() @ xc))
        E /= E.norm(dim=1, keepdim=True).clamp_min(1e-12)
        self.params["b_enc"][b.latents] = -(E @ x.mean(0))

    def _shrink(self, x: Tensor, y: Tensor) -> None:
        """Scale the encoder so that the first reconstruction has its best length: random latents overshoot many times."""
        pres = self._pres(self._seen(x))
        active, _ = pres.top(4 * round(self.recipe.l0_target) * len(x))
        first = self._decoded([active.part(b.latents.start, b.latents.stop) for b in self.blocks], len(x), 1)[:, 0]
        best = float((first * (y - self._base(x))).sum() / first.square().sum().clamp_min(1e-12))
        for tensor in (*self.encoders, self.params["b_enc"]):
            tensor *= min(1.0, max(best, 0.02))

    # -- parts of the map
    def _seen(self, x: Tensor) -> Tensor:
        return x - self.params["b_dec"] if self.centred else x

    def _pres(self, xc: Tensor, dtype: torch.dtype | None = None) -> PreActivations:
        """The encoder product, in `dtype` or else exact in the parameters' own precision."""
        pairs = zip(self.blocks, self.encoders, strict=True)
        blocks = [Block(_columns(xc, b.reads), E, self.params["b_enc"][b.latents]) for b, E in pairs]
        return PreActivations(blocks, dtype, None if dtype is None else lambda near: self._exact(near, xc), self.team)

    def _exact(self, near: SparseLatents, xc: Tensor) -> Tensor:
        """The pre-activations of some entries [nnz], in the parameters' own precision."""
        parts = [near.part(b.latents.start, b.latents.stop) for b in self.blocks]
        found = [
            latent_gradient(p, _columns(xc, b.reads), E) for p, b, E in zip(parts, self.blocks, self.encoders, strict=True)
        ]
        return self._whole(near, found) + self.params["b_enc"][near.index]

    def _base(self, x: Tensor) -> Tensor:
        """What is written without any latent: b_dec [d_out], or with a skip [B, d_out]."""
        if not self.skips:
            return self.params["b_dec"]
        if len(self.skips) == 1:
            return self.params["b_dec"] + x @ self.skips[0]
        y = self.params["b_dec"].expand(len(x), -1).clone()
        for b, A in zip(self.blocks, self.skips, strict=True):
            y[:, b.skips] += x[:, b.reads] @ A
        return y

    def pre_acts(self, x: Tensor) -> PreActivations:
        """Pre-activations of raw rows x [n, d_in], for calibration."""
        return self._pres(self._seen(x / self.scale_in))

    # -- one step
    def step(self, x: Tensor, y: Tensor, step: int, steps: int) -> StepStats:
        """One optimiser step on raw rows x [B, d_in], y [B, d_out]: in a team, on its own share of the batch's rows."""
        team = self.team
        same = y is x and self.centred
        x = x / self.scale_in
        y = x if same else y / self.scale_out
        rows, now = len(x), pressure(self.run, step, steps)
        B = rows * team.data.size
        xc, base = self._seen(x), self._base(x)
        pres = self._pres(xc, torch.bfloat16 if self.run.product == "bfloat16" else None)
        late = (step + 1) * B > self.run.dead_after  # before that none can be dead
        silent = self.since_fired + B > self.run.dead_after if late else None  # dead, unless they fire now
        if silent is not None and self.run.aux_coefficient and team.latent.total(int(silent.sum())) >= self.run.aux_k:
            pres.ask_aside([silent[b.latents].nonzero().squeeze(1) for b in self.blocks], self.run.aux_k)
        near = self.rule.select(pres, now)
        value, active = self.rule.values(near)
        f = near.with_values(value)
        if len(self.blocks) == 1:
            columns(f)  # what comes from it then need not sort again

        ends, weights = self.levels.at(step)
        parts = [f.part(b.latents.start, b.latents.stop) for b in self.blocks]
        segments = [_segments(part, end) for part, end in zip(parts, ends, strict=True)]
        written = self._decoded(segments, rows, len(weights))
        G, error = prefix_errors(written, base, y, weights / team.data.size)
        df = self._latent_gradient(segments, G.view(rows * len(weights), -1), near)

        def frozen(v: Tensor) -> Tensor:
            whole = near.with_values(v)
            alone = [whole.part(b.latents.start, b.latents.stop) for b in self.blocks]
            rest = self._decoded(alone, rows, 1)[:, 0] + base - y
            return self._latent_gradient(alone, (2 / B) * rest, near)

        slopes = self.rule.gradients(near, active, df, now, frozen)
        dead = self._count(near.with_values(active.to(f.value.dtype)), B)
        n_dead = round(team.latent.total(int(dead.sum()))) if late else 0
        used = self.run.aux_coefficient and n_dead >= self.run.aux_k
        aside = self._auxiliary(pres.aside, dead, -error) if used else []
        self._update(self._gradients(near, slopes, segments, G, x, xc, aside), learning_rate(self.run, step, steps), step)
        spread = (y - team.data.sum(y.sum(0)) / B).square().sum(dtype=torch.float64)
        told = torch.stack([active.sum().double(), torch.linalg.vector_norm(error).square().double(), spread]).tolist()
        l0 = team.member.total(told[0]) / B
        fvu = team.data.total(told[1]) / max(team.data.total(told[2]), 1e-300)
        self.rule.after(l0)
        return StepStats(fvu, l0, self.rule.guess, n_dead, self.rule.weight)

    def _count(self, active: SparseLatents, rows: int) -> Tensor:
        """Note which latents fired (have a value other than 0), and say which have not for too long [S]."""
        now = self.team.data.sum(column_sums(active)) > 0
        self.since_fired = torch.where(now, 0, self.since_fired + rows)
        return self.since_fired > self.run.dead_after

    def _decoded(self, segments: list[SparseLatents], rows: int, levels: int) -> Tensor:
        """What the segments write [B, P, d_out], summed over the latent axis."""
        if len(segments) == 1:
            return self.team.latent.sum(decode(segments[0], self.decoders[0]).view(rows, levels, -1))
        out = self.params["b_dec"].new_zeros(rows, levels, self.config.d_out)
        for b, s, D in zip(self.blocks, segments, self.decoders, strict=True):
            out[:, :, b.writes] += decode(s, D).view(rows, levels, -1)
        return self.team.latent.sum(out)

    def _latent_gradient(self, segments: list[SparseLatents], G: Tensor, near: SparseLatents) -> Tensor:
        """(G D^T) at the candidates, in the order of `near` [nnz]."""
        found = [
            latent_gradient(s, _columns(G, b.writes), D) for s, b, D in zip(segments, self.blocks, self.decoders, strict=True)
        ]
        return self._whole(near, found)

    def _whole(self, near: SparseLatents, parts: list[Tensor]) -> Tensor:
        """One number for each entry of `near` [nnz], from those of each block."""
        if len(parts) == 1:
            return parts[0]
        out = torch.empty_like(near.value)
        for b, part in zip(self.blocks, parts, strict=True):
            out[(near.index >= b.latents.start) & (near.index < b.latents.stop)] = part
        return out

    def _gradients(
        self,
        near: SparseLatents,
        slopes: Gradients,
        segments: list[SparseLatents],
        G: Tensor,
        x: Tensor,
        xc: Tensor,
        aside: list[Aside],
    ) -> Iterator[tuple[str, Tensor | list[Product]]]:
        """Every parameter's gradient by name; those of encoders and decoders as what they are the sum of.

        They may be used up as they come: no parameter is read after the first.
        """

        def summed(entries: Tensor) -> Tensor:
            return column_sums(near.with_values(entries))

        whole, through, total = near.with_values(slopes.pre), summed(slopes.pre), G[:, 0]  # every prefix begins with segment 0
        b_enc, b_dec = (through.clone() if slopes.bias is None else summed(slopes.bias)), total.sum(0)
        if self.centred:
            taken = torch.zeros_like(b_dec)
            for b, E in zip(self.blocks, self.encoders, strict=True):
                taken[b.reads] += through[b.latents] @ E
            b_dec -= self.team.latent.sum(taken)
        for a in aside:
            b_enc[self.blocks[a.block].latents] += column_sums(a.latents.with_values(a.slope))
        yield from ({"b_dec": b_dec, "b_enc": b_enc} | slopes.params).items()
        more = {a.block: a for a in aside}
        flat = G.reshape(-1, G.shape[-1])
        for g, (b, segment) in enumerate(zip(self.blocks, segments, strict=True)):
            rows = _columns(xc, b.reads)
            encoder = [Product(whole.part(b.latents.start, b.latents.stop), rows)]
            decoder = [Product(segment, _columns(flat, b.writes))]
            if a := more.get(g):
                encoder.append(Product(a.latents.with_values(a.slope), rows))
                decoder.append(Product(a.latents, a.gradient))
            yield f"encoder.{g}", encoder
            yield f"decoder.{g}", decoder
            if self.skips:
                yield f"skip.{g}", x[:, b.reads].t() @ total[:, b.skips]

    def _auxiliary(self, found: list[SparseLatents], dead: Tensor, residual: Tensor) -> list[Aside]:
        """Dead latents, the aux_k largest a row in each block, reconstruct the residual; its own scale is divided out."""
        square = self.team.data.sum(residual.square().sum())
        weight, out = self.run.aux_coefficient / square.clamp_min(1e-12), []
        for g, (b, near, D) in enumerate(zip(self.blocks, found, self.decoders, strict=True)):
            f = near.kept(dead[b.latents][near.index])
            if self.team.latent.total(len(f.index)):
                f = f.with_values(f.value.to(D.dtype))
                G = 2 * weight * (self.team.latent.sum(decode(f, D)) - residual[:, b.writes])
                out.append(Aside(g, f, G, latent_gradient(f, G, D)))
        return out

    def _update(self, grads: Iterable[tuple[str, Tensor | list[Product]]], lr: float, step: int) -> None:
        """One step of the optimiser with each gradient, which is then let go; over the data axis the whole of it is summed."""
        now = AdamStep(lr, self.run.beta1, self.run.beta2, step, self.run.update_clip)
        for name, g in grads:
            value, unit_rows = self.params[name], name.startswith("decoder")
            for moment in (self._second, self._first) if self.run.beta1 else (self._second,):
                if name not in moment:
                    moment[name] = torch.zeros_like(value)
            moments = self._second[name], self._first.get(name)
            if isinstance(g, list) and self.team.data.size == 1:
                adam_of(value, g, *moments, now, unit_rows=unit_rows)
                continue
            whole = made(g)
            adam(value, self.team.data.sum(whole.contiguous()), *moments, now, unit_rows=unit_rows)
            del g, whole

    # -- state for checkpoints
    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, as tensors."""
        out = dict(self.params) | {n: getattr(self, n) for n in ("scale_in", "scale_out", "since_fired")}
        out |= {f"first.{n}": v for n, v in self._first.items()} | {f"second.{n}": v for n, v in self._second.items()}
        return out | {"scalars": torch.tensor([self.rule.guess, self.rule.weight, self.rule.first], dtype=torch.float64)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, value in state.items():
            moment, _, parameter = name.partition(".")
            if moment in ("first", "second") and parameter:
                (self._first if moment == "first" else self._second)[parameter] = value.clone()
            elif name in self.params:
                self.params[name] = value.clone()
            elif name != "scalars":
                setattr(self, name, value.clone())
        self.bind()
        self.rule.guess, self.rule.weight, self.rule.first = map(float, state["scalars"])


def made(gradient: Tensor | list[Product]) -> Tensor:
    """A gradient as a whole in memory."""
    if isinstance(gradient, Tensor):
        return gradient
    return sum((weight_gradient(*p) for p in gradient[1:]), weight_gradient(*gradient[0]))


def _segments(f: SparseLatents, ends: Tensor) -> SparseLatents:
    """Each row of f cut at `ends` [P] into P rows: [B * P, F], entries unchanged."""
    P = len(ends)
    if P == 1:
        return f
    row, begins = torch.arange(len(f), device=ends.device), torch.cat([ends.new_zeros(1), ends[:-1]])
    wanted = (row[:, None] * f.d_sae + begins).view(-1)  # the first place of each segment, all rows on end
    start = torch.searchsorted(f.rows * f.d_sae + f.index, wanted)
    return f.regrouped(torch.cat([start, f.start[-1:]]))


def _columns(G: Tensor, where: slice) -> Tensor:
    """Columns of G, side by side in memory as the sparse products want them."""
    return G if where == slice(0, G.shape[1]) else G[:, where].contiguous()
