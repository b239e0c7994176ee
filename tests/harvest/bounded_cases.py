"""A small run on bounded rows, for the tests of bounded spools: text, recipe, and the dictionaries that a whole spool gives."""

from __future__ import annotations

import numpy as np

from diascope.activations import Batches
from diascope.activations.batches import opened_by
from diascope.activations.reader import row_bytes
from diascope.dictionaries import BatchTopK
from diascope.harvest import BoundedReader, Harvest
from diascope.harvest.worker import layout_of, manifest_of
from diascope.models import Model
from diascope.tokens import Sequences, pack
from diascope.tokens.corpora import Document
from diascope.training import MemberRecipe, TrainingRecipe

SITES = ("L0.resid_post", "L1.mlp_out")
PLAN = Harvest(SITES, run_sequences=2, codec="float32")
MEMBERS = (
    MemberRecipe("sae", SITES[0], SITES[0], d_sae=32, activation=BatchTopK(4), matryoshka=None, l0_target=4.0, ends=0.8),
    MemberRecipe(
        "late", SITES[0], SITES[0], d_sae=32, activation=BatchTopK(4), matryoshka=None, l0_target=4.0, begins=0.6,
        start=("member:sae",),
    ),
    MemberRecipe("transcoder", *SITES, d_sae=32, activation=BatchTopK(4), matryoshka=None, l0_target=4.0),
)  # fmt: skip
RECIPE = TrainingRecipe(MEMBERS, epochs=1.7, batch=64, lr_warmup=2, l0_warmup=3)


def text(model: Model) -> Sequences:
    """Sixteen runs of text."""
    draw = np.random.default_rng(0)
    words = ["the", "a", "cat", "sat", "on", "mat", "and", "ran"]
    documents = [Document(f"d{i}", " ".join(draw.choice(words, draw.integers(6, 30)))) for i in range(90)]
    return pack(model, documents, context=64, max_tokens=2048)


def bytes_of_six(model: Model, sequences: Sequences) -> float:
    """Bytes of a little over six of the sixteen runs: three a window."""
    layout = layout_of(model, sequences, PLAN)
    assert len(layout.counts) == 16
    return 6.2 * int(layout.counts.max()) * row_bytes(manifest_of(model, sequences, PLAN))


def makes(reader: BoundedReader, batches: Batches) -> int:
    """How many runs a training alone makes from the first window to the last, if it makes none twice."""
    there, made = set[int](), 0
    for window in range(batches.windows):
        there &= set(reader.wanted(window))
        opened = set(opened_by(reader.layout, reader.window, reader.seed, window).tolist())
        made += len(opened - there)
        there |= opened
    return made
