"""The direction that is tried: fitted on cases that show the behaviour against cases that do not, and chosen by what it does."""

from dataclasses import replace

import numpy as np
import pytest
from planted_behaviour import DECOY, PLANTED, W, planted_cases, planted_model, unit

from diascope.audits import Target, causal, gates, neutral, run_audit, statistics
from diascope.audits.detect import Data
from diascope.audits.outcomes import ChoiceGap
from diascope.audits.readouts import Readout
from diascope.audits.target import Tails
from diascope.sites import Site

SITE = Site.parse("L1.resid_post")
BEHAVIOUR, TOPIC = 0, 1


def overshown(n=40, seed=0):
    """Vectors of pairs whose negative case shows the behaviour in half of them: along one axis what is done, along another the topic."""
    random = np.random.default_rng(seed)
    y = np.arange(2 * n) % 2 == 0
    event = y | (random.random(2 * n) < 0.5)
    x = random.normal(0, 0.1, (2 * n, 1, 1, 16))
    x[..., BEHAVIOUR] += 2.0 * event[:, None, None]
    x[..., TOPIC] += 1.0 * y[:, None, None]
    label = np.where(y, "yes", "no")
    part = np.where(np.arange(2 * n) // 2 < n * 3 // 4, "train", "validation")
    group = np.array([str(i // 2) for i in range(2 * n)])
    return Data((), x, label, group, part, "yes", "no", "", [Site(0, "resid_post")], ["last"]), event


def test_a_direction_is_fitted_on_what_was_done():
    data, event = overshown()
    (ours,) = causal.candidates(data, event, 2)
    (by_side,) = causal.candidates(data, data.y, 2)  # as if every positive case showed it, and no negative one
    told = ours.direction[BEHAVIOUR] / ours.direction[TOPIC], by_side.direction[BEHAVIOUR] / by_side.direction[TOPIC]
    assert told[0] == pytest.approx(2.0, abs=0.15) and told[1] < 1.4
    assert ours.validation == 1.0 == by_side.validation  # neither is better at telling the sides apart


def test_groups_that_do_not_switch_are_left_out_unless_too_few_would_stay():
    y, group, rows = np.arange(20) % 2 == 0, np.arange(20) // 2, np.arange(20) < 16
    event = y.copy()
    event[[1, 4]] = ~event[[1, 4]]  # the negative case of group 0 shows it, the positive one of group 2 does not
    assert sorted(set(group[causal.telling(y, event, group, rows)])) == [1, 3, 4, 5, 6, 7]
    event[[7, 9, 11]] = True
    assert causal.telling(y, event, group, rows).tolist() == rows.tolist()


def test_labels_of_what_is_fitted_can_all_be_permuted():
    """Every row has either label in some permutation: none carries the tested contrast into its controls."""
    data, event = overshown()
    rows = causal.telling(data.y, event, data.group, data.rows("train"))
    drawn = statistics.permutations(data.y[rows], data.group[rows], draws=200)
    assert 10 <= rows.sum() < data.rows("train").sum()
    assert (0.3 < drawn.mean(0)).all() and (drawn.mean(0) < 0.7).all()


def test_the_chosen_direction_is_the_one_that_moves_and_spares_neutral_prompts():
    """The decoy is read as easily as the planted direction and moves nothing; a huge push in all of the space breaks neutral prompts."""
    target = Target(planted_model(), batch=64, rows=2048)
    prompts = {s: target.prompts(planted_cases(n=12).of(label)) for s, label in (("positive", "marked"), ("negative", "plain"))}
    sides = {s: Tails(target, p) for s, p in prompts.items()}
    length = abs(target.vectors(prompts["positive"], [SITE], ["last"])[..., W]).mean().item()
    one = lambda v, auroc: Readout("mean difference", SITE, "last", v, 0.0, auroc)  # noqa: E731
    given = [one(length * unit(DECOY), 1.0), one(length * unit(W), 0.6), one(-length * unit(W), 1.0)]
    calm = Tails(target, target.prompts(neutral.prompts()))
    tried = causal.choose(target, ChoiceGap("opinion"), PLANTED.trials, given, sides, calm, 0.1)
    assert tried[0].readout is given[1] and tried[0].kept and min(e.value for e in tried[0].moved) > 0
    assert not any(t.kept for t in tried[1:])
    none = causal.choose(target, ChoiceGap("opinion"), PLANTED.trials, given, sides, calm, -1.0)
    assert none[0].readout is given[1] and not none[0].kept  # nothing passes: the best is tried, and damage will say so


def test_what_candidates_cost_is_read_until_enough_are_kept(monkeypatch):
    """Of three shares of one direction the whole one moves most; once it is kept, no other is asked what it costs."""
    target = Target(planted_model(), batch=64, rows=2048)
    prompts = {s: target.prompts(planted_cases(n=12).of(label)) for s, label in (("positive", "marked"), ("negative", "plain"))}
    sides, calm = {s: Tails(target, p) for s, p in prompts.items()}, Tails(target, target.prompts(neutral.prompts()))
    length = abs(target.vectors(prompts["positive"], [SITE], ["last"])[..., W]).mean().item()
    trials = [t for t in PLANTED.trials if t.operator != "ablate"]
    given = [Readout("mean difference", SITE, "last", share * length * unit(W), 0.0, 1.0) for share in (0.2, 1.0, 0.5)]
    asked, kl = [], gates.kl_on
    monkeypatch.setattr(gates, "kl_on", lambda *a: (asked.append(1), kl(*a))[1])
    everyone = causal.choose(target, ChoiceGap("opinion"), trials, given, sides, calm, 1e9)
    assert len(asked) == 3 and all(t.kept for t in everyone)
    asked.clear()
    monkeypatch.setattr(causal, "LISTED", 1)
    first = causal.choose(target, ChoiceGap("opinion"), trials, given, sides, calm, 1e9)
    assert len(asked) == 1 and [t.kept for t in first] == [True, False, False]
    assert [t.readout for t in first] == [t.readout for t in everyone] == [given[1], given[2], given[0]]


def test_causes_are_tried_where_the_behaviour_shows(monkeypatch):
    """Half of the groups have nothing to show: tried on all the effect is half as large, tried on the others it is whole."""
    cases = planted_cases(n=60)
    silent = {str(i) for i in range(0, 60, 2)}
    plain = {c.group: c for c in cases.of("plain")}
    kept = tuple(
        replace(c, messages=plain[c.group].messages) if c.label == "marked" and c.group in silent else c for c in cases.cases
    )
    mixed = replace(cases, cases=kept)
    found = {}
    for on in ("all", "shown"):
        protocol = replace(PLANTED, cases=lambda seed: mixed, tried_on=on, trials=PLANTED.trials[:1])
        (r,) = run_audit(Target(planted_model()), [protocol]).results
        (trial,) = next(f for f in r.findings if f.name == "causal").numbers["trials"].values()
        found[on] = trial["effect"]
    test = {g for g, p in mixed.split(0).items() if p == "test"}
    assert found["all"]["groups"] == len(test) and found["shown"]["groups"] == len(test - silent)
    assert found["shown"]["value"] > 1.5 * found["all"]["value"] > 0
