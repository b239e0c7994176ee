import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diascope import rng
from diascope.config import canonical, config_hash, from_data, to_data
from diascope.dictionaries import DictionaryConfig, Matryoshka, TopK
from diascope.numerics import Moments, ratio_over_documents, ridge, shares_over_documents
from diascope.recipes.demo import demo
from diascope.recipes.gemma_scope_2 import l0_target
from diascope.recipes.recipe import RunRecipe
from diascope.sites import KINDS, Site
from diascope.storage.files import commit_file, commit_folder


@given(st.integers(0, 99), st.sampled_from(KINDS))
def test_a_site_reads_back_from_every_dialect(layer, kind):
    site = Site(layer, kind)
    assert {Site.parse(n) for n in (str(site), site.gemma_scope(), site.transformer_lens())} == {site}


def test_multimodal_and_model_prefixes():
    assert Site.parse("model.language_model.layers.9.output") == Site(9, "resid_post")
    assert str(Site.parse("chat:L13.resid_post")) == "chat:L13.resid_post"


@pytest.mark.parametrize("name", ["blocks.3.hook_mlp_in", "blocks.3.ln2.hook_normalized", "L3.resid_mid", "", "layer 3"])
def test_a_misleading_or_unknown_site_is_refused(name):
    with pytest.raises(ValueError):
        Site.parse(name)


def test_configs_survive_json_and_hash_the_same():
    recipe = demo(1000)
    again = from_data(RunRecipe, to_data(recipe))
    assert again == recipe and config_hash(again) == config_hash(recipe)
    other = dataclasses.replace(recipe, tokens=1001)
    assert config_hash(other) != config_hash(recipe)
    config = DictionaryConfig.single(
        "m", "L1.resid_post", "L1.resid_post", 4, 4, 8, activation=TopK(3), matryoshka=Matryoshka((2, 8), (1.0, 1.0))
    )
    assert from_data(DictionaryConfig, to_data(config)) == config
    with pytest.raises(ValueError, match="newer version"):
        from_data(DictionaryConfig, to_data(config) | {"later": 1})
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_draws_depend_on_their_names_alone():
    a = rng.generator(0, "epoch", 1).permutation(10)
    rng.generator(0, "other").random(100)
    assert (a == rng.generator(0, "epoch", 1).permutation(10)).all()
    assert (a != rng.generator(1, "epoch", 1).permutation(10)).any()


@given(st.integers(1, 40))
def test_moments_merge_to_the_moments_of_all(cut):
    x = torch.randn(41, 5, generator=torch.Generator().manual_seed(cut)) * 100 + 1000
    merged, whole = Moments.of(x[:cut]).merge(Moments.of(x[cut:])), Moments.of(x)
    assert torch.allclose(merged.mean, whole.mean) and torch.allclose(merged.m2, whole.m2, rtol=1e-9)
    assert merged.mean_square == pytest.approx(float(x.double().square().sum(1).mean()))


def test_intervals_resample_documents_not_rows():
    r = np.random.default_rng(0)
    means = r.normal(size=40)
    rows = np.repeat(means, 50)  # fifty identical rows a document: the interval must be that of 40 numbers
    e = ratio_over_documents(rows, np.ones_like(rows), np.repeat(np.arange(40), 50))
    expected = 1.96 * means.std() / 40**0.5
    assert e.value == pytest.approx(means.mean()) and e.documents == 40 and e.n == 2000
    assert (e.high - e.low) / 2 == pytest.approx(expected, rel=0.15)
    assert np.isnan(ratio_over_documents(rows[:50], np.ones(50), np.zeros(50)).low)


def test_a_failed_write_leaves_nothing_under_the_final_name(tmp_path):
    with pytest.raises(RuntimeError), commit_folder(tmp_path / "a") as work:
        (work / "x").write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), commit_file(tmp_path / "b") as work:
        work.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with commit_folder(tmp_path / "a") as work:
        (work / "x").write_text("one")
    with pytest.raises(FileExistsError), commit_folder(tmp_path / "a"):
        pass
    with commit_folder(tmp_path / "a", overwrite=True) as work:
        (work / "y").write_text("two")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["y"] and len(list(tmp_path.iterdir())) == 1


def test_l0_targets_are_the_releases():
    assert [l0_target(layer, 18) for layer in (5, 9, 12, 15)] == [55, 60, 60, 60]
    assert [l0_target(layer, 26, "big") for layer in (7, 13)] == [132, 150]


def test_shares_of_latents_have_a_jackknife_interval():
    g = np.random.default_rng(0)
    counts = g.poisson(0.02, size=(60, 4000))  # 60 documents, 4,000 latents that fire 1.2 times on average
    rows = np.full(60, 50)
    dead = shares_over_documents(counts, rows, lambda c, n: c == 0, 60)
    assert dead.value == float((counts.sum(0) == 0).mean()) and dead.n == 3000 and dead.documents == 60
    truth = np.exp(-1.2)  # of latents independent of one another
    assert dead.low < truth < dead.high and 0 < dead.high - dead.low < 0.1
    one = shares_over_documents(counts[:1], rows[:1], lambda c, n: c == 0, 1)
    assert np.isnan(one.low) and np.isnan(one.high)


def test_ridge_is_least_squares_when_unpenalised():
    g = torch.Generator().manual_seed(0)
    x, A = torch.randn(200, 8, generator=g, dtype=torch.float64), torch.randn(8, 3, generator=g, dtype=torch.float64)
    assert torch.allclose(ridge(x.t() @ x, x.t() @ (x @ A), 0.0), A)
    assert ridge(x.t() @ x, x.t() @ (x @ A), 1.0).norm() < A.norm()
