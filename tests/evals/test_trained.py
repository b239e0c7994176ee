"""Controls that take training: what stays random stays so, what is learned helps, and the suite puts them beside every number."""

import numpy as np
import pytest
import torch

from diascope.dictionaries import Dictionary, DictionaryConfig, Joint, Matryoshka
from diascope.evals import Budget, evaluate, kept, random_weights, rows_of, trained, trained_controls
from diascope.evals.probe_sets import Task
from diascope.evals.probing import Probing
from diascope.evals.removal import Removal
from diascope.evals.suite import Defect, Tier, run_suite
from diascope.evals.trained import NAMES
from diascope.sites import Site
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()
SITE = Site.parse("L2.resid_post")
BUDGET = Budget(tokens=64 * 24, steps=60, batch=128)


def text_of(model, name, sequences=24):
    r = np.random.default_rng(len(name))
    documents = [Document(f"{name}{i}", " ".join(r.choice(WORDS, 14))) for i in range(80)]
    return pack(model, documents, context=64, max_tokens=64 * sequences)


@pytest.fixture(scope="module")
def beside(toy):
    g = torch.Generator().manual_seed(0)
    dictionaries = {"sae": sae(g), "same shape": sae(g), "transcoder": sae(g, "L2.mlp_in", "L2.mlp_out"), "both": crosscoder(g)}
    return dictionaries, trained_controls(toy, dictionaries, text_of(toy, "training"), BUDGET)


def sae(g, read="L2.resid_post", written="L2.resid_post", S=64):
    c = DictionaryConfig.single("toy", read, written, 32, 32, S, matryoshka=Matryoshka((16, S), (1.0, 1.0)), l0_target=8.0)
    tensors = {"W_enc": torch.randn(32, S, generator=g) / 6, "W_dec": torch.randn(S, 32, generator=g) / 6}
    return Dictionary(c, tensors | {"b_enc": torch.zeros(S), "b_dec": torch.zeros(32), "threshold": torch.full((S,), 0.3)})


def crosscoder(g):
    sites = ("L1.resid_post", "L2.resid_post")
    c = DictionaryConfig("toy", sites, sites, (32, 32), (32, 32), 16, Joint(), l0_target=4.0)
    tensors = {"W_enc": torch.randn(64, 16, generator=g) / 8, "W_dec": torch.randn(16, 64, generator=g) / 8}
    return Dictionary(c, tensors | {"b_enc": torch.zeros(16), "b_dec": torch.zeros(64), "threshold": torch.full((16,), 0.3)})


def test_random_weights_are_new_draws_of_the_same_spread_and_embeddings_stay(toy):
    other = random_weights(toy, seed=3)
    before, after = dict(toy.module.named_parameters()), dict(other.module.named_parameters())
    stay = [n for n in before if "embed" in n or before[n].ndim < 2]
    moved = [n for n in before if n not in stay]
    assert len(moved) == 4 * 7 and all(before[n] is after[n] for n in stay)  # seven matrices a block; shared, not copied
    for n in moved:
        a, b = before[n].detach(), after[n].detach()
        assert float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs()) < 0.15
        assert float(b.std()) == pytest.approx(float(a.std()), rel=0.1)
    again, another = random_weights(toy, seed=3), random_weights(toy, seed=4)
    x = [m.capture("the cat sat", SITE)[SITE] for m in (other, again, another, toy)]
    assert torch.equal(x[0], x[1]) and not torch.allclose(x[0], x[2]) and not torch.allclose(x[0], x[3])


def test_the_frozen_decoder_is_the_random_one_and_all_else_is_learned(toy, monkeypatch):
    d = {"d": sae(torch.Generator().manual_seed(0))}
    short, long = (
        trained_controls(toy, d, text_of(toy, "training"), Budget(64 * 24, steps, 128))["d"] for steps in (1, BUDGET.steps)
    )
    frozen, first = long["frozen_decoder"].dictionary, short["frozen_decoder"].dictionary
    assert torch.allclose(frozen.W_dec, first.W_dec, atol=1e-6) and not torch.allclose(frozen.W_enc, first.W_enc, atol=1e-2)
    assert not torch.allclose(long["retrained"].dictionary.W_dec, short["retrained"].dictionary.W_dec, atol=1e-2)


def test_shapes_share_their_controls_and_several_sites_have_none(beside):
    dictionaries, found = beside
    assert set(found) == set(dictionaries) and tuple(found["sae"]) == NAMES and found["both"] == {}
    assert found["sae"]["retrained"].dictionary is found["same shape"]["retrained"].dictionary
    assert found["transcoder"]["retrained"].dictionary is not found["sae"]["retrained"].dictionary
    assert found["sae"]["random_model"].model is not None and found["sae"]["frozen_decoder"].model is None
    c = found["transcoder"]["frozen_decoder"].dictionary.config
    assert c.kind == "transcoder" and c.d_sae == 64 and c.matryoshka == Matryoshka((16, 64), (1.0, 1.0))


def test_they_stand_in_the_card_with_what_can_be_said(toy, beside):
    dictionaries, controls = beside
    sequences, fit = text_of(toy, "another text", 12), rows_of(toy, text_of(toy, "training"))
    found = evaluate(toy, dictionaries, sequences, training_rows=fit, beside=controls, ce_tokens=64 * 4)
    m = found["sae"].metrics
    fvu = {row: m[row]["fvu"].value for row in ("retrained", "frozen_decoder", "random", "mean")}
    assert (
        fvu["retrained"] < fvu["frozen_decoder"] < fvu["random"] < fvu["mean"]
    )  # learned encoders help, learned decoders more
    for row in ("retrained", "frozen_decoder"):
        assert 4 < m[row]["l0"].value < 16 and m[row]["kl"].value > 0 and "dead" in m[row]
    other = m["random_model"]
    assert {"fvu", "fvu_standardised", "l0", "dead", "dense"} <= set(other) and "delta_ce" not in other
    model, d = controls["sae"]["random_model"].model, controls["sae"]["random_model"].dictionary
    alone = evaluate(model, {"d": d}, sequences, ce_tokens=64)["d"].metrics["dictionary"]
    assert other["fvu"] == alone["fvu"] and other["l0"] == alone["l0"]
    assert found["same shape"].metrics["retrained"] == m["retrained"] and "retrained" not in found["both"].metrics
    assert found["both"].card()["metrics"]["dictionary"]["fvu"]["value"] > 0


def test_what_was_trained_is_kept_for_these_weights_this_text_and_this_shape(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("DIASCOPE_HOME", str(tmp_path))
    monkeypatch.setattr(kept, "SMALL", 0)
    steps = []
    inner = trained._trained
    monkeypatch.setattr(trained, "_trained", lambda *a: (steps.append(a[3]), inner(*a))[1])
    small, g = Budget(64 * 8, 3, 32), torch.Generator().manual_seed(0)
    d, text = sae(g), text_of(toy, "training", 8)
    first = trained_controls(toy, {"d": d}, text, small)["d"]
    again = trained_controls(toy, {"other": sae(g)}, text, small)["other"]
    assert steps == list(NAMES)
    for name in NAMES:
        assert torch.equal(first[name].dictionary.W_enc, again[name].dictionary.W_enc)
    x = [c["random_model"].model.capture("the cat", SITE)[SITE] for c in (first, again)]
    assert torch.equal(*x)
    trained_controls(toy, {"d": d}, text_of(toy, "another", 8), small)
    trained_controls(toy, {"d": sae(g, S=32)}, text, small)
    trained_controls(toy, {"d": d}, text, small, keep=False)
    assert len(steps) == 4 * len(NAMES)


def tasks(toy):
    """Prompts that end in one of two letters, as a probing task and as a concept to remove."""
    r = np.random.default_rng(0)
    prompts = ["".join(r.choice(list("cdefghij"), 8)) + f"{i:03d}" + "ab"[i % 2] for i in range(120)]
    return Task("letters", tuple(prompts), np.arange(120) % 2)


def test_the_suite_puts_them_beside_its_own_numbers(toy, beside, monkeypatch):
    from diascope.evals import removal, suite

    dictionaries, controls = beside
    monkeypatch.setattr(suite, "load_task", lambda *a, **k: tasks(toy))
    monkeypatch.setattr(removal, "load_task", lambda *a, **k: tasks(toy))
    chosen = Tier(Probing(("letters",), 60, 40, (1, 3)), Removal(("letters",), 60, 40, 3), tokens=512)
    families = ("geometry", "probing", "removal")
    two = {n: dictionaries[n] for n in ("sae", "same shape")}
    calls = []
    inner = suite.probing
    monkeypatch.setattr(suite, "probing", lambda *a, **k: (calls.append(k["alone"]), inner(*a, **k))[1])
    found = run_suite(toy, two, text_of(toy, "another text", 12), chosen, families=families, beside=controls)
    names = {"retrained", "frozen decoder", "random model"}
    for entries in found.values():
        assert names <= set(entries["probing"].controls) and names <= set(entries["geometry"].controls)
        assert set(entries["probing"].controls["frozen decoder"]) == set(entries["probing"].result)
        assert entries["removal"].controls["random model"].keys() == entries["removal"].result.keys()
    assert calls.count(True) == 3 and calls.count(False) == 2  # the same three stand beside both
    assert found["sae"]["probing"].controls["retrained"] is found["same shape"]["probing"].controls["retrained"]
    own = inner(run_subject(controls["sae"]["random_model"]), controls["sae"]["random_model"].dictionary, chosen.probing,
                tasks=[tasks(toy)], alone=True)  # fmt: skip
    theirs = found["sae"]["probing"].controls["random model"]
    assert {k: v.value for k, v in own.result.items()} == {k: v.value for k, v in theirs.items()}
    less = run_suite(toy, two, text_of(toy, "another text", 12), chosen, families=("geometry",))
    assert not names & set(less["sae"]["geometry"].controls)


def run_subject(control):
    from diascope.evals.subject import Subject

    return Subject(control.model, [control.dictionary])


def test_a_reason_is_no_failure_and_a_failure_no_reason(toy, beside, monkeypatch):
    """What cannot be measured says why; a defect stops the suite, after the other families, whose entries it holds."""
    from diascope.evals import suite
    from diascope.evals.entry import Unmeasurable

    two = {"a": beside[0]["sae"], "b": beside[0]["sae"]}
    text = text_of(toy, "another text", 12)

    def unmeasurable(*a, **k):
        raise Unmeasurable("there is no package here")

    monkeypatch.setattr(suite, "load_task", unmeasurable)
    found = run_suite(toy, two, text, Tier(tokens=512), families=("probing", "geometry"))
    assert found["a"]["probing"].run["reason"] == "there is no package here" and found["a"]["probing"].result == {}
    assert found["b"]["geometry"].result
    for error in (ValueError, RuntimeError, KeyError):

        def broken(*a, error=error, **k):
            raise error("index out of range")

        monkeypatch.setattr(suite, "load_task", broken)
        with pytest.raises(Defect, match=r"2 of the suite's.*probing of a: \w+: .*index out of range") as caught:
            run_suite(toy, two, text, Tier(tokens=512), families=("probing", "geometry"))
        assert isinstance(caught.value.__cause__, error)
        assert set(caught.value.found["a"]) == {"geometry"} and caught.value.found["b"]["geometry"].result


def test_packages_that_cannot_be_had_are_reasons(monkeypatch):
    from diascope.evals import entry
    from diascope.evals.entry import Unmeasurable
    from diascope.evals.ravel import cities

    def offline(*a, **k):
        raise RuntimeError("could not download it: is the index reachable?")

    monkeypatch.setattr(entry, "fetch", offline)
    with pytest.raises(Unmeasurable, match="is the index reachable"):
        cities(3)


def test_the_command_writes_them_into_the_card_and_can_leave_them_out(toy, make_dictionary, tmp_path, monkeypatch, capsys):
    import json

    from diascope.cli.judge import Eval
    from diascope.dictionaries import save_dictionary
    from diascope.evals import suite

    toy.module.save_pretrained(tmp_path / "toy")
    toy.tokenizer.save_pretrained(tmp_path / "toy")
    save_dictionary(make_dictionary(), tmp_path / "d")
    r = np.random.default_rng(0)
    for name in ("text", "fit"):
        lines = [json.dumps({"id": f"{name}{i}", "text": " ".join(r.choice(WORDS, 14))}) for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    common = {"model": str(tmp_path / "toy"), "text": str(tmp_path / "text.jsonl"), "fit_text": str(tmp_path / "fit.jsonl")}
    common |= {"context": 64, "tokens": 512, "ce_tokens": 128, "tier": "ci", "families": ("geometry",)}
    Eval((str(tmp_path / "d"),), **common).run()
    card = json.loads((tmp_path / "d/card.json").read_text())
    assert set(NAMES) <= set(card["metrics"]) and card["facts"]["trained_controls"]["steps"] == 20
    assert card["suite"]["geometry"]["controls"]["frozen decoder"]["redundancy"] > 0
    page = (tmp_path / "d/card.html").read_text()
    assert "frozen random decoder" in page and "of a random-weight model" in page
    Eval((str(tmp_path / "d"),), trained_controls=False, json=tmp_path / "all.json", **common).run()
    card = json.loads((tmp_path / "all.json").read_text())[str(tmp_path / "d")]
    assert not set(NAMES) & set(card["metrics"]) and "trained_controls" not in card["facts"]

    def broken(*a, **k):
        raise KeyError("a defect")

    monkeypatch.setattr(suite, "geometry", broken)
    with pytest.raises(suite.Defect, match="a defect"):  # what was measured before is written all the same
        Eval((str(tmp_path / "d"),), trained_controls=False, **common).run()
    card = json.loads((tmp_path / "d/card.json").read_text())
    assert card["metrics"]["dictionary"] and card["suite"] == {}
