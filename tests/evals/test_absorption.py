"""Absorption against a slow float64 derivation from the definition (tests/oracles/absorption.py), on latents whose absorption is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.evals import absorption as module
from diascope.evals.absorption import Absorption, absorption
from diascope.evals.spelling import Words
from diascope.evals.subject import Once
from diascope.sites import Site
from oracles.absorption import absorption as slowly
from oracles.absorption import differences

SITE = Site.parse("L2.resid_post")
LETTERS, EACH, MOST = 26, 40, 4
D = LETTERS * (1 + MOST)
CHILD = LETTERS  # dimension 26 + 4 n + k is the k-th rare feature of letter n


def planted(rare, *, noise=0.05, seed=0):
    """(x, letters, test, which words are to be absorbed): every word has 3 along its letter; each of `rare(n)` features of letter n
    is in one training and one test word, at 3."""
    r = np.random.default_rng(seed)
    letter = np.repeat(np.arange(LETTERS), EACH)
    number = np.tile(np.arange(EACH), LETTERS)
    test, k = number % 5 == 4, number // 5
    absorbed = (k < np.array([rare(n) for n in letter])) & (test | (number % 5 == 0))
    x = noise * r.normal(size=(len(letter), D)) + 0.3
    x[np.arange(len(letter)), letter] += 3
    x[absorbed, CHILD + MOST * letter[absorbed] + k[absorbed]] += 3
    return x.astype(np.float32), letter, test, absorbed


def hierarchy():
    """Latent n fires on words of letter n, but not on those with a rare feature, whose latent writes the letter as well."""
    W_enc, W_dec = torch.eye(D), torch.eye(D)
    for n in range(LETTERS):
        for child in range(CHILD + MOST * n, CHILD + MOST * (n + 1)):
            W_enc[child, n], W_dec[child, n] = -1.2, 1  # which is then not of unit length
    return dictionary(W_enc, W_dec, torch.ones(D))


def dictionary(W_enc, W_dec, threshold):
    S = W_enc.shape[1]
    config = DictionaryConfig.single("toy", str(SITE), str(SITE), D, D, S, l0_target=4.0)
    zero = {"b_enc": torch.zeros(S), "b_dec": torch.zeros(D)}
    return Dictionary(config, zero | {"W_enc": W_enc, "W_dec": W_dec, "threshold": threshold})


def both(monkeypatch, d, x, letter, test):
    """(our entry, the oracle's letters)."""
    words = Words(tuple("word" for _ in letter), tuple(range(len(letter))), letter, test, ())
    monkeypatch.setattr(module, "words_of", lambda *a, **k: words)
    monkeypatch.setattr(module, "read", lambda *a: {SITE: torch.from_numpy(x)})
    entry = absorption(SimpleNamespace(model=None, once=Once()), d, Absorption(letters=1))
    tensors = (t.detach().numpy() for t in (d.W_enc, d.b_enc, d.threshold, d.W_dec))
    return entry, slowly(x, letter, test, *tensors)


def test_known_absorption_is_found_by_both(monkeypatch):
    x, letter, test, absorbed = planted(lambda n: (0, 2, 4)[n % 3])
    entry, slow = both(monkeypatch, hierarchy(), x, letter, test)
    assert len(slow) == LETTERS and differences(dict(entry.details), slow) < 1e-6
    for n, found in slow.items():
        own = test & (letter == n)
        assert found.main == [n] and found.words == own.sum()
        assert found.absorption == found.full == pytest.approx(absorbed[own].mean()) == (0, 2, 4)[n % 3] / 8
    assert entry.result["absorption"].value == pytest.approx(np.mean([f.absorption for f in slow.values()]))


@pytest.mark.parametrize("seed", range(2))
def test_both_agree_where_main_latents_are_split_and_absorption_is_partial(monkeypatch, seed):
    """Latents leak, split and overlap at random: every branch of the definition is taken by some word."""
    r = torch.Generator().manual_seed(seed)
    x, letter, test, absorbed = planted(lambda n: 4, noise=0.4, seed=seed)
    k = np.tile(np.arange(EACH) // 5 + 1, LETTERS) % MOST
    x[absorbed, CHILD + MOST * letter[absorbed] + k[absorbed]] += 3  # two rare features: two latents absorb the word together
    base = hierarchy()
    base.W_dec[CHILD:, :LETTERS] *= 0.4
    W_enc = torch.cat([base.W_enc, base.W_enc[:, :LETTERS]], 1)  # each letter twice
    weak = -1.2 * torch.rand(D - CHILD, 2 * LETTERS, generator=r)  # silent on some words with a rare feature, weak on others
    W_enc[CHILD:, [*range(LETTERS), *range(D, D + LETTERS)]] *= -weak
    W_enc += 0.05 * torch.randn(W_enc.shape, generator=r)
    W_dec = torch.cat([base.W_dec, base.W_dec[:LETTERS]]) + 0.05 * torch.randn(D + LETTERS, D, generator=r)
    W_dec *= 0.5 + torch.rand(D + LETTERS, 1, generator=r)
    d = dictionary(W_enc.contiguous(), W_dec, 1 + 2.5 * torch.rand(D + LETTERS, generator=r))
    entry, slow = both(monkeypatch, d, x, letter, test)
    assert differences(dict(entry.details), slow) < 1e-5
    parts = [f.absorption for f in slow.values() if f.absorption is not None]
    assert any(len(f.main) > 1 for f in slow.values()) and len({round(p, 3) for p in parts}) > 5


def test_the_comparison_can_fail(monkeypatch):
    x, letter, test, _ = planted(lambda n: 2)
    entry, slow = both(monkeypatch, hierarchy(), x, letter, test)
    details = {k: dict(v) for k, v in entry.details.items()}
    details["b"]["absorption"] += 1e-3
    assert differences(details, slow) == pytest.approx(1e-3)
    details["b"]["main"] = [7]
    assert differences(details, slow) == float("inf")
