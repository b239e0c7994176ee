"""The order of reading: a pure function, every row once an epoch, mixed like an exact shuffle of its window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diascope import rng
from diascope.activations import Batches, Layout
from diascope.activations.batches import windows


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.integers(2, 30),
    st.integers(1, 200),
    st.floats(0.3, 1),
    st.integers(0, 9),
)
def test_every_row_in_use_is_seen_once_an_epoch(counts, batch, window, share, seed):
    layout = Layout(counts, seed)
    keep = rng.generator(seed, "keep").random(len(layout)) < share
    if keep.sum() < 2:
        with pytest.raises(ValueError, match="too few"):
            Batches(layout, batch, 3.0, seed, window=window, keep=keep)
        return
    batches = Batches(layout, batch, 3.0, seed, window=window, keep=keep)
    seen = np.concatenate([batches[i] for i in range(batches.steps)])
    for epoch in range(len(seen) // batches.total):
        assert sorted(seen[epoch * batches.total :][: batches.total]) == np.flatnonzero(keep).tolist()


def test_a_batch_is_a_pure_function_of_its_step():
    layout = Layout([50, 70, 60, 20], 3)
    batches = Batches(layout, 30, 3.0, 1, window=120)
    backwards = {i: Batches(Layout([50, 70, 60, 20], 3), 30, 3.0, 1, window=120)[i] for i in reversed(range(batches.steps))}
    assert all((batches[i] == backwards[i]).all() for i in range(batches.steps))
    assert (batches[0] != Batches(layout, 30, 3.0, 2, window=120)[0]).any()


def test_no_more_runs_are_open_than_the_window_holds():
    layout = Layout([100] * 20, 0)
    batches = Batches(layout, 40, 2.0, 0, window=450)
    for step in range(batches.steps):
        assert len(np.unique(layout.runs_of(batches[step]))) <= 8  # two windows of four where a batch straddles them
    assert {len(w) for w in windows(layout, 450, 0, 0)} == {4}


def test_a_lane_is_read_from_front_to_back():
    layout = Layout([64] * 4, 0)
    batches = Batches(layout, 32, 1.0, 0)
    rows = np.concatenate([batches[i] for i in range(batches.steps)])
    for run in range(4):
        places = layout.places(run)[rows[layout.runs_of(rows) == run] - layout.starts[run]]
        assert (np.diff(places) % 64 == 1).all()  # sequential, from a keyed place on


def test_the_next_epoch_puts_other_rows_side_by_side():
    batches = Batches(Layout([64] * 4, 0), 32, 2.0, 0)
    first = {frozenset(batches[i].tolist()) for i in range(8)}
    second = {frozenset(batches[i].tolist()) for i in range(8, 16)}
    assert not first & second


def test_documents_meet_as_rarely_as_in_an_exact_shuffle_of_the_window():
    """C(B, 2) (L - 1) / (W - 1) pairs of one document (spec), each document in one run, against a keyed bijection of all."""
    runs, size, length, batch = 16, 1024, 64, 256
    layout = Layout([size] * runs, 0)
    document = np.arange(runs * size) // length

    def pairs(rows):
        n = np.unique(document[rows], return_counts=True)[1]
        return (n * (n - 1) // 2).sum()

    for window in (4 * size, 16 * size):
        batches = Batches(layout, batch, 1.0, 0, window=window)
        found = np.mean([pairs(batches[i]) for i in range(batches.steps)])
        assert found == pytest.approx(batch * (batch - 1) / 2 * (length - 1) / (window - 1), rel=0.1)
    shuffle = rng.Bijection(runs * size, 0, "test")
    exact = np.mean([pairs(shuffle(np.arange(i, i + batch))) for i in range(0, runs * size, batch)])
    assert found == pytest.approx(exact, rel=0.1)  # the whole spool in one window


@given(st.integers(1, 5000), st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_the_bijection_is_one(n, seed):
    b = rng.Bijection(n, seed, "x")
    assert sorted(b(np.arange(n)).tolist()) == list(range(n))
    if n > 100:
        assert (b(np.arange(n)) != rng.Bijection(n, seed + 1, "x")(np.arange(n))).any()


def test_the_bijection_mixes_and_refuses_what_is_no_index():
    n = 100_003
    out = rng.Bijection(n, 0, "x")(np.arange(n))
    assert abs(np.corrcoef(np.arange(n), out)[0, 1]) < 0.01
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 0.01
    with pytest.raises(ValueError, match="no index"):
        rng.Bijection(10, 0)(np.array([10]))
    with pytest.raises(ValueError, match="bijection of 0"):
        rng.Bijection(0, 0)
