"""The engine's statistics on synthetic truth: valid under the null, intervals that cover, planted latents found, decoys rejected."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from diascope.audits import statistics
from diascope.audits.gates import confound, prevalence
from diascope.numerics import discoveries


def pairs(n):
    """Labels and groups of n pairs."""
    return np.tile([True, False], n), np.repeat(np.arange(n), 2)


def test_wilson_is_the_formula():
    z, hits, n = 1.959963984540054, 7, 23
    p, middle = hits / n, (hits / n + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = statistics.wilson(hits, n)
    assert (found.value, found.n) == (p, n)
    assert found.low == pytest.approx(middle - half) and found.high == pytest.approx(middle + half)
    assert statistics.wilson(0, 0).high == 1.0
    with pytest.raises(ValueError, match="24 of 23"):
        statistics.wilson(24, 23)


def test_auroc_is_sklearns_also_with_ties_and_of_weights():
    random = np.random.default_rng(0)
    y, score = random.random(80) < 0.4, random.integers(0, 6, 80).astype(float)
    assert statistics.auroc(y, score, np.arange(80)).value == pytest.approx(roc_auc_score(y, score))
    w = random.integers(0, 4, 80)
    assert statistics.ordered(y, score)(w.astype(float)) == pytest.approx(roc_auc_score(y, score, sample_weight=w))
    with pytest.raises(ValueError, match="both labels"):
        statistics.auroc(np.ones(4, bool), np.arange(4.0), np.arange(4))


def test_a_perfect_auroc_still_has_an_interval():
    y, groups = pairs(12)
    found = statistics.auroc(y, y.astype(float), groups)
    assert found.value == found.high == 1.0 and 0.7 < found.low < 0.8


@pytest.mark.parametrize("kind", ["pairs", "whole groups", "mixed"])
def test_permutations_keep_what_they_must(kind):
    if kind == "pairs":
        y, groups = pairs(9)
    elif kind == "whole groups":
        groups = np.repeat(np.arange(10), 3)
        y = groups % 2 == 0
    else:
        groups, y = np.array([2, 0, 1, 0, 2, 1, 2, 0]), np.array([1, 1, 0, 0, 1, 1, 0, 0], bool)
    drawn = statistics.permutations(y, groups, draws=200)
    for g in np.unique(groups):
        ones = drawn[:, groups == g].sum(1)
        assert (np.isin(ones, (0, 3)) if kind == "whole groups" else ones == y[groups == g].sum()).all()
    assert (drawn.sum(1) == y.sum()).all()
    assert len({tuple(row) for row in drawn.tolist()}) > 10
    assert (
        abs(drawn.mean(0) - (0.5 if kind != "mixed" else [2 / 3, 1 / 3, 1 / 2, 1 / 3, 2 / 3, 1 / 2, 2 / 3, 1 / 3])).max() < 0.15
    )


def test_p_values_are_valid_under_the_null():
    """P(p <= alpha) <= alpha, also for the largest of many correlated latents: the search is paid for."""
    y, groups = pairs(14)
    family, single = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        x = random.standard_normal((28, 12)) @ random.standard_normal((12, 25)) + np.repeat(
            random.standard_normal((14, 25)), 2, 0
        )
        found = statistics.search(x, y, groups, draws=99, seed=seed)
        family.append(found.p_family.min())
        single.append(found.p[0])
    for alpha in (0.05, 0.1, 0.2):
        noise = 3 * np.sqrt(alpha * (1 - alpha) / 300)
        assert np.mean(np.array(family) <= alpha) <= alpha + noise
        assert np.mean(np.array(single) <= alpha) <= alpha + noise
    assert np.mean(np.array(family) <= 0.2) > 0.1  # nor is it blind


def test_planted_latents_are_found_and_decoys_rejected():
    """Latents 3 and 40 follow the label; 7 is a decoy that follows the group, 9 one that is merely large."""
    y, groups = pairs(40)
    random = np.random.default_rng(1)
    x = np.where(random.random((80, 400)) < 0.1, random.exponential(1.0, (80, 400)), 0.0)
    x[:, 3] = np.where(y, random.exponential(2.0, 80), x[:, 3])
    x[:, 40] = np.where(~y, random.exponential(2.0, 80), x[:, 40])
    x[:, 7], x[:, 9] = groups % 5, 50 * random.random(80)
    found = statistics.search(csr_matrix(x), y, groups)
    assert set(np.flatnonzero(found.p_family <= 0.05)) == {3, 40}
    assert set(np.flatnonzero(found.q <= 0.05)) >= {3, 40} and not {7, 9} & set(np.flatnonzero(found.q <= 0.05))
    assert found.statistic[3] > 0 > found.statistic[40]
    dense = statistics.search(x, y, groups)
    assert np.allclose(dense.p_family, found.p_family) and np.allclose(dense.statistic, found.statistic)


def test_discoveries_are_benjamini_and_hochbergs():
    p = np.array([0.01, 0.04, 0.03, 0.5])
    assert discoveries(p) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert len(discoveries(np.array([]))) == 0


def t_interval(values, groups):
    """The exact one, of means of groups of one size."""
    each = values.reshape(groups.max() + 1, -1).mean(1)
    half = t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each))
    return each.mean() - half, each.mean() + half


@pytest.mark.parametrize("n", [12, 40])
def test_intervals_of_means_cover(n):
    """Means of clusters of two: 93 to 97 % of 95 % intervals hold the truth, at the size of a test part and of a whole set."""
    groups, random, held, exact = np.repeat(np.arange(n), 2), np.random.default_rng(n), 0, 0
    for _ in range(1500):
        values = np.repeat(random.standard_normal(n), 2) + random.standard_normal(2 * n) + 3
        found = statistics.mean(values, groups)
        low, high = t_interval(values, groups)
        held, exact = held + (found.low <= 3 <= found.high), exact + (low <= 3 <= high)
    assert 0.93 <= held / 1500 <= 0.97 and abs(held - exact) / 1500 <= 0.01


@pytest.mark.parametrize("n", [12, 40])
def test_intervals_of_auroc_cover(n):
    y, groups = pairs(n)
    truth, held, random = 0.7602, 0, np.random.default_rng(n)  # Phi(1 / sqrt 2): two normals of variance 1, means 1 apart
    for _ in range(500):
        shared = 0.7 * np.repeat(random.standard_normal(n), 2)
        score = y + shared + np.sqrt(1 - 0.49) * random.standard_normal(2 * n)
        found = statistics.auroc(y, score, groups)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 500 <= 0.97, held / 500


def test_p_value_never_is_zero():
    assert statistics.p_value(5.0, np.zeros(199)) == 1 / 200
    assert statistics.p_value(0.0, np.zeros(199)) == 1.0


# -- gates -----------------------------------------------------------------------------------------------------------------
def events(positive, negative, twin=()):
    """Events, labels and groups of len(positive) groups."""
    columns = {"p": positive, "n": negative} | ({"t": twin} if len(twin) else {})
    labels = [name for name in columns for _ in positive]
    return (
        np.concatenate([np.asarray(c, bool) for c in columns.values()]),
        labels,
        [str(i) for _ in columns for i in range(len(positive))],
    )


@pytest.mark.parametrize(
    ("positive", "negative", "outcome"),
    [
        ([1] * 1 + [0] * 39, [0] * 40, "vacuous"),
        ([1] * 8 + [0] * 32, [0] * 40, "underpowered"),  # a fifth, as declared
        ([1] * 25 + [0] * 15, [0] * 40, "shown"),
        ([1, 0] * 20, [0, 1] * 20, "noise"),  # switches both ways
        ([1] * 4, [1] * 4, "underpowered"),  # nobody at risk
    ],
)
def test_prevalence(positive, negative, outcome):
    found = prevalence(*events(positive, negative), ("p", "n"), 0.2)
    assert found.outcome == outcome
    assert found.rate.n == sum(1 - x for x in negative)


def test_twins_that_show_it_too_are_a_confound():
    positive, negative = [1] * 10 + [0] * 6, [0] * 15 + [1]
    same = confound(*events(positive, negative, [1] * 9 + [0] * 7), ("p", "n"), "t")
    assert same.found and same.share == pytest.approx(8 / 9)
    assert not confound(*events(positive, negative, [1] * 2 + [0] * 14), ("p", "n"), "t").found
