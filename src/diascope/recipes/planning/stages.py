"""A recipe's arithmetic, stage by stage.

harvest     rows * operations of the blocks up to the deepest site; writes each site's row by its codec
training    rows * members: the encoder product, 2 d_in F a row, and about 8 d L0 for what is sparse; reads every row of every site once an epoch
memory      a member holds parameters, gradients and Adam's moments, all float32, and a batch of pre-activations a piece at a time
mixing      rows of its own document beside a row of a batch of B: (B - 1) (L - 1) / (W - 1) in a window of W rows, L the rows of a
            document, as a row meets them: sum n^2 / sum n over documents of n rows
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diascope.activations import WINDOW
from diascope.activations.codecs import CODECS
from diascope.dictionaries import Causal
from diascope.recipes.planning.machine import Machine
from diascope.recipes.planning.shape import Shape
from diascope.recipes.recipe import RunRecipe
from diascope.tokens import open_corpus
from diascope.training import MemberRecipe, TrainingRecipe

ROW_IDS = 16  # bytes of token, document, position and next token
ROWS_A_TOKEN = 0.985  # the rest is BOS and padding
PIECE = 64e6  # bytes of pre-activations at a time (kernels.rows_together)
DOCUMENT = 300.0  # rows of a document, where its text is not looked at


@dataclass(frozen=True)
class Stage:
    """One stage: how much work, how long, how many bytes come and go."""

    name: str
    amount: float
    unit: str
    flops: float = 0.0
    read: float = 0.0
    written: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Everything that is known before a recipe runs."""

    recipe: str
    model: str
    machine: Machine
    stages: tuple[Stage, ...]
    parameters: float
    """Of all members together."""
    largest: float
    """Bytes that the largest member takes in training."""
    memory: float
    """Bytes on one device: the model, all members, a batch, and the rows of a run."""
    disk: float
    """Bytes of the spool."""
    keep: tuple[str, float, float]
    """Whether storing rows pays ("store" or "recompute"), what recomputing them costs, and what a month of keeping them costs."""
    companions: float
    """Rows of its own document beside a row of a batch."""
    notes: tuple[str, ...] = field(default=())

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.stages)

    @property
    def cost(self) -> float:
        return self.seconds / 3600 * self.machine.price


def parameters(m: MemberRecipe, shape: Shape) -> float:
    """Weights of one member: encoder, decoder (of a causal map to later sites only), biases, thresholds, skip."""
    reads, writes = ([shape.width(s) for s in sites] for sites in (m.reads, m.writes))
    if isinstance(m.map, Causal):
        each = m.d_sae // len(reads)
        weights = each * (sum(reads) + sum((i + 1) * w for i, w in enumerate(writes)))
    else:
        weights = m.d_sae * (sum(reads) + sum(writes))
    skip = sum(a * b for a, b in zip(reads, writes)) if m.skip else 0
    return weights + 2 * m.d_sae + sum(writes) + skip


def member_bytes(m: MemberRecipe, run: TrainingRecipe, shape: Shape) -> float:
    """Bytes of one member in training."""
    moments = 1 + (run.beta1 > 0)
    copies = 2 + moments  # parameters and one tensor's gradients at a time, at most the larger half of them
    return 4 * parameters(m, shape) * (copies - 0.5) + PIECE + 4 * run.batch * 16 * m.l0_target


def document_rows(recipe: RunRecipe) -> float:
    """Rows of a document of the recipe's text, as a row meets them; packing takes the same share of every document."""
    lengths = [
        len(d.text) or sum(len(m["content"]) for m in d.messages)
        for d in open_corpus(recipe.corpus, field=recipe.field).documents
    ]
    return recipe.tokens * ROWS_A_TOKEN * sum(n * n for n in lengths) / max(sum(lengths), 1) ** 2


def plan(recipe: RunRecipe, shape: Shape, machine: Machine, *, document: float = DOCUMENT) -> Plan:
    """The plan of `recipe` for a model of `shape` on `machine`; `document` is the rows of a document, for mixing."""
    run, tokens = recipe.training, float(recipe.tokens)
    rows = tokens * ROWS_A_TOKEN
    sites = run.sites()
    row = sum(CODECS[recipe.codec].bytes_per_row(shape.width(s)) for s in sites) + ROW_IDS + 4 * len(sites)
    each = sum(4 * shape.width(s) for s in sites) if recipe.store == "live" else row  # bytes of a row while it is held
    # all epochs' windows are of the same rows only where there is one
    held = rows * each <= recipe.row_bytes / (1 if recipe.store == "live" else 2)
    window = WINDOW if recipe.store == "spool" else min(WINDOW, recipe.row_bytes / each / 2)
    times = 1.0 if recipe.store == "spool" or held else run.epochs
    work = tokens * times * shape.flops(recipe.context, 1 + max(s.layer for s in sites))
    written = 0.0 if recipe.store == "live" else rows * times * row
    stored = min(written, recipe.row_bytes) if recipe.store == "bounded" else written
    harvest = Stage(
        "harvest", tokens * times, "tokens", work, 0, written, _time(machine, "harvest", tokens * times, work, written)
    )
    train = _training(recipe, shape, machine, rows, row)
    stages = (harvest, train, *_judging(recipe, shape, machine))
    members = [member_bytes(m, run, shape) for m in run.members]
    run_rows = 32 * recipe.context * sum(4 * shape.width(s) for s in sites)
    model_bytes = shape.parameters * (2 if recipe.dtype == "bfloat16" else 4)
    return Plan(
        recipe.name, shape.name, machine, stages, sum(parameters(m, shape) for m in run.members), max(members),
        (machine.used or model_bytes) + sum(members) + 2 * run_rows, stored, _keep(recipe, shape, machine, rows, row),
        (run.batch - 1) * max(document - 1, 0) / max(min(window, rows) - 1, 1),
    )  # fmt: skip


def _time(machine: Machine, what: str, units: float, flops: float, moved: float = 0.0) -> float:
    """Seconds of `units` of work: measured ones, or operations over the rate; never faster than the disk."""
    measured = machine.seconds(what)
    return max(units * measured if measured is not None else flops / machine.flops, moved / machine.disk)


def _training(recipe: RunRecipe, shape: Shape, machine: Machine, rows: float, row: float) -> Stage:
    run = recipe.training
    seen = rows * run.epochs
    flops = 0.0
    for m in run.members:
        share, d_in = m.ends - m.begins, sum(shape.width(s) for s in m.reads)
        product = 2.0 * d_in * m.d_sae / (len(m.reads) if isinstance(m.map, Causal) else 1)
        sparse = 8.0 * m.l0_target * (d_in + sum(shape.width(s) for s in m.writes)) / 2
        flops += share * (product + sparse)
    read = 0.0 if recipe.store == "live" else seen * row
    seconds = _time(machine, "training", seen, seen * flops, read) + recipe.calibration_tokens * (
        machine.seconds("harvest") or 0
    )
    return Stage("training", seen, "rows", seen * flops, read, 0, seconds)


def _judging(recipe: RunRecipe, shape: Shape, machine: Machine) -> tuple[Stage, ...]:
    """Evaluation and index, where they were measured: they are for dictionaries that people look at, not for a cluster's hours."""
    if machine.seconds("evaluation pass") is None:
        return ()
    passes = 1 + sum(_maps(m, recipe.controls) for m in recipe.training.members)
    texts = recipe.eval_tokens * (machine.seconds("harvest") or 0)
    judged = recipe.ce_tokens * passes * (machine.seconds("evaluation pass") or 0)
    fitted = len(recipe.training.members) * (machine.seconds("controls") or 0) * recipe.controls
    evaluation = Stage("evaluation", recipe.eval_tokens, "tokens", seconds=texts + judged + fitted)
    latents = sum(m.d_sae for m in recipe.training.members)
    tokens = min(recipe.index_tokens, recipe.tokens)
    swept = tokens * len(recipe.training.members) * (machine.seconds("encode") or 0)
    if recipe.store != "spool":
        swept += tokens * (machine.seconds("harvest") or 0)
    index = Stage("index", latents, "latents", seconds=swept + latents * (machine.seconds("index latent") or 0))
    return evaluation, index


def _maps(m: MemberRecipe, controls: bool) -> int:
    """Passes of the model that an evaluation of one member takes: itself, its affine part, and its controls."""
    own = 1 + m.skip
    return own + (4 + (m.sites_in != m.sites_out) if controls else 0)


def _keep(recipe: RunRecipe, shape: Shape, machine: Machine, rows: float, row: float) -> tuple[str, float, float]:
    """Store iff re-reads * operations / sites in a pass * price of an operation > bytes a site * price of a byte and month."""
    sites = recipe.training.sites()
    again = max(0.0, recipe.training.epochs - 1)
    work = again * rows * shape.flops(recipe.context, 1 + max(s.layer for s in sites))
    seconds = again * rows * (machine.seconds("harvest") or 0) or work / machine.flops
    recompute, month = seconds / 3600 * machine.price, rows * row / 1e9 * machine.storage_price
    return ("store" if recompute > month else "recompute"), recompute, month
