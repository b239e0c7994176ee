"""Paired comparisons against exact enumeration, and what may not be compared."""

import io
import itertools
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import false_discovery_control, permutation_test, wilcoxon

from diascope.cli.compare import Compare, comparison_table
from diascope.dictionaries import save_dictionary
from diascope.evals import Evaluation, Series, evaluate
from diascope.evals.compare import METRICS, compare, holm, not_comparable, notes, sign_flips
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()
FACTS = {
    "kind": "sae", "sites_in": ["L2.resid_post"], "sites_out": ["L2.resid_post"], "model": "toy", "text": "a text", "tokens": 0, "documents": 0,
    "predictions": 0, "data": "0",
}  # fmt: skip


def judged(name, effect, *, documents=12, seed=0, facts=None, **more):
    """An evaluation whose errors and losses are `effect` above a common part."""
    common, r = np.random.default_rng(0), np.random.default_rng([1, seed])
    n = documents * 20
    of = np.repeat(np.arange(documents), 20)
    variance = common.gamma(2.0, size=n)
    hard = common.gamma(2.0, size=documents)[of]
    error = 0.1 * variance * hard + effect + 0.02 * r.normal(size=n)
    delta = 0.2 * hard + effect + 0.02 * r.normal(size=n)
    series = Series(error, variance, error, variance, of, delta, of, **more)
    return Evaluation(name, {"dictionary": {}}, FACTS | (facts or {}), {"dictionary": series})


def test_sign_flips_count_every_pattern_where_they_can():
    r = np.random.default_rng(0)
    for n in range(1, 12):
        d = np.round(r.normal(0.3, 1.0, n), 1)
        sums = [abs(np.dot(s, d)) for s in itertools.product((-1, 1), repeat=n)]
        p, exact = sign_flips(d)
        assert exact and p == pytest.approx(np.mean([s >= abs(d.sum()) - 1e-9 for s in sums]))
        if n > 1 and abs(d.sum()) > 1e-9:
            theirs = permutation_test((d,), lambda x: x.sum(), permutation_type="samples", n_resamples=np.inf)
            assert p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert sign_flips(np.zeros(5)) == (1.0, True)
    assert sign_flips(np.array([0.3]))[0] == 1.0  # one document says nothing


def test_drawn_sign_flips_agree_with_the_exact_ones_and_are_never_zero():
    d = np.random.default_rng(3).normal(0.5, 1.0, 13)
    exact, whole = sign_flips(d)
    drawn, part = sign_flips(d, draws=4000)
    assert whole and not part and drawn == pytest.approx(exact, abs=4 * (exact / 4000) ** 0.5)
    assert sign_flips(np.ones(60), draws=500)[0] == 1 / 501
    assert sign_flips(d, draws=4000, seed=1)[0] != drawn == sign_flips(d, draws=4000)[0]


def test_p_values_of_no_effect_are_uniform():
    r = np.random.default_rng(5)
    p = np.array([sign_flips(r.normal(size=10))[0] for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=3 * (level * (1 - level) / 400) ** 0.5)


def test_holm_is_the_step_down_procedure():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
    r = np.random.default_rng(0)
    for _ in range(20):
        p = r.uniform(size=6)
        found = np.array(holm(list(p)))
        assert (found >= p).all() and (found <= np.minimum(1, 6 * p) + 1e-12).all()  # never past Bonferroni
        assert (np.diff(found[np.argsort(p)]) >= 0).all()
        assert (found >= false_discovery_control(p) - 1e-12).all()  # Holm controls more than the false discovery rate


def test_a_difference_that_single_intervals_hide_is_found():
    """Documents differ by far more than the dictionaries; paired they do not."""
    a, b = judged("a", 0.0), judged("b", 0.02, seed=1)
    found = compare(a, b)
    m = found.metrics["delta_ce"]
    assert m.a.high > m.b.low and m.difference.high < 0  # single intervals overlap, the paired one excludes 0
    assert m.difference.value == pytest.approx(m.a.value - m.b.value)
    assert m.exact and m.p_raw == 2 / 2**12 and m.p == pytest.approx(3 * m.p_raw) and m.p_wilcoxon < 0.01
    d = np.array([
        (a.series["dictionary"].delta_ce - b.series["dictionary"].delta_ce)[20 * i : 20 * i + 20].mean() for i in range(12)
    ])  # fmt: skip
    assert m.p_wilcoxon == pytest.approx(3 * wilcoxon(d).pvalue)
    back = compare(b, a).metrics["delta_ce"]
    assert back.difference.value == pytest.approx(-m.difference.value) and back.p == m.p


def test_no_difference_is_rarely_a_finding_and_intervals_hold_0():
    """Over 60 pairs without an effect: about 5 % of p values below 0.05 and of intervals without 0, and fewer after Holm."""
    found = [compare(judged("a", 0.0, seed=2 * i), judged("b", 0.0, seed=2 * i + 1)) for i in range(60)]
    ms = [c.metrics["delta_ce"] for c in found]
    assert sum(m.p_raw <= 0.05 for m in ms) <= 8 and sum(m.p <= 0.05 for m in ms) <= 4
    assert sum(not m.difference.low < 0 < m.difference.high for m in ms) <= 11  # 12 documents: the bootstrap is a little narrow
    same = compare(judged("a", 0.0), judged("a", 0.0))
    assert all(m.p == m.p_wilcoxon == 1.0 and m.difference.value == 0 for m in same.metrics.values())


def test_fvu_of_other_targets_is_left_out_and_said():
    a = judged("a", 0.0)
    b = judged("b", 0.1, facts={"kind": "transcoder", "sites_in": ["L2.mlp_in"], "sites_out": ["L2.mlp_out"]})
    found = compare(a, b)
    assert "fvu" in found.left_out and "L2.mlp_out" in found.left_out["fvu"] and "fvu_standardised" in found.left_out
    assert "delta_ce" in found.metrics and any("sites differ" in note for note in found.notes)
    assert "l0" in found.left_out and "not measured" in found.left_out["l0"]  # these series have none
    two_models = FACTS | {"sites_out": ["chat:L2.resid_post", "base:L2.resid_post"], "kind": "crosscoder"}
    assert "different models" in not_comparable("delta_ce", FACTS, two_models)
    assert not not_comparable("l0", FACTS, two_models) and notes(FACTS, FACTS) == ()


def test_other_tokens_are_refused():
    a, b = judged("a", 0.0), judged("b", 0.0, documents=11)
    with pytest.raises(ValueError, match="same tokens"):
        compare(a, b)
    with pytest.raises(ValueError, match="same tokens"):
        compare(a, judged("b", 0.0, facts={"data": "1"}))
    with pytest.raises(ValueError, match="draws"):
        compare(a, a, draws=0)


def test_two_dictionaries_of_one_call(toy, make_dictionary):
    r = np.random.default_rng(0)
    documents = [Document(f"d{i}", " ".join(r.choice(WORDS, 12))) for i in range(12)]
    sequences = pack(toy, documents, context=64, max_tokens=64 * 10)
    dictionaries = {"a": make_dictionary(), "b": make_dictionary(seed=1), "t": make_dictionary(kind="transcoder")}
    found = evaluate(toy, dictionaries, sequences, ce_tokens=10**6)
    pair = compare(found["a"], found["b"])
    for metric, p in pair.metrics.items():
        for side, name in ((p.a, "a"), (p.b, "b")):
            assert side == found[name].metrics["dictionary"][metric]
    assert tuple(pair.metrics) == METRICS and not pair.left_out
    text = Console(width=200, record=True, file=io.StringIO())
    text.print(comparison_table(compare(found["a"], found["t"])))
    said = text.export_text()
    assert "not compared: FVU, they stand for different vectors" in said and "ΔCE" in said
    data = pair.data()
    assert data["schema"] == "diascope-comparison-1" and set(data["a_minus_b"]) == set(pair.metrics)


def test_the_command_compares_two_folders(toy, make_dictionary, tmp_path, capsys):
    toy.module.save_pretrained(tmp_path / "toy")
    toy.tokenizer.save_pretrained(tmp_path / "toy")
    for name, seed in (("a", 0), ("b", 1)):
        save_dictionary(make_dictionary(seed=seed), tmp_path / name)
    r = np.random.default_rng(0)
    lines = [json.dumps({"id": str(i), "text": " ".join(r.choice(WORDS, 12))}) for i in range(20)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    common = {
        "model": str(tmp_path / "toy"),
        "text": str(tmp_path / "text.jsonl"),
        "context": 64,
        "tokens": 640,
        "ce_tokens": 320,
    }
    Compare(str(tmp_path / "a"), str(tmp_path / "b"), json=tmp_path / "out.json", **common).run()
    found, said = json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out
    assert set(found["a_minus_b"]) == set(METRICS) and found["facts"]["tokens"] > 300
    assert "ΔCE" in said and "Wilcoxon" in said
    for wrong, why in ((("a", "a"), "two dictionaries"), (("a", "none"), "none")):
        with pytest.raises(ValueError, match=why):
            Compare(*(str(tmp_path / n) for n in wrong), **common).run()
    with pytest.raises(ValueError, match="folder"):
        Compare(str(tmp_path / "a"), str(tmp_path / "b"), json=tmp_path, **common).run()
