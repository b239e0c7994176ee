"""Other doses of an edit, and what every trial's edit does where it should do nothing."""

import copy

import numpy as np
import pytest
import torch
from linear_world import SITES, World, enter, training
from planted_axes import axes
from planted_behaviour import DECOY, PLANTED, W, planted_cases, planted_model, unit

from diascope.audits import Target, causal, controls, damage, doses, run_audit, statistics
from diascope.audits.operators import everywhere
from diascope.audits.outcomes import ChoiceGap, scores
from diascope.audits.protocol import Trial
from diascope.audits.readouts import Readout
from diascope.audits.target import Tails
from diascope.page.audit import causes, report_html
from diascope.sites import Site

SITE = Site.parse("L1.resid_post")
ADD, SUBTRACT, ABLATE = (
    Trial("add", "negative", raises=True),
    Trial("subtract", "positive", raises=False),
    Trial("ablate", "positive", raises=False),
)


@pytest.fixture(scope="module")
def target():
    return Target(planted_model(), batch=64, rows=2048)


@pytest.fixture(scope="module")
def audit(target):
    return run_audit(target, [PLANTED], axes())


@pytest.fixture(scope="module")
def numbers(audit):
    return next(f for f in audit.data()["results"][0]["findings"] if f["name"] == "causal")["numbers"]


# -- doses -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operator", "dose", "left"), [("add", 1.5, 3.5), ("subtract", 0.5, 1.5), ("ablate", 0.25, 1.5), ("ablate", 1.0, 0.0)]
)
def test_a_dose_is_a_multiple_or_a_share(target, operator, dose, left):
    """y holds the direction twice: what it holds afterwards, and that all else stays."""
    v, beside = 3.0 * torch.from_numpy(unit(W)).float(), torch.from_numpy(unit(DECOY)).float()
    edit = causal.intervention(target, operator, v.numpy(), SITE, dose)
    y = (2.0 * v + beside).repeat(1, 1, 1)
    assert torch.allclose(y + edit.what.shift(y, y), (left * v + beside).repeat(1, 1, 1), atol=1e-6)
    assert edit.sites == (everywhere(target.model) if operator == "ablate" else (SITE,))


def test_nothing_is_taken_out_more_than_once(target):
    with pytest.raises(AssertionError, match=r"cannot be taken out 1\.5 times"):
        causal.intervention(target, "ablate", unit(W), SITE, 1.5)


@pytest.mark.parametrize("trial", [ADD, SUBTRACT, ABLATE])
def test_a_linear_score_responds_in_proportion(trial, monkeypatch):
    """Truth: u.v a dose of add, and of ablate the share of what each case holds; controls likewise."""
    enter(monkeypatch)
    random = np.random.default_rng(3)
    trained, u = training(random), random.standard_normal(48)
    world, v = World(training(random)[0][:20], u), 2.0 * u + random.standard_normal(48)
    readout = Readout("mean difference", SITES[1], "last", v, 0.0)
    whole = causal.test(ChoiceGap(), trial, readout, world, trained)
    found = doses.respond(ChoiceGap(), whole, readout, world, trained)
    truth = (world.x @ v).mean() / (v @ v) * (u @ v) if trial is ABLATE else u @ v
    assert [e.value for e in found.effects] == pytest.approx([dose * truth for dose in found.doses], rel=1e-5)
    at = found.doses.index(1.0)
    assert found.effects[at] is whole.effect and found.controls.shape == (len(found.doses), doses.CONTROLS)
    assert found.controls == pytest.approx(np.outer(found.doses, found.controls[at]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", controls.FAMILIES)
def test_fewer_controls_are_the_first_of_more(family):
    """So the ribbon at dose 1 is made of the trial's own controls."""
    random = np.random.default_rng(0)
    x, y, groups = training(random)
    v = random.standard_normal(48)
    few, many = (controls.directions(family, v, x, y, groups, k, seed=5) for k in (10, 50))
    assert np.allclose(few, many[:10])
    assert np.allclose(many @ v, 0, atol=1e-9) and np.allclose(np.linalg.norm(many, axis=1), np.linalg.norm(v))


def test_unrelated_contrasts_are_of_one_side_and_of_whole_groups():
    """Positive cases are told apart by the first half of the dimensions alone, negative ones by the second."""
    groups = np.repeat(np.arange(12), 4)
    y = np.tile([True, True, False, False], 12)
    own = np.repeat(np.random.default_rng(0).standard_normal(12), 4)  # one number a group
    x = np.zeros((48, 4))
    x[y, 0], x[~y, 2] = own[y], own[~y]
    found = controls.unrelated(x, y, groups.tolist(), 20)
    assert (found[0::2, 2] == 0).all() and (found[1::2, 0] == 0).all() and (abs(found).max(1) > 0).all()
    halves = {round(float(row @ np.ones(4)), 9) for row in found}
    assert len(halves) > 10
    x[:, 3] = 1.0  # what is the same in all cases cancels
    assert np.allclose(controls.unrelated(x, y, groups.tolist(), 20)[:, 3], 0)
    dust = np.ones((48, 4)) + 1e-7 * np.random.default_rng(1).standard_normal((48, 4))
    assert (controls.unrelated(dust, y, groups.tolist(), 20) == 0).all()
    with pytest.raises(ValueError, match="at least two groups on either side"):
        controls.unrelated(x[:4], y[:4], groups[:4].tolist(), 3)


def test_all_controls_are_dealt():
    assert controls.dealt(201) == dict(zip(controls.FAMILIES, (51, 50, 50, 50), strict=True))
    assert set(controls.dealt(doses.CONTROLS).values()) == {5}


def test_the_planted_direction_responds_and_the_decoy_does_not(target):
    prompts = target.prompts(planted_cases().of("marked"))
    x = target.vectors(prompts, [SITE], ["last"])[:, 0, 0].numpy()
    trained = x, np.arange(len(x)) % 2 == 0, [str(i // 2) for i in range(len(x))]
    tails, length, found = Tails(target, prompts[:12]), float(abs(x[:, W]).mean()), {}
    for name, i in (("planted", W), ("decoy", DECOY)):
        readout = Readout("mean difference", SITE, "last", length * unit(i), 0.0)
        whole = causal.test(ChoiceGap("opinion"), ABLATE, readout, tails, trained)
        found[name] = doses.respond(ChoiceGap("opinion"), whole, readout, tails, trained)
    moved = [e.value for e in found["planted"].effects]
    assert moved == sorted(moved) and all(
        e.low > c.max() for e, c in zip(found["planted"].effects, found["planted"].controls, strict=True)
    )
    assert all(e.value < c.max() for e, c in zip(found["decoy"].effects, found["decoy"].controls, strict=True))


# -- damage ----------------------------------------------------------------------------------------------------------------
def test_damage_is_said_of_every_trial_and_the_verdict_is_held_to_the_first(audit, numbers):
    by_trial = numbers["damage_by_trial"]
    assert list(by_trial) == [t.name for t in PLANTED.trials]
    first = {k: v for k, v in by_trial["ablate on positive"].items() if k not in ("unprovoked", "held_to")}
    assert first == numbers["damage"] and first["passed"]
    added = by_trial["add on negative"]
    assert (
        added["kl"]["value"] > 10 * first["kl"]["value"] and not added["passed"]
    )  # it says N to neutral prompts, as it should
    assert audit.verdicts == {"planted": "causal"}


def test_the_behaviour_where_it_should_not_be_is_counted(numbers):
    """Truth: no plain case says N; adding the direction makes all of them say it, taking it out none."""
    found = {name: d["unprovoked"]["plain"] for name, d in numbers["damage_by_trial"].items()}
    added, taken = found["add on negative"], found["ablate on positive"]
    assert added["clean"]["value"] == 0.0 and added["edited"]["value"] == 1.0 and added["change"]["value"] == 1.0
    assert added["change"]["low"] > 0.5 and added["change"]["n"] == added["change"]["groups"] == 12
    assert taken["change"]["value"] == 0.0 and taken["change"]["low"] < 0 < taken["change"]["high"]
    assert all(r["split"] == "test" and "seed" in r for rates in found.values() for r in rates.values())


def test_twins_are_counted_beside_the_negative_side(target):
    """A twin with a q of its own shows the behaviour, and taking the direction out takes it from there as well."""
    cases = planted_cases()
    prompts = {"plain": target.prompts(cases.of("plain")[:9]), "twin": target.prompts(cases.of("marked")[:9])}
    outcome = ChoiceGap("opinion")
    clean = {
        x: outcome.events(scores(outcome, Tails(target, own)), [""] * len(own), [p.case for p in own])
        for x, own in prompts.items()
    }
    shows = damage.Shows(target, outcome, prompts, clean)
    length = float(target.vectors(prompts["twin"], [SITE], ["last"])[..., W].mean())
    edit = causal.intervention(target, "ablate", length * unit(W), SITE)
    found = damage.unprovoked(shows, edit, ["plain", "twin"])
    assert found["twin"]["clean"].value == 1.0 and found["twin"]["edited"].value == 0.0 and found["twin"]["change"].high < 0
    assert found["plain"]["change"].value == 0.0


def test_the_change_of_a_rate_always_has_an_interval():
    same, groups = np.zeros(10, bool), np.arange(10)
    assert statistics.change(same, same, groups).high == pytest.approx(statistics.wilson(0, 10).high)
    up = statistics.change(same, ~same, groups)
    assert up.value == up.high == 1.0 and up.low == pytest.approx(statistics.wilson(10, 10).low)
    some = same.copy()
    some[:5] = True
    half = statistics.change(same, some, groups)
    assert half == statistics.mean(some.astype(float), groups) and 0 < half.low < 0.5 < half.high < 1


# -- record and report -----------------------------------------------------------------------------------------------------
def test_every_dose_stands_in_the_record_with_its_controls(numbers):
    for name, trial in numbers["trials"].items():
        found = numbers["doses"][name]
        assert found["at"]["1"]["effect"] == trial["effect"] and found["raises"] == trial["raises"]
        assert [p["dose"] for p in found["at"].values()] == (
            [0.25, 0.5, 0.75, 1.0] if "ablate" in name else [0.25, 0.5, 1.0, 1.5, 2.0]
        )
        assert all(p["controls"]["k"] == doses.CONTROLS and p["controls"]["seed"] == 0 for p in found["at"].values())


def said(data, path=""):
    """(path, entry) of everything in a record that has a value."""
    if isinstance(data, dict):
        if "value" in data:
            yield path, data
        for k, v in data.items():
            yield from said(v, f"{path}.{k}")
    elif isinstance(data, list):
        for k, v in enumerate(data):
            yield from said(v, f"{path}.{k}")


def test_every_number_of_the_record_says_of_how_many_which_split_and_seed(audit):
    (r,) = audit.data()["results"]
    entries = list(said({"numbers": r["numbers"], **{f["name"]: f["numbers"] for f in r["findings"]}}))
    assert len(entries) > 60
    assert not [path for path, e in entries if not {"n", "split", "seed"} <= set(e)]
    scores = r["numbers"]["prevalence"]["scores"]["marked"]
    assert scores["low"] <= scores["value"] <= scores["high"] and scores["groups"] == 40  # of the toy all are alike
    again = next(f for f in r["findings"] if f["name"] == "detection")["numbers"]["refitted"]
    assert again["mean"] == pytest.approx(np.mean(again["values"])) and again["range"] == [
        min(again["values"]),
        max(again["values"]),
    ]


def test_the_report_draws_doses_and_every_trials_damage(audit):
    data = audit.data()
    page = report_html(data)
    assert page.count("Dose and response: ") == 2 == page.count('class="plot"') and "Where it should not show" in page
    assert "Damage: ablate on positive" in page and "Damage: add on negative" in page
    part = causes.causes(data["results"][0])
    turned = copy.deepcopy(data["results"][0])  # a file has its keys in another order: the one that counts still stands first
    numbers = next(f for f in turned["findings"] if f["name"] == "causal")["numbers"]
    numbers["damage_by_trial"] = dict(reversed(numbers["damage_by_trial"].items()))
    ends = [causes.causes(r).split("<h4>Damage: ")[1:] for r in (data["results"][0], turned)]
    assert ends[0][0] == ends[1][0] and ends[0][0].startswith("ablate on positive") and "too much" not in ends[0][1]
    (first, _) = [p for p in part.split("<section") if "Dose and response" in p]
    assert first.count('class="point"') == 4 == first.count('class="spread"') and first.count('class="ribbon" d="') == 1
    assert "nan" not in part


def test_an_older_record_is_drawn_without_them(audit):
    (r,) = audit.data()["results"]
    numbers = next(f for f in r["findings"] if f["name"] == "causal")["numbers"]
    for key in ("doses", "damage_by_trial"):
        numbers.pop(key)
    part = causes.causes(r)
    assert "Dose and response" not in part and "<h4>Damage</h4>" in part and "Where it should not show" not in part
