"""The evaluator against direct formulas, and the flaws that other evaluators have."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diascope.dictionaries import Dictionary
from diascope.edits import Edit
from diascope.evals import evaluate
from diascope.evals.controls import controls
from diascope.evals.text import EvalText
from diascope.models.toy import toy_model
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()


@pytest.fixture(scope="module")
def sequences(toy):
    r = np.random.default_rng(0)
    docs = [Document(f"d{i}", " ".join(r.choice(WORDS, 12))) for i in range(40)]
    return pack(toy, docs, context=64, max_tokens=64 * 20)


@pytest.fixture
def rows(toy, sequences):
    text = EvalText(toy, sequences)
    return lambda d: tuple(text.capture([d.site_in, d.site_out])[s] for s in (d.site_in, d.site_out))


def test_counted_rows_and_predictions(toy, sequences):
    text = EvalText(toy, sequences)
    for s in range(len(sequences)):
        for t in range(64):
            token, doc = sequences.tokens[s, t], sequences.document[s, t]
            counted = doc >= 0 and token not in toy.special_ids
            assert bool(text.rows[s, t]) == counted
            follows = t + 1 < 64 and sequences.document[s, t + 1] >= 0 and sequences.positions[s, t + 1] != 0
            assert bool(text.predicts[s, t]) == (counted and follows)


def test_losses_equal_a_plain_forward_pass(toy, sequences):
    """Cross-entropy and KL of the packed, chunked, stacked evaluator against one document at a time."""
    text = EvalText(toy, sequences)
    site = "L2.resid_post"
    text.remember(2)
    clean = text.hidden()
    from diascope.sites import Site

    edit = Edit(Site.parse(site), Site.parse(site), lambda _, y: y * 0.5)
    with toy.edit(edit):
        halved = text.hidden()
    ours = text.losses(clean, {"half": halved}, chunk=7)
    ce, kl = [], []
    for s in range(len(sequences)):
        for start in np.flatnonzero((sequences.positions[s] == 0) & (sequences.document[s] >= 0)):
            length = int(np.argmax(sequences.document[s, start:] != sequences.document[s, start])) or 64 - start
            ends = [p for p in range(1, length) if sequences.positions[s, start + p] == 0]
            ids = torch.from_numpy(sequences.tokens[s, start : start + (ends[0] if ends else length)]).long()
            base = F.log_softmax(toy.logits(ids[None])[0].double(), -1)
            with toy.edit(edit):
                other = F.log_softmax(toy.logits(ids[None])[0].double(), -1)
            ce += (-other[1:-1].gather(1, ids[2:, None])).squeeze(1).tolist()
            kl += (base.exp() * (base - other)).sum(-1)[1:-1].tolist()
    assert len(ce) == len(ours["half"].ce)
    assert np.mean(ce) == pytest.approx(float(ours["half"].ce.mean()), abs=1e-5)
    assert np.mean(kl) == pytest.approx(float(ours["half"].kl.mean()), abs=1e-5)
    assert float(ours["clean"].kl.abs().max()) == 0


def test_losses_of_a_bfloat16_model_are_those_of_float64_products(sequences):
    """Factors that are bfloat16 are multiplied as such, but no logit is rounded to it."""
    model = toy_model()
    model.module.to(torch.bfloat16)
    text = EvalText(model, sequences)
    clean = text.hidden()
    other = clean * 0.5
    assert clean.dtype == torch.bfloat16
    ours = text.losses(clean, {"half": other})
    base, half = (F.log_softmax(h.double() @ model.unembedding.double().t(), -1) for h in (clean, other))
    ce = -half.gather(1, text.targets[:, None]).squeeze(1)
    assert torch.allclose(ours["half"].ce.double(), ce, atol=2e-5)
    assert torch.allclose(ours["half"].kl.double(), (base.exp() * (base - half)).sum(-1), atol=2e-5)
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"


def test_metrics_follow_their_definitions(toy, sequences, rows, make_dictionary):
    d = make_dictionary()
    result = evaluate(toy, {"d": d}, sequences, training_rows=rows, ce_tokens=10**6)["d"]
    m = result.metrics["dictionary"]
    y = EvalText(toy, sequences).capture([d.site_out])[d.site_out].double()
    y_hat = d(y.float()).double()
    assert m["fvu"].value == pytest.approx(float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum()), rel=1e-5)
    assert m["l0"].value == pytest.approx(float(d.encode(y.float()).counts.float().mean()))
    assert (
        m["fvu"].n == len(y)
        and m["fvu"].documents == len(set(sequences.document[sequences.document >= 0])) > 20
        and m["fvu"].low < m["fvu"].value < m["fvu"].high
    )
    fired = (d.encode(y.float()).dense() > 0).double().mean(0)
    assert m["dead"].value == pytest.approx(float((fired == 0).double().mean()))
    assert m["dense"].value == pytest.approx(float((fired > 0.1).double().mean()))
    mean = result.metrics["mean"]
    assert mean["recovered"].value == 0 and mean["fvu"].value == pytest.approx(1.0, abs=1e-6)
    expected = (mean["ce"].value - m["ce"].value) / (mean["ce"].value - result.metrics["clean"]["ce"].value)
    assert m["recovered"].value == pytest.approx(expected)
    assert result.card()["facts"]["ablation"].startswith("mean vector")


def test_a_perfect_dictionary_costs_nothing(toy, sequences, rows, make_dictionary):
    """Latents +-x_i: an exact autoencoder by construction."""
    base = make_dictionary()
    eye = torch.eye(32)
    tensors = {
        "W_enc": torch.cat([eye, -eye], 1), "W_dec": torch.cat([eye, -eye]), "b_enc": torch.zeros(64),
        "b_dec": torch.zeros(32), "threshold": torch.zeros(64),
    }  # fmt: skip
    m = evaluate(toy, {"d": Dictionary(base.config, tensors)}, sequences, training_rows=rows)["d"].metrics["dictionary"]
    assert m["fvu"].value < 1e-10 and abs(m["delta_ce"].value) < 1e-5
    assert m["recovered"].value == pytest.approx(1, abs=1e-4) and m["top1"].value == 1


def test_controls_are_what_they_say(toy, rows, make_dictionary):
    d = make_dictionary(kind="transcoder", skip=True)
    x, y = rows(d)
    maps = controls(d, x, y)
    assert set(maps) == {"mean", "pca", "token_pca", "random", "ridge"}
    error = {k: float((y - f(x, y)).square().sum()) for k, f in maps.items()}
    assert error["token_pca"] < error["pca"] < error["mean"] and error["ridge"] < error["mean"]
    _u, s, _v = torch.linalg.svd((y - y.mean(0)).double(), full_matrices=False)
    best = float(s[8:].square().sum())  # Eckart-Young: no 8-dimensional subspace does better
    assert error["pca"] == pytest.approx(best, rel=1e-4)
    solution = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1).double(), y.double()).solution
    exact = float((y.double() - torch.cat([x, torch.ones(len(x), 1)], 1).double() @ solution).square().sum())
    assert exact <= error["ridge"] < exact * 1.02


def test_a_dictionary_of_another_width_is_refused(toy, sequences, make_dictionary):
    with pytest.raises(ValueError, match=r"width 16 at L2\.resid_post, but toy-gemma3_text has 32"):
        evaluate(toy, {"d": make_dictionary(d=16)}, sequences)


def test_a_dimension_that_never_varies_counts_nothing():
    from types import SimpleNamespace

    from diascope.evals.clean import Frame
    from diascope.numerics import Moments

    def share(y, y_hat):
        clean = SimpleNamespace(moments={"a site": Moments.of(y)}, usual=lambda *_: 1.0)
        frame = Frame(clean, ("a site",))
        return frame.squares(y.double() - y_hat)[1].sum() / frame.squares(y.double() - frame.mean)[1].sum()

    y = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    y_hat = y * 0.9
    before = share(y, y_hat)
    y[:, 3], y_hat[:, 3] = 7.0, 7.001
    assert share(y, y_hat) == pytest.approx(before, rel=0.2)


def test_parts_by_position_and_text_average_to_the_whole(toy, sequences, make_dictionary):
    """Weighted by squared deviation the parts' FVUs, and weighted by predictions their losses, are the whole's."""
    domains = {n: "even" if int(n[1:]) % 2 == 0 else "odd" for n in sequences.names}
    found = evaluate(toy, {"d": make_dictionary()}, sequences, ce_tokens=256, domains=domains)["d"]
    by, whole = found.card()["by"], found.metrics["dictionary"]
    assert set(by) == {"position", "domain"} and set(by["domain"]) == {"even", "odd"} and "1-15" in by["position"]
    s, text = found.series["dictionary"], EvalText(toy, sequences)
    assert len(s.error) < len(text.documents) / 4 and s.rows.sum() == len(text.documents)  # sums by document and stretch
    even = np.array([domains[sequences.names[i]] == "even" for i in s.documents])
    assert by["domain"]["even"]["fvu"]["value"] == pytest.approx(s.error[even].sum() / s.variance[even].sum())
    for group in by.values():
        assert sum(p["fvu"]["n"] for p in group.values()) == int(text.rows.sum())
        n = [p["delta_ce"]["n"] for p in group.values() if "delta_ce" in p]
        ce = [p["delta_ce"]["value"] for p in group.values() if "delta_ce" in p]
        assert np.average(ce, weights=n) == pytest.approx(whole["delta_ce"].value)


def test_roles_are_parts_of_their_own(toy, sequences):
    from dataclasses import replace

    from diascope.evals.breakdown import parts
    from diascope.evals.sums import Cells

    role = np.where(sequences.positions < 10, 4, 5).astype(np.int8)
    spoken = replace(sequences, role=role)
    found = parts(Cells(spoken, spoken.rows(toy)), {})
    assert set(found["role"]) == {"user", "assistant"}
    assert "domain" not in found
