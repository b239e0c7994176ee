"""Controls that take training: what of a dictionary's numbers would come without learned directions, or without a learned model?

Of the shape of the dictionary that is judged (latents, L0, prefixes, skip), on rows of the controls' text, all three with the same
rows, batches, steps and rates:

retrained        an ordinary dictionary: what this small budget gives. The other two are to be read beside it.
frozen_decoder   its decoder rows stay the random unit vectors that they start as; encoder, biases and skip are learned
                 (Korznikov et al. 2026, arXiv:2602.14111)
random_model     reads the model with random weights (random_model.py; Heap et al. 2025, arXiv:2501.17727), and is judged in that
                 model, whose losses mean nothing and are left out

1. Rows of the text at the dictionaries' sites, in the model and in the random one; the last eighth trains nothing.
2. `steps` steps of BatchTopK training (training.Member) by the rule of recipes.gemma_scope_2.scaled. The frozen decoder is put back
   after every step.
3. Thresholds are set on the rows that trained nothing; then folded like any dictionary.

Dictionaries of one shape share their controls, and what was trained is kept (evals/kept.py). Only dictionaries that read one
site and write one site of the model have such controls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope import rng
from diascope.config import to_data, within
from diascope.dictionaries import BatchTopK, Dictionary, TopK, load_dictionary, save_dictionary
from diascope.dictionaries.activations import Nesting
from diascope.evals import kept
from diascope.evals.clean import CleanText
from diascope.evals.controls import same_l0
from diascope.evals.random_model import random_weights
from diascope.evals.replace import check_fits
from diascope.models import Model
from diascope.models.load import fast_dtype
from diascope.numerics import Moments, ridge
from diascope.sites import Site
from diascope.storage import commit_folder
from diascope.tokens import Sequences
from diascope.training import Member, MemberRecipe, TrainingRecipe
from diascope.training.export import calibrate, fold
from diascope.training.rows import scale

NAMES = ("retrained", "frozen_decoder", "random_model")
VERSION = 3  # of what is trained: another number forgets what was kept


@dataclass(frozen=True)
class Budget:
    """What the trained controls may cost."""

    tokens: int = 16_384
    """Tokens of the controls' text, each read once by the model and once by the random one."""
    steps: int = 200
    """Training steps of each of the three."""
    batch: int = 512
    """Rows a step."""
    seed: int = 0
    """Seed of the random weights, the starting weights and the order of rows."""

    def __post_init__(self) -> None:
        within("tokens", self.tokens, 32, 2**60)
        within("steps", self.steps, 1, 10**6)
        within("batch", self.batch, 2, 2**24, "rows")


@dataclass(frozen=True)
class Control:
    """A trained dictionary, what it may have cost, and the model that it reads (None: the one that is judged)."""

    dictionary: Dictionary
    budget: Budget
    model: Model | None = None


Beside = Mapping[str, Mapping[str, Control]]  # by the judged dictionary's name, then by the control's


@dataclass(frozen=True)
class _Shape:
    """What the controls of a dictionary depend on."""

    read: str
    written: str
    d_sae: int
    l0: int
    matryoshka: Nesting | None
    skip: bool


def trained_controls(
    model: Model,
    dictionaries: Mapping[str, Dictionary],
    sequences: Sequences,
    budget: Budget | None = None,
    *,
    keep: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, dict[str, Control]]:
    """{dictionary: {control: Control}} by the names of NAMES; a dictionary over several sites or models has none.

    sequences   packed text on which they are trained: text that the dictionaries are not judged on
    keep        take them from the cache where they were trained before, and put them there

    Costs `budget.tokens` tokens through two models and 3 `budget.steps` steps a shape. Raises ValueError where one does not fit the
    model, and for quantised weights.
    """
    budget = budget or Budget()
    for name, d in dictionaries.items():
        check_fits(model, name, d)
    judged = {name: d for name, d in dictionaries.items() if has_controls(d)}
    if not judged:
        return {name: {} for name in dictionaries}
    progress(0, 1, "rows of the controls")
    rows = _Rows(model, sequences, list(dict.fromkeys(s for d in judged.values() for s in d.sites)), budget.seed, keep)
    shapes = {name: _shape(d, rows) for name, d in judged.items()}
    different = list(dict.fromkeys(shapes.values()))
    identity: dict[str, Any] | None = None
    if keep and kept.worth_it(model):
        identity = {
            "weights": kept.weights(model),
            "tokens": kept.tokens(sequences),
            "budget": to_data(budget),
            "product": _product(),
            "version": VERSION,
        }
    found: dict[_Shape, dict[str, Dictionary]] = {}
    for i, shape in enumerate(different):

        def say(step: int, note: str, i: int = i) -> None:
            whole = len(NAMES) * budget.steps
            progress(i * whole + step, len(different) * whole, note)

        found[shape] = _kept(shape, rows, budget, identity, say)
    progress(1, 1, "")
    return {
        name: {c: Control(found[shapes[name]][c], budget, rows.random if c == "random_model" else None) for c in NAMES}
        if name in shapes
        else {}
        for name in dictionaries
    }


def has_controls(d: Dictionary) -> bool:
    """Whether `d` reads one site and writes one, both of the model itself."""
    c = d.config
    return len(c.reads) == len(c.writes) == 1 and c.reads[0].model is None and c.writes[0].model is None


class _Rows:
    """Rows of the text at the sites, in the model and, when first asked for, in the random one."""

    def __init__(self, model: Model, sequences: Sequences, sites: list[Site], seed: int, keep: bool) -> None:
        self.model, self.sequences, self.sites, self.seed, self.keep = model, sequences, sites, seed, keep
        self._random: Model | None = None
        self._seen: dict[bool, dict[Site, Tensor]] = {}

    @property
    def random(self) -> Model:
        if self._random is None:
            self._random = random_weights(self.model, seed=self.seed)
        return self._random

    def of(self, site: str, *, random: bool = False) -> Tensor:
        """[n, d] float32."""
        if random not in self._seen:
            text = CleanText(self.random if random else self.model, self.sequences, 0, keep=self.keep)
            self._seen[random], _ = text.start(self.sequences.tokens.size, self.sites)
        return self._seen[random][Site.parse(site)]


def _shape(d: Dictionary, rows: _Rows) -> _Shape:
    c = d.config
    known = c.l0_target or isinstance(c.activation, TopK)  # then no row is needed
    l0 = min(same_l0(d, torch.empty(0, c.d_in) if known else rows.of(c.sites_in[0])), c.d_sae - 1)
    return _Shape(c.sites_in[0], c.sites_out[0], c.d_sae, l0, c.matryoshka, c.skip)


def _kept(
    shape: _Shape, rows: _Rows, budget: Budget, identity: dict[str, Any] | None, say: Callable[[int, str], None]
) -> dict[str, Dictionary]:
    """The three of one shape: from the cache, or trained and put there."""
    folder = kept.place("controls", identity | {"shape": to_data(shape)}) if identity else None
    if folder and folder.is_dir():
        try:
            return {name: load_dictionary(folder / name) for name in NAMES}
        except ValueError:
            say(0, f"health: {folder} is damaged, its dictionaries are trained again")
    out = {}
    for i, name in enumerate(NAMES):
        out[name] = _trained(shape, rows, budget, name, lambda step, i=i, name=name: say(i * budget.steps + step, name))
    if folder:
        with commit_folder(folder, overwrite=True) as work:
            for name, d in out.items():
                save_dictionary(d, work / name)
    return out


def _trained(shape: _Shape, rows: _Rows, budget: Budget, name: str, say: Callable[[int], None]) -> Dictionary:
    x, y = (rows.of(site, random=name == "random_model") for site in (shape.read, shape.written))
    held = max(1, len(x) // 8)
    member = _started(shape, x[:-held], y[:-held], budget)
    decoder = member.decoders[0].clone()
    for step, index in enumerate(_batches(len(x) - held, budget)):
        a = x[index]
        member.step(a, a if shape.read == shape.written else y[index], step, budget.steps)
        if name == "frozen_decoder":
            member.decoders[0].copy_(decoder)
        say(step + 1)
    calibrate(member, x[-held:][:8192])
    return fold(member, rows.model.name)


def _started(shape: _Shape, x: Tensor, y: Tensor, budget: Budget) -> Member:
    """A member of the shape with its starting weights, by the rule of recipes.gemma_scope_2.scaled for a few hundred steps."""
    recipe = MemberRecipe(
        "control", shape.read, shape.written, d_sae=shape.d_sae, activation=BatchTopK(shape.l0), l0_target=float(shape.l0),
        matryoshka=shape.matryoshka, skip=shape.skip,
    )  # fmt: skip
    run = TrainingRecipe(
        (recipe,), seed=budget.seed, batch=budget.batch, lr=2e-3, lr_warmup=max(20, budget.steps // 20), beta1=0.9, beta2=0.99,
        l0_warmup=max(20, budget.steps // 5), dead_after=max(10_000, budget.steps * budget.batch // 4), decoder_start="he",
        product=_product(), aux_k=32,
    )  # fmt: skip
    member = Member(recipe, run, (x.shape[1],), (y.shape[1],), 0)
    mx, my = Moments.of(x), Moments.of(y)
    affine = []
    if shape.skip:
        a, b = (v - m.mean.float() for v, m in ((x, mx), (y, my)))
        affine = [ridge(a.t() @ a, a.t() @ b).float()]
    pick = torch.from_numpy(rng.generator(budget.seed, "start").permutation(len(x))[:8192])
    member.start(scale(recipe, mx), scale(recipe, my), my.mean.float(), x[pick], y[pick], affine)
    return member


def _product() -> str:
    """Of the encoder: bfloat16 finds the same candidates within its rounding (docs/benchmarks.md) where processors have it."""
    return str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")


def _batches(n: int, budget: Budget) -> Iterator[Tensor]:
    """Numbers of the rows of each step: one keyed permutation of the n rows after another."""
    left, epoch = np.empty(0, np.int64), 0
    for _ in range(budget.steps):
        while len(left) < budget.batch:
            left = np.concatenate([left, rng.generator(budget.seed, "batches", epoch).permutation(n)])
            epoch += 1
        yield torch.from_numpy(left[: budget.batch])
        left = left[budget.batch :]
