"""The text is looked at piece by piece: the pieces' size, what is held and what was kept on disk change no number."""

import numpy as np
import pytest
import torch

from diascope.evals import clean, evaluate, kept, rows_of
from diascope.evals.clean import CleanText
from diascope.evals.sums import Cells, Spread, Tally
from diascope.evals.text import EvalText
from diascope.models import Model
from diascope.models.toy import byte_tokenizer, toy_model, toy_module
from diascope.sites import Site
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()
SITE = Site.parse("L2.resid_post")


def text_of(model, name, n=30, sequences=12):
    r = np.random.default_rng(len(name))
    return pack(
        model,
        [Document(f"{name}{i}", " ".join(r.choice(WORDS, 14))) for i in range(n)],
        context=64,
        max_tokens=64 * sequences,
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache in which toy models are kept too."""
    monkeypatch.setenv("DIASCOPE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "SMALL", 0)
    return tmp_path


def judged(model, dictionaries, **more):
    fit = rows_of(model, text_of(model, "fit", sequences=4), keep=more.get("keep", True))
    found = evaluate(model, dictionaries, text_of(model, "a text"), training_rows=fit, ce_tokens=64 * 5, **more)
    return {name: e.card() for name, e in found.items()}


def close(a, b, rel):
    """Whether two cards hold the same numbers."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(close(a[k], b[k], rel) for k in a)
    if isinstance(a, float) and b is not None:
        return a == pytest.approx(b, rel=rel, abs=1e-9)
    return a == b


def test_the_size_of_pieces_and_what_is_held_change_nothing(toy, make_dictionary, monkeypatch):
    dictionaries = {"sae": make_dictionary(), "skip": make_dictionary(kind="transcoder", skip=True)}
    first = judged(toy, dictionaries, keep=False)
    monkeypatch.setattr(clean, "HELD", 0)  # nothing is held: the model is asked twice
    assert judged(toy, dictionaries, keep=False) == first
    monkeypatch.setattr(clean, "PIECE", 64)
    monkeypatch.setattr(clean, "HELD", 40_000)  # the first pieces are held
    assert close(judged(toy, dictionaries, keep=False), first, 1e-4)


def test_only_a_piece_of_the_text_is_in_memory(toy, make_dictionary, monkeypatch):
    """Rows given to a dictionary at once are those of one piece, whatever the length of the text."""
    monkeypatch.setattr(clean, "PIECE", 128)
    monkeypatch.setattr(clean, "HELD", 0)
    d, seen = make_dictionary(), []
    inner = d.encode
    monkeypatch.setattr(d, "encode", lambda x: (seen.append(x.numel() // 32), inner(x))[1])
    for sequences in (4, 24):
        seen.clear()
        evaluate(toy, {"d": d}, text_of(toy, "long", 80, sequences), ce_tokens=64, keep=False)
        assert max(seen) <= 2 * 64 and sum(seen) > sequences * 64 / 2


def test_a_second_evaluation_runs_no_clean_pass_and_gives_the_same_numbers(home, make_dictionary, monkeypatch):
    model, dictionaries = toy_model(), {"d": make_dictionary()}
    monkeypatch.setattr(clean, "HELD", 0)
    calls = []

    def count(owner, name):
        inner = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda self, *a, **k: (calls.append((name, bool(self._edits))), inner(self, *a, **k))[1]
        )

    count(Model, "hidden")
    count(Model, "capture")
    bare = judged(model, dictionaries, keep=False)
    without, calls[:] = list(calls), []
    first = judged(model, dictionaries)
    wrote, calls[:] = list(calls), []
    second = judged(model, dictionaries)
    assert first == bare and second == bare
    assert ("hidden", False) in wrote and ("hidden", False) not in calls  # every last hidden state is of an edited model
    assert calls.count(("hidden", True)) == wrote.count(("hidden", True)) > 0
    fit = 2  # captures of the text on which controls are fitted, kept too
    looks = [c.count(("capture", False)) - (0 if c is calls else fit) for c in (without, wrote, calls)]
    assert looks[0] == 2 * looks[1] > 2 and looks[2] == 0
    calls.clear()
    monkeypatch.setattr(clean, "LARGEST", 0)  # of a long text moments are kept, and neither rows nor hidden states
    third = judged(model, {"d": make_dictionary(kind="transcoder")})
    calls.clear()
    fourth = judged(model, {"d": make_dictionary(kind="transcoder")})
    assert third == fourth and calls.count(("capture", False)) - fit == looks[1]


def test_what_is_kept_belongs_to_these_weights_and_this_text(home, make_dictionary):
    model, d = toy_model(), make_dictionary()
    judged(model, {"d": d})
    files = set(home.rglob("*.safetensors"))
    assert files
    judged(model, {"d": d})
    assert set(home.rglob("*.safetensors")) == files
    with torch.no_grad():
        model.module.model.layers[3].mlp.down_proj.weight[0, 0] += 1e-3
    changed = judged(model, {"d": d})
    assert len(set(home.rglob("*.safetensors"))) == 2 * len(files) and changed == judged(model, {"d": d}, keep=False)
    handle = model.module.model.layers[1].register_forward_hook(lambda *_: None)
    assert not kept.worth_it(model)  # somebody's hook: weights do not say what it does
    handle.remove()
    assert kept.worth_it(model)
    assert kept.tokens(text_of(model, "a text")) != kept.tokens(text_of(model, "another"))


def test_a_damaged_file_is_named(home, make_dictionary):
    model = toy_model()
    judged(model, {"d": make_dictionary()})
    path = next(p for p in home.rglob("L2-resid_post.safetensors"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"L2-resid_post\.safetensors.*delete it"):
        judged(model, {"d": make_dictionary()})


def test_norms_thin_out_evenly(monkeypatch):
    model = Model(toy_module(), byte_tokenizer(), "toy")
    text = CleanText(model, text_of(model, "a text"), 0, keep=False)
    text.look([SITE])
    every = text._norms[SITE]
    monkeypatch.setattr(clean, "NORMS", len(every) // 3)
    monkeypatch.setattr(clean, "PIECE", 64)
    thin = CleanText(model, text_of(model, "a text"), 0, keep=False)
    thin.look([SITE])
    step = -(-len(every) // (len(every) // 3))
    assert torch.allclose(thin._norms[SITE], every[::step], rtol=1e-5)


def test_cells_are_documents_by_stretch_and_sums_by_cell_are_sums(toy):
    sequences = text_of(toy, "a text")
    text = EvalText(toy, sequences)
    cells = Cells(sequences, text.rows.numpy())
    values = np.random.default_rng(0).normal(size=int(text.rows.sum()))
    tally = Tally(len(cells))
    where = cells.of[text.rows.numpy()]
    for part in np.array_split(np.arange(len(values)), 7):
        tally.add(Spread(where[part]), v=values[part])
    position = sequences.positions[text.rows.numpy()]
    for document in np.unique(text.documents):
        own = text.documents == document
        for stretch, (low, high) in enumerate(((1, 16), (16, 64)), 1):
            here = (cells.document == document) & (cells.stretch == stretch)
            assert tally["v"][here].sum() == pytest.approx(values[own & (position >= low) & (position < high)].sum())
    assert (cells.of[~text.rows.numpy()] == -1).all()
