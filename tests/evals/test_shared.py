"""What dictionaries of one site share in a suite is computed once, and gives the numbers that each would have alone."""

import numpy as np
import pytest
import torch

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.evals import absorption as spelling
from diascope.evals import probing as probes
from diascope.evals import ravel as moving
from diascope.evals import removal as removing
from diascope.evals.absorption import Absorption
from diascope.evals.probe_sets import Task
from diascope.evals.probing import Probing
from diascope.evals.ravel import City, Ravel
from diascope.evals.removal import Removal
from diascope.evals.spelling import Words
from diascope.evals.subject import Once, Subject


def sae(seed, layer=2, S=64):
    g = torch.Generator().manual_seed(seed)
    W = torch.nn.functional.normalize(torch.randn(S, 32, generator=g), dim=1)
    site = f"L{layer}.resid_post"
    zero = {"b_enc": torch.zeros(S), "b_dec": torch.zeros(32), "threshold": torch.full((S,), 0.2)}
    return Dictionary(
        DictionaryConfig.single("toy", site, site, 32, 32, S, l0_target=8.0), zero | {"W_enc": W.t().clone(), "W_dec": W}
    )


TWO, ELSEWHERE = (sae(1), sae(2)), sae(3, layer=1)


def counted(monkeypatch, owner, name):
    """Arguments of every call of `owner.name`, in a list that grows."""
    calls, inner = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *a, **k: (calls.append(a), inner(*a, **k))[1])
    return calls


def same(a, b):
    return a.data() == b.data()


def test_absorption_fits_the_probes_of_a_site_once(toy, monkeypatch):
    r = np.random.default_rng(0)
    letter = np.repeat(np.arange(26), 10)
    ids = np.where(r.random(260) < 0.9, 70 + letter, r.integers(4, 250, 260))  # the word's token says its letter, mostly
    words = Words(tuple("x" * 3 for _ in letter), tuple(ids.tolist()), letter, np.arange(260) % 5 == 4, ("cat", "dog"))
    monkeypatch.setattr(spelling, "words_of", lambda *a, **k: words)
    config = Absorption(letters=1)
    alone = [spelling.absorption(Subject(toy, [d]), d, config) for d in (*TWO, ELSEWHERE)]
    assert all(e.result["absorption"] is not None for e in alone)
    fits, reads = counted(monkeypatch, spelling, "_probe"), counted(monkeypatch, spelling, "read")
    subject = Subject(toy, [*TWO, ELSEWHERE])
    together = [spelling.absorption(subject, d, config) for d in (*TWO, ELSEWHERE)]
    assert len(reads) == 1 and len(fits) == 2 * 2 * 26  # letters and shuffled letters, at two sites
    assert all(map(same, alone, together)) and not same(together[0], together[1])


def test_ravel_asks_once_and_moves_whole_vectors_once_a_site(toy, monkeypatch):
    r = np.random.default_rng(0)
    places = [("Italy", "Europe"), ("Japan", "Asia"), ("Kenya", "Africa"), ("India", "Asia")] * 12
    given = [
        City("".join(r.choice(list("abcdefgh"), 4)), {"country": c, "continent": k, "language": "Thai" if i % 5 else "Urdu"})
        for i, (c, k) in enumerate(places[j] for j in r.permutation(len(places)))
    ]
    numbers = {n: i for i, n in enumerate(("Italy", "Japan", "Kenya", "India", "Europe", "Asia", "Africa", "Thai", "Urdu"))}
    ask = moving._ask

    def known(model, prompt, cities, attribute):
        a = ask(model, prompt, cities, attribute)
        answer = np.array([numbers[c.answers[attribute]] for c in cities])
        return moving._Asked(a.tokens, a.at, answer, np.ones(len(cities), bool))

    monkeypatch.setattr(moving, "_ask", known)
    config = Ravel(pairs=12, k=4, least=8, movable=0.0)
    alone = [moving.ravel(toy, d, config, given=given) for d in (*TWO, ELSEWHERE)]
    asked, halves, runs = (counted(monkeypatch, moving, n) for n in ("_ask", "_half", "next_tokens"))
    once = Once()
    together = []
    for d in (*TWO, ELSEWHERE):
        runs.clear()
        together.append((moving.ravel(toy, d, config, given=given, once=once), len(runs)))
    assert len(asked) == 3 and len(halves) == 2 * 3
    # asked 3 times, then 9 prompts with the whole vector and two groups of latents in each; the second needs the latents alone
    assert [n for _, n in together] == [3 + 27, 18, 27]
    assert all(same(a, b) for a, (b, _) in zip(alone, together, strict=True))
    other = moving.ravel(toy, TWO[0], config, given=given[:40], once=once)
    assert other.run["cities"] == 40 and len(asked) == 6  # other cities are not those that were asked before


def task(name, letters):
    r = np.random.default_rng(len(name))
    prompts = tuple("".join(r.choice(list("cdefghij"), 8)) + f"{i:03d}" + letters[i % 2] for i in range(120))
    return Task(name, prompts, np.arange(120) % 2)


@pytest.mark.parametrize("family", ["probing", "removal"])
def test_dense_probes_are_those_of_the_site_and_of_the_task(toy, monkeypatch, family):
    """Two tasks of one name do not share."""
    module = {"probing": probes, "removal": removing}[family]
    config = {"probing": Probing(train=60, test=40, ks=(1, 3)), "removal": Removal(train=60, test=40, k=3)}[family]
    tasks, others = [task("one", "ab"), task("another", "kl")], [task("one", "xy"), task("another", "kl")]
    run = getattr(module, family)
    alone = [run(Subject(toy, [d]), d, config, tasks=t) for d, t in ((TWO[0], tasks), (TWO[1], tasks), (TWO[0], others))]
    subject, fits = Subject(toy, TWO), counted(monkeypatch, module, "fit")
    together, spent = [], []
    for d, t in ((TWO[0], tasks), (TWO[1], tasks), (TWO[0], others)):
        fits.clear()
        together.append(run(subject, d, config, tasks=t))
        spent.append(len(fits))
    assert all(map(same, alone, together))
    assert spent[1] < spent[0] and spent[2] > spent[1]
