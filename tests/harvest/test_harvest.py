"""Harvests: live rows equal stored ones, several harvesters share the work, and packed documents are checked alone."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from diascope.activations import Batches, RowReader, certificate
from diascope.dictionaries import BatchTopK
from diascope.harvest import Harvest, LiveReader, harvest
from diascope.harvest.spot_check import spot_check
from diascope.harvest.worker import layout_of, run_rows
from diascope.models.toy import toy_model
from diascope.sites import Site
from diascope.tokens import pack
from diascope.tokens.corpora import Document
from diascope.training import MemberRecipe, TrainingRecipe, train_group

SITES = ("L0.resid_post", "L1.mlp_out")


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def sequences(model):
    draw = np.random.default_rng(0)
    words = ["the", "a", "cat", "sat", "on", "mat", "and", "ran"]
    documents = [Document(f"d{i}", " ".join(draw.choice(words, draw.integers(6, 30)))) for i in range(60)]
    return pack(model, documents, context=64, max_tokens=2048)


def plan(**settings):
    return Harvest(SITES, run_sequences=4, codec="float32", **settings)


def test_live_rows_are_the_stored_ones_to_the_bit(model, sequences, tmp_path):
    stored, live = harvest(model, sequences, plan(), tmp_path), LiveReader(model, sequences, plan())
    assert stored.layout.counts.tolist() == live.layout.counts.tolist() == layout_of(model, sequences, plan()).counts.tolist()
    batches = [Batches(r.layout, 50, 2.0, 0, window=300) for r in (stored, live)]
    for step in range(batches[0].steps):
        index = batches[0][step]
        assert (index == batches[1][step]).all()
        for site in stored.sites:
            assert torch.equal(stored.read(site, index), live.read(site, index))
        assert (stored.documents(index) == live.documents(index)).all()
    for site in stored.sites:
        assert torch.equal(stored.moments(site).m2, live.moments(site).m2)


def test_training_on_live_rows_gives_the_same_dictionary(model, sequences, tmp_path):
    """With a window smaller than the spool, so that both take their scales from the same part of it."""
    member = MemberRecipe("sae", SITES[0], SITES[0], d_sae=32, activation=BatchTopK(4), matryoshka=None, l0_target=4.0)
    recipe = TrainingRecipe((member,), epochs=2, batch=64, lr_warmup=2, l0_warmup=3)
    row = sum(model.width(Site.parse(s)) for s in SITES) * 4
    live = LiveReader(model, sequences, plan(), memory=1200 * row)
    stored = RowReader(harvest(model, sequences, plan(), tmp_path / "spool").folder, window=live.window)
    assert live.window < len(live)
    a, b = (train_group(recipe, r, tmp_path / n, model="toy")[0].dictionary for n, r in (("a", stored), ("b", live)))
    assert all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


def test_live_rows_need_room_for_one_run(model, sequences):
    with pytest.raises(ValueError, match="more than the"):
        LiveReader(model, sequences, plan(), memory=1000)


def test_harvesters_share_the_runs(model, sequences, tmp_path):
    """Two at once: every run is made, and the rows are those of one alone."""
    errors = []

    def work(own):
        try:
            harvest(own, sequences, plan(), tmp_path / "both")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(toy_model(),)) for _ in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not errors
    alone, both = harvest(model, sequences, plan(), tmp_path / "alone"), RowReader(tmp_path / "both")
    index = np.arange(len(alone))
    assert all(torch.equal(alone.read(s, index), both.read(s, index)) for s in alone.sites)
    assert not list((tmp_path / "both" / "runs").glob(".*"))


def test_every_run_was_checked_by_another_path(model, sequences, tmp_path):
    reader = harvest(model, sequences, plan(), tmp_path)
    errors = [done["spot_check"][s] for done in reader.done for s in SITES]
    assert len(errors) == 2 * len(reader.done) and 0 <= min(errors) <= max(errors) < 1e-4


def test_a_model_that_lets_documents_see_one_another_is_found_out(model, sequences):
    p = plan()
    which = p.run(1, sequences)
    rows = run_rows(model, sequences, p, which)
    spot_check(model, sequences, p.parsed, which, rows)
    part = sequences.part(which.start, which.stop)
    one = np.tile(np.arange(part.positions.shape[1], dtype=np.int32), (len(part), 1))  # attention crosses
    broken = run_rows(model, replace(part, positions=one), p, range(0, len(part)))
    with pytest.raises(ValueError, match="does not keep packed documents apart"):
        spot_check(model, sequences, p.parsed, which, broken)


def test_the_next_token_is_the_one_that_follows_in_the_document(sequences):
    after = sequences.following()
    inside = sequences.positions[:, 1:] > 0
    assert (after[:, :-1][inside] == sequences.tokens[:, 1:][inside]).all()
    assert (after[:, -1] == -1).all() and (after[:, :-1][sequences.positions[:, 1:] == 0] == -1).all()


def test_a_certificate_counts_documents(model, sequences, tmp_path):
    reader = harvest(model, sequences, plan(), tmp_path)
    mixing = certificate(reader, Batches(reader.layout, 200, 1.0, 0))
    assert mixing.companions == pytest.approx(mixing.companions_expected, rel=0.2)
    assert mixing.documents == pytest.approx(mixing.documents_exact, rel=0.1)
    poor = certificate(reader, Batches(reader.layout, 200, 1.0, 0, window=1))
    assert poor.companions > 1.5 * mixing.companions  # one run at a time holds few documents


def test_a_document_of_ten_million_characters_and_ones_with_hardly_any(model):
    """Cut into pieces, of which a budget samples some; empty and one-token documents give none."""
    documents = [
        Document("long", "the cat sat on the mat " * 450_000),
        Document("empty", ""),
        Document("one", "a"),
        Document("blank", " \n"),
    ]
    found = pack(model, documents, context=64, max_tokens=1024)
    assert {found.names[i] for i in np.unique(found.document) if i >= 0} == {"long"} and len(found) == 16
    with pytest.raises(ValueError, match="nothing to pack"):
        pack(model, documents[1:], context=64, max_tokens=1024)
