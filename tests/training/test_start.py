"""Members that start from finished dictionaries: the fold undone, duplicates dropped, late starts from other members."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from diascope.activations import beside
from diascope.dictionaries import (
    BatchTopK,
    Causal,
    Dictionary,
    DictionaryConfig,
    Gated,
    JumpReLU,
    Matryoshka,
    ReLU,
    TopK,
    load_dictionary,
    save_dictionary,
)
from diascope.sites import Site
from diascope.training import MemberRecipe, TrainingRecipe, train_group
from diascope.training.export import calibrate, fold
from diascope.training.loop import Group
from diascope.training.start import unfold

IN, OUT, IN2, OUT2 = (str(Site(layer, kind)) for layer in (1, 10) for kind in ("mlp_in", "mlp_out"))
ALL = np.arange(4000)
SHAPES = {
    "sae": {"sites_in": IN, "sites_out": IN},
    "skip-transcoder": {"sites_in": IN, "sites_out": OUT, "skip": True},
    "clt": {"sites_in": (IN, IN2), "sites_out": (OUT, OUT2), "map": Causal(), "skip": True},
    "crosscoder": {"sites_in": (IN, IN2), "sites_out": (IN, IN2), "map": Causal()},
}


def member(name="m", shape="sae", activation=None, **more):
    settings = {"d_sae": 64, "matryoshka": Matryoshka((16, 64), (1.0, 1.0)), "l0_target": 4.0, **SHAPES[shape], **more}
    return MemberRecipe(name, activation=activation or BatchTopK(4), **settings)


def training(*members, **run):
    settings = {"epochs": 4, "batch": 256, "lr": 3e-3, "lr_warmup": 5, "l0_warmup": 10, "beta2": 0.99, **run}
    return TrainingRecipe(members, **settings)


@pytest.mark.parametrize("activation", [BatchTopK(4), TopK(4), JumpReLU(0.05), ReLU(), Gated()], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_fold_then_unfold_is_the_identity(reader, tmp_path, shape, activation):
    recipe = member(shape=shape, activation=activation)
    group = Group(training(recipe), reader, tmp_path / "a", "toy")
    assert group.run(lambda *_: None, lambda: False)
    trained = group.members[0]
    calibrate(trained, group._sample(recipe.reads, 2048))
    before = fold(trained, "toy")
    other = Group(training(recipe, seed=5), reader, tmp_path / "b", "toy").members[0]
    x = beside(reader, recipe.reads, ALL)
    unfold(other, [before], x)
    if isinstance(activation, BatchTopK):
        other.rule.theta = trained.rule.theta  # its thresholds are made by calibration, not carried along
    after = fold(other, "toy")
    for name, tensor in before.tensors().items():
        scale = float(tensor.abs().max()) + 1e-6
        assert float((after.tensors()[name] - tensor).abs().max()) < 1e-5 * scale, name


def test_a_start_in_other_scales_is_still_the_same_map(reader, tmp_path):
    first = train_group(training(member()), reader, tmp_path / "a", model="toy")[0]
    other = Group(training(member(metric_power=0.3)), reader, tmp_path / "b", "toy").members[0]
    x = beside(reader, (Site.parse(IN),), ALL)
    assert not torch.allclose(other.scale_in, torch.ones(16))
    unfold(other, [first.dictionary], x)
    other.rule.theta = first.dictionary.threshold / _lengths(other, first.dictionary)
    again = fold(other, "toy")
    d = first.dictionary
    sure = ((d.pre_acts(x) - d.threshold).abs() > 1e-5 * float(x.abs().max())).all(1)  # rounding decides the others
    assert int((~sure).sum()) < 0.01 * len(x)
    assert torch.allclose(again(x[sure]), d(x[sure]), rtol=1e-3, atol=1e-3 * float(x.abs().max()))
    assert other.rule.first == pytest.approx(float(first.dictionary.encode(x).counts.float().mean()), rel=1e-6)


def _lengths(m, d):
    return 1 / (d.W_dec / m.scale_out).norm(dim=1)


def single(site, directions, bias=0.0):
    """An SAE whose latents read and write the given unit directions."""
    n, d = directions.shape
    config = DictionaryConfig.single("toy", site, site, d, d, n)
    tensors = {"W_enc": directions.t().clone(), "W_dec": directions.clone(), "b_enc": torch.full((n,), bias),
               "b_dec": torch.full((d,), 0.5), "threshold": torch.full((n,), 0.25)}  # fmt: skip
    return Dictionary(config, tensors)


def test_a_multi_layer_start_writes_what_its_single_layers_write(reader, tmp_path):
    g = torch.Generator().manual_seed(0)
    singles = [single(site, normalize(torch.randn(32, 16, generator=g), dim=1)) for site in (IN, IN2)]
    recipe = member(shape="crosscoder", activation=JumpReLU(0.05))
    m = Group(training(recipe), reader, tmp_path, "toy").members[0]
    x = beside(reader, recipe.reads, ALL)
    unfold(m, singles, x)
    together = torch.cat([d(part) for d, part in zip(singles, x.split(16, 1), strict=True)], 1)
    assert torch.allclose(fold(m, "toy")(x), together, rtol=1e-3, atol=1e-3 * float(x.abs().max()))
    parts = zip(singles, x.split(16, 1), strict=True)
    assert m.rule.first == pytest.approx(sum(float(d.encode(p).counts.float().mean()) for d, p in parts), rel=1e-3)


def test_later_latents_that_an_earlier_layer_writes_are_dropped(reader, tmp_path):
    g = torch.Generator().manual_seed(0)
    early = torch.linalg.qr(torch.randn(16, 16, generator=g))[0]  # orthonormal rows
    late = torch.cat([early[:4], normalize(torch.randn(4, 16, generator=g), dim=1)])  # the first four are the early layer's
    recipe = member(shape="crosscoder", d_sae=8, matryoshka=None)
    m = Group(training(recipe), reader, tmp_path, "toy").members[0]
    unfold(m, [single(IN, early[:8]), single(IN2, late)], beside(reader, recipe.reads, ALL))
    kept = fold(m, "toy").decoders[1]
    assert torch.allclose(kept, late[4:], atol=1e-5)
    assert torch.allclose(fold(m, "toy").decoders[0][:, :16], early[:4], atol=1e-5)  # the first layer keeps its first latents


def test_fine_tuning_goes_on_from_the_dictionary_and_its_identity_is_the_start_s(reader, tmp_path):
    first = train_group(training(member(), epochs=20), reader, tmp_path / "a", model="toy")[0]
    save_dictionary(first.dictionary, tmp_path / "d", probe=first.probe)
    tuned = training(member(start=str(tmp_path / "d")), lr=1e-3, epochs=2, l0_warmup=0)
    x = beside(reader, (Site.parse(IN),), ALL)
    group = Group(tuned, reader, tmp_path / "b", "toy")
    rule = group.members[0].rule
    l0 = float(load_dictionary(tmp_path / "d").encode(x).counts.float().mean())
    assert rule.first == pytest.approx(l0, rel=0.2) and rule.aim(0.0) == rule.first and rule.aim(1.0) == 4.0
    stats = group._one_step()["m"]
    scratch = Group(training(member()), reader, tmp_path / "c", "toy")._one_step()["m"]
    assert stats.fvu < 0.5 * scratch.fvu
    group.save()
    other = train_group(training(member(), epochs=20, seed=3), reader, tmp_path / "e", model="toy")[0]
    save_dictionary(other.dictionary, tmp_path / "d", probe=other.probe, overwrite=True)
    with pytest.raises(ValueError, match="another recipe or other rows"):
        Group(tuned, reader, tmp_path / "b", "toy")
    assert torch.isfinite(first.dictionary(x)).all()


def late_group(**run):
    singles = [member(f"s{i}", sites_in=site, sites_out=site, d_sae=64) for i, site in enumerate((IN, IN2))]
    multi = member("multi", "crosscoder", begins=0.5, start=("member:s0", "member:s1"))
    return training(*singles, multi, **{"beta1": 0.9, **run})


def test_a_member_starts_late_from_the_members_and_resumes_exactly(reader, tmp_path):
    whole = Group(late_group(), reader, tmp_path / "whole", "toy")
    assert whole.run(lambda *_: None, lambda: False)
    for cut in (30, 31, 32):  # before, at and after the first step of the late member (60 steps of 62)
        folder = tmp_path / f"cut{cut}"
        stopping = Group(late_group(), reader, folder, "toy")
        assert not stopping.run(lambda *_: None, lambda s=stopping, c=cut: s.step >= c)
        again = Group(late_group(), reader, folder, "toy")
        assert again.step == cut and again.run(lambda *_: None, lambda: False)
        for a, b in zip(whole.members, again.members, strict=True):
            for name, tensor in a.state().items():
                assert torch.equal(tensor, b.state()[name]), (cut, a.recipe.name, name)
    alone = Group(replace(late_group(), members=late_group().members[:2]), reader, tmp_path / "alone", "toy")
    assert alone.run(lambda *_: None, lambda: False)
    for a, b in zip(alone.members, whole.members, strict=False):  # the snapshot leaves the others as they were
        for name, tensor in a.state().items():
            assert torch.equal(tensor, b.state()[name]), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"start": "member:nobody", "begins": 0.5}, "must exist and begin earlier"),
        ({"start": "member:other"}, "must exist and begin earlier"),
        ({"start": ("member:other", "folder"), "begins": 0.5}, "one or the other"),
    ],
)
def test_a_start_that_cannot_be_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        training(member("other"), member(**change))


def test_a_start_that_breaks_leaves_the_others_training(reader, tmp_path):
    singles = [member(f"s{i}", sites_in=site, sites_out=site, activation=TopK(4)) for i, site in enumerate((IN, IN2))]
    multi = member("multi", "crosscoder", begins=0.5, start=("member:s0", "member:s1"))
    trained = train_group(training(*singles, multi), reader, tmp_path, model="toy")
    assert [t.recipe.name for t in trained] == ["s0", "s1"]
    assert "no thresholds" in json.loads((tmp_path / "checkpoint" / "state.json").read_text())["failed"]["multi"]


def test_starts_of_other_sites_or_with_a_skip_that_would_be_lost_are_refused(reader, tmp_path):
    g = torch.Generator().manual_seed(0)
    singles = [single(site, normalize(torch.randn(32, 16, generator=g), dim=1)) for site in (IN2, IN)]
    recipe = member(shape="crosscoder")
    m = Group(training(recipe), reader, tmp_path / "a", "toy").members[0]
    with pytest.raises(ValueError, match="in the order of the sites"):
        unfold(m, singles, beside(reader, recipe.reads, ALL))
    m = Group(training(member(sites_in=IN2, sites_out=IN2)), reader, tmp_path / "b", "toy").members[0]
    with pytest.raises(ValueError, match="its start reads L1"):
        unfold(m, [single(IN, normalize(torch.randn(64, 16), dim=1))], beside(reader, (Site.parse(IN2),), ALL))
    plain = train_group(training(member("t", "skip-transcoder")), reader, tmp_path / "c", model="toy")[0].dictionary
    recipe = member(shape="clt", skip=False)
    m = Group(training(recipe), reader, tmp_path / "d", "toy").members[0]
    with pytest.raises(ValueError, match="would be lost"):
        unfold(m, [plain, plain], beside(reader, recipe.reads, ALL))


def test_a_latent_that_writes_nothing_does_no_harm(reader, tmp_path):
    d = single(IN, normalize(torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), dim=1))
    d.W_dec[3] = 0
    group = Group(training(member()), reader, tmp_path, "toy")
    x = beside(reader, (Site.parse(IN),), ALL)
    unfold(group.members[0], [d], x)
    assert torch.allclose(group.members[0].decoders[0].norm(dim=1), torch.ones(64), atol=1e-5)
    assert np.isfinite(group._one_step()["m"].fvu) and torch.isfinite(group.members[0].decoders[0]).all()


def test_a_start_of_another_shape_is_refused(reader, tmp_path):
    d = single(IN, normalize(torch.randn(32, 16), dim=1))
    m = Group(training(member()), reader, tmp_path, "toy").members[0]
    with pytest.raises(ValueError, match="another shape: d_sae is 32 there and 64 here"):
        unfold(m, [d], beside(reader, (Site.parse(IN),), ALL))
    with pytest.raises(ValueError, match="1 layers and 2 dictionaries"):
        unfold(m, [d, d], beside(reader, (Site.parse(IN),), ALL))
    clt = replace(member(shape="crosscoder"), d_sae=128, matryoshka=None)
    m = Group(training(clt), reader, tmp_path / "b", "toy").members[0]
    with pytest.raises(ValueError, match="with 64 latents, and its start there reads 16 with 32"):
        unfold(m, [d, d], beside(reader, clt.reads, ALL))
