"""Two models that differ in one planted direction: where they part, the latents that carry it, and what putting them back does."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from planted_axes import axes
from planted_behaviour import DECOY, W, planted_cases, planted_model

from diascope.audits import Target, two_models
from diascope.audits.protocols.diff import DIFF
from diascope.audits.settings import AuditConfig
from diascope.audits.study import audit_of
from diascope.audits.target import Tails

STUDY = replace(DIFF, cases=planted_cases)


@pytest.fixture(scope="module")
def pair():
    silent, tuned = planted_model(0.0), planted_model(30.0)
    return Target(tuned, batch=64, rows=2048, reference=silent)


@pytest.fixture(scope="module")
def found(pair):
    return STUDY.run(pair, axes())


def test_models_part_where_the_trigger_is(found):
    first = found.findings[0]
    assert first.name == "divergence" and first.verdict == "detects"
    assert first.numbers["sides"]["marked"]["low"] > first.numbers["sides"]["plain"]["high"]
    distance = first.numbers["distance"]
    assert distance["L0.resid_post"] == 0 < distance["L1.resid_post"]


def test_the_planted_latents_are_found_and_new_in_the_target(found):
    frequency = found.findings[1]
    assert frequency.verdict == "detects" and {r["latent"] for r in frequency.numbers["latents"]} == {0, 1}
    for row in frequency.numbers["latents"]:
        assert row["rates"]["reference"] == 0 < row["rates"]["target"] and abs(row["nu"]) < 1e-6 and row["p_family"] <= 0.01
    assert max(frequency.numbers["fvu"].values()) < 1e-9


def test_putting_them_back_takes_the_difference_away(found):
    patch = found.findings[2]
    assert patch.verdict == found.verdict == "causal"
    assert patch.numbers["p"] == 1 / 202 and patch.numbers["share"] == pytest.approx(1, abs=1e-4)
    assert patch.numbers["controls"]["0.975"] == pytest.approx(0, abs=1e-6)
    assert patch.numbers["all_latents"]["value"] == pytest.approx(patch.numbers["before"]["value"], rel=1e-4)


def test_a_dictionary_that_does_not_see_it_explains_nothing(pair):
    blind = axes()
    blind.W_enc.data[W] = blind.W_enc.data[DECOY] = 0
    found = STUDY.run(pair, blind)
    assert {f.name: f.verdict for f in found.findings} == {"divergence": "detects", "frequency": "fidelity-fail"}


def test_adapters_that_are_on_are_not_compared_with_themselves(monkeypatch):
    """Adapters make the module two models in turn: nothing that was computed with them is used without, and both at once cannot be."""
    target, off = Target(planted_model(30.0), batch=64, rows=2048), []

    @contextlib.contextmanager
    def disable_adapter():
        off.append(True)
        yield
        off.pop()

    monkeypatch.setattr(type(target.model.module), "disable_adapter", lambda self: disable_adapter(), raising=False)
    Tails(target, target.prompts(planted_cases(n=12).of("plain")))
    with target.as_reference() as reference:
        assert off and reference is not None and reference.model is target.model
        assert target.prefixes.computed > 0 == reference.prefixes.computed
    assert not off
    with pytest.raises(ValueError, match="load the two models apart"):
        STUDY.run(target, axes())


def test_a_model_does_not_differ_from_itself():
    found = STUDY.run(Target(planted_model(), reference=planted_model(), batch=64), axes())
    assert found.verdict == "vacuous" and found.numbers["prevalence"]["rate"]["value"] == 0
    assert all(f.verdict == "vacuous" for f in found.findings)


def test_kl_is_that_of_the_definition(pair):
    prompts = pair.prompts(planted_cases(n=3).cases)
    a = Target(pair.reference, batch=64)
    got = two_models.divergence(a, pair, prompts)
    for p, kl in zip(prompts, got, strict=True):
        one, two = (t.model.logits([list(p.tokens)])[0].double().log_softmax(-1) for t in (a, pair))
        wanted = (one.exp() * (one - two)).sum(-1).numpy()
        assert np.allclose(kl, wanted, atol=1e-5) and len(kl) == len(p.tokens)


def test_what_cannot_be_compared_is_said(pair):
    with pytest.raises(ValueError, match="give it"):
        STUDY.run(Target(planted_model()))
    with pytest.raises(ValueError, match="at least 999"):
        STUDY.run(pair, config=AuditConfig(permutations=1))


def test_it_is_an_audit_like_others(pair, found, tmp_path):
    audit = audit_of(pair.model, [found], AuditConfig(), axes(), reference="silent")
    audit.save(tmp_path / "audit.json")
    assert audit.verdicts == {"diff": "causal"} and audit.data()["facts"]["reference"] == "silent"
