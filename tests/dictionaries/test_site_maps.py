"""Dictionaries of several sites: the blocks against dense float64 formulas, the release's folders, the replacement model."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diascope.dictionaries import (
    Causal,
    Dictionary,
    DictionaryConfig,
    Joint,
    Matryoshka,
    TopK,
    load_dictionary,
    save_dictionary,
)
from diascope.dictionaries.dictionary import tensor_shapes
from diascope.dictionaries.formats.gemma_scope_2 import folder_name
from diascope.evals import evaluate
from diascope.evals.text import EvalText
from diascope.latents.logits import neighbours, residual_directions
from diascope.models.toy import toy_model
from diascope.tokens import Document, pack

D, PER = 32, 24


def make(kind="clt", layers=(0, 1, 3), skip=False, seed=0, d=D, **choices):
    """A random dictionary over `layers`, with thresholds that let about a third of the latents through."""
    names = {"clt": ("mlp_in", "mlp_out"), "crosscoder": ("resid_post", "resid_post"), "joint": ("resid_post", "resid_post")}[
        kind
    ]
    sites = [tuple(f"L{layer}.{name}" for layer in layers) for name in names]
    widths, n = (d,) * len(layers), len(layers)
    site_map = Joint() if kind == "joint" else Causal()
    config = DictionaryConfig("toy", *sites, widths, widths, PER * n, site_map, skip=skip, l0_target=12.0, **choices)
    g = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=g) / shape[0] ** 0.5 for name, shape in tensor_shapes(config).items()}
    for name in tensors:
        if name.startswith("W_dec"):
            tensors[name] /= tensors[name].norm(dim=1, keepdim=True)
    return Dictionary(config, tensors | {"threshold": torch.rand(PER * n, generator=g)})


def dense(d, x):
    """Latents and output by dense float64 matrices with explicit zeros."""
    n, x = len(d.config.sites_in), x.double()
    f, y = [], d.b_dec.double().expand(len(x), -1).clone()
    for g in range(n):
        pre = x[:, g * D : (g + 1) * D] @ d.encoders[g].double() + d.b_enc[g * PER : (g + 1) * PER].double()
        f.append(torch.relu(pre) * (pre > d.threshold[g * PER : (g + 1) * PER].double()))
        for j in range(g, n):
            y[:, j * D : (j + 1) * D] += f[g] @ d.decoders[g][:, (j - g) * D : (j - g + 1) * D].double()
        if d.config.skip:
            y[:, g * D : (g + 1) * D] += x[:, g * D : (g + 1) * D] @ d.skips[g].double()
    return torch.cat(f, 1), y


@pytest.mark.parametrize("skip", [False, True])
def test_causal_blocks_follow_the_dense_formulas(skip):
    d = make(skip=skip)
    x = torch.randn(50, 3 * D)
    f, y = dense(d, x)
    assert torch.allclose(d.encode(x).dense().double(), f, atol=1e-5) and torch.allclose(d(x).double(), y, atol=1e-5)
    assert torch.allclose(d.encode(x[None]).dense()[0], d.encode(x).dense()) and d(x[None]).shape == (1, 50, 3 * D)
    torch.autograd.gradcheck(d.double(), (torch.randn(3, 3 * D, dtype=torch.float64, requires_grad=True),))


def test_a_later_site_never_reaches_an_earlier_one():
    d = make()
    x = torch.randn(20, 3 * D)
    other = x.clone()
    other[:, 2 * D :] = torch.randn(20, D)
    assert torch.equal(d(x)[:, : 2 * D], d(other)[:, : 2 * D]) and not torch.equal(d(x), d(other))


def test_top_k_over_several_sites_takes_the_k_largest_of_all():
    d = make(activation=TopK(7))
    x = torch.randn(30, 3 * D)
    pre = torch.cat([d.pre_acts(x, g) for g in range(3)], 1)
    top = pre.topk(7, dim=1)
    expected = torch.zeros_like(pre).scatter(1, top.indices, top.values.clamp_min(0))
    assert torch.allclose(d.encode(x).dense(), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["clt", "crosscoder"])
def test_the_releases_layer_files_in_numeric_order(tmp_path, kind):
    layers = tuple(range(12))  # layer 10 comes after layer 2, though "10" < "2"
    d = make(kind, layers, skip=kind == "clt")
    folder = save_dictionary(d, tmp_path / folder_name(d.config), format="gemma-scope-2")
    third = load_file(folder / "params_layer_2.safetensors")
    assert third["w_dec"].shape == (PER, 12, D) and not third["w_dec"][:, :2].any() and third["w_dec"][:, 2:].abs().min() > 0
    assert torch.equal(third["w_dec"][:, 2:].reshape(PER, -1), d.decoders[2]) and torch.equal(
        third["b_dec"], d.b_dec[2 * D : 3 * D]
    )
    again = load_dictionary(folder)
    x = torch.randn(9, 12 * D)
    assert torch.equal(again(x), d(x)) and again.config.kind == kind and again.config.reads == d.config.reads
    ours = load_dictionary(save_dictionary(again, tmp_path / "ours"))
    assert all(torch.equal(a, b) for a, b in zip(ours.tensors().values(), d.tensors().values(), strict=True))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "params_layer_1.safetensors").unlink(), "lacks params_layer_1.safetensors of 3 layers"),
        (lambda f: (f / "params_layer_3.safetensors").write_bytes((f / "params_layer_2.safetensors").read_bytes()), "0 to 3"),
        (lambda f: _change(f, lambda t: t["w_dec"][:, 0].fill_(1.0)), "sites before its own"),
        (lambda f: _change(f, lambda t: t.update(w_dec=t["w_dec"][:, :2].contiguous())), "writes 2 sites"),
        (lambda f: _change(f, lambda t: t["w_enc"].fill_(float("nan"))), "not finite"),
        (lambda f: _config(f, lambda c: c["hf_hook_point_in"].reverse()), "out of order"),
        (lambda f: _config(f, lambda c: c.update(hf_hook_point_in="model.layers.0.output")), "lists its hook points"),
    ],
)
def test_a_damaged_layer_folder_is_named(tmp_path, damage, says):
    folder = save_dictionary(make(), tmp_path / "d", format="gemma-scope-2")
    (folder / "sha256.json").unlink()  # put together by hand
    damage(folder)
    with pytest.raises(ValueError, match=says):
        load_dictionary(folder)


def _change(folder, change):
    path = folder / "params_layer_2.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def _config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_one_latents_decoder_costs_one_row(tmp_path):
    """A dictionary opened lazily maps its files: resident memory does not grow by their size."""
    d = make(layers=tuple(range(8)), d=512)
    folder = save_dictionary(d, tmp_path / "d", format="gemma-scope-2")
    lazy = load_dictionary(folder, lazy=True)
    assert torch.equal(lazy.direction(5)[lazy.config.writes[7]], d.direction(5)[d.config.writes[7]])
    whole = lazy.decoders[3]  # a view of the file, not a copy of it
    assert whole.stride(0) == 8 * 512 and whole.shape == (PER, 5 * 512)


def test_matryoshka_prefixes_are_shared_by_the_blocks():
    d = make(matryoshka=Matryoshka((12, 72), (1.0, 1.0)))
    p = d.prefix(12)
    x = torch.randn(10, 3 * D)
    f = d.encode(x).dense().view(10, 3, PER)
    f[:, :, 4:] = 0
    assert torch.allclose(p.encode(x).dense(), f[:, :, :4].reshape(10, 12)) and p.d_sae == 12
    with pytest.raises(ValueError, match="multiple of 3"):
        d.prefix(13)


@pytest.fixture(scope="module")
def subject():
    return toy_model()


@pytest.fixture(scope="module")
def sequences(subject):
    r = np.random.default_rng(0)
    words = "the cat sat on a mat and the dog ran off with my hat ".split()
    documents = [Document(f"d{i}", " ".join(r.choice(words, 12))) for i in range(30)]
    return pack(subject, documents, context=64, max_tokens=64 * 8)


def test_splicing_a_clt_is_the_replacement_model(subject, sequences):
    """Layer by layer by hand: each site is read from the model as already edited below it."""
    d = make(skip=True)
    tokens = torch.from_numpy(sequences.tokens[:2]).long()
    with subject.splice(d, keep_error=False):
        seen = subject.capture(tokens, d.sites)
    f, y = dense(d, d.inputs(seen).reshape(-1, 3 * D))
    written = d.targets(seen).reshape(-1, 3 * D).double()
    ordinary = seen.mask.reshape(-1)
    assert torch.allclose(written[ordinary], y[ordinary], atol=1e-4) and float(f.sum()) > 0
    plain = subject.logits(tokens)
    with subject.splice(d, keep_error=True):
        assert torch.allclose(subject.logits(tokens), plain, atol=1e-4)


@pytest.mark.parametrize("kind", ["clt", "crosscoder"])
def test_ablating_a_latent_takes_away_what_it_writes_everywhere(subject, sequences, kind):
    d = make(kind)
    tokens = torch.from_numpy(sequences.tokens[:2]).long()
    clean = subject.capture(tokens, d.sites)
    f = d.encode(d.inputs(clean))
    j = int(f.index[f.index < PER].mode().values)  # of the first block: it writes all three sites
    with subject.edit(d.ablate(j)):
        after = subject.capture(tokens, d.config.writes[:1])
    site = d.config.writes[0]
    expected = clean[site] - f.dense()[..., j, None] * d.direction(j)[site]
    assert torch.allclose(after[site][clean.mask], expected[clean.mask], atol=1e-4)
    assert len(d.ablate(j)) == 3 and len(d.ablate(2 * PER)) == 1 and len(d.steer(PER, dose=1.0)) == 2


def test_in_the_residual_stream_an_edit_counts_once(subject, sequences):
    """Steering a crosscoder's latent shifts every site by its direction there, not by the sum over the sites before it."""
    d = make("crosscoder", layers=(1, 2))
    with torch.no_grad():  # the same direction at both sites, and a model whose block 2 adds nothing
        d.decoders[0][0] = torch.cat([d.decoders[0][0, :D], d.decoders[0][0, :D]])
    still = toy_model()
    for name, p in still.parts.blocks[2].named_parameters():
        if name in ("post_attention_layernorm.weight", "post_feedforward_layernorm.weight"):
            p.data.fill_(-1.0)  # Gemma's gain is 1 + w
    tokens = torch.from_numpy(sequences.tokens[:1]).long()
    clean = still.capture(tokens, d.sites)
    assert torch.equal(clean["L1.resid_post"], clean["L2.resid_post"])
    with still.edit(d.steer(0, dose=10.0)):
        after = still.capture(tokens, d.sites)
    for site, direction in d.direction(0).items():
        shift = (after[site] - clean[site])[clean.mask]
        assert torch.allclose(shift, 10 * direction.expand_as(shift), atol=1e-4), site


def test_top_k_over_several_layers_is_judged_without_a_loss(subject, sequences):
    d = make(activation=TopK(7))
    with pytest.raises(ValueError, match="chooses its 7 latents among all sites"):
        d.splice()
    m = evaluate(subject, {"d": d}, sequences, ce_tokens=10**6)["d"].metrics["dictionary"]
    assert "fvu" in m and "delta_ce" not in m


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": (3, 1)}, "order of computation"),
        ({"layers": (2,)}, "one site in and one out are OneToOne"),
    ],
)
def test_causal_sites_that_mean_nothing_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        make(**change)


def test_a_joint_crosscoder_cannot_be_spliced_in_one_pass():
    with pytest.raises(ValueError, match="reads all of them"):
        make("joint").splice()


@pytest.mark.parametrize("kind", ["clt", "crosscoder", "joint"])
def test_evaluation_over_several_sites_follows_its_definitions(subject, sequences, kind):
    d = make(kind)
    text = EvalText(subject, sequences)

    def rows(d):
        seen = text.capture(list(d.sites))
        return d.inputs(seen), d.targets(seen)

    m = evaluate(subject, {"d": d}, sequences, training_rows=rows, ce_tokens=10**6)["d"].metrics
    x, y = rows(d)
    error, centred = (v.double().square().view(len(y), 3, D).sum((0, 2)) for v in (y - d(x), y - y.mean(0)))
    by_site = error / centred
    assert m["dictionary"]["fvu"].value == pytest.approx(float(by_site.mean()), rel=1e-4)
    for i, site in enumerate(d.config.writes):
        assert m[f"dictionary at {site}"]["fvu"].value == pytest.approx(float(by_site[i]), rel=1e-4)
    assert m["mean"]["fvu"].value == pytest.approx(1.0, rel=1e-4)
    assert ("ridge" in m) == (kind == "clt")
    if kind == "clt":
        assert "delta_ce" in m["ridge"] and not {"pca", "token_pca", "random"} & set(m)
        with subject.splice(d, keep_error=False):
            expected = text.losses(text.hidden(), {})["clean"].ce.mean()
        assert m["dictionary"]["ce"].value == pytest.approx(float(expected), abs=1e-5)
    else:
        sites = [m[f"dictionary at {s}"]["delta_ce"].value for s in d.config.writes]
        assert m["dictionary"]["delta_ce"].value == pytest.approx(sum(sites) / 3, abs=1e-6)


def test_neighbours_and_directions_over_several_sites():
    d = make()
    index, cosine = neighbours(d, k=4)
    wide = torch.zeros(3 * PER, 3 * D)
    for b, W in zip(d.blocks, d.decoders, strict=True):
        wide[b.latents, b.writes] = W
    c = wide @ wide.t()
    c.fill_diagonal_(-2)
    assert torch.allclose(cosine, c.topk(4, dim=1).values, atol=1e-5) and (index != torch.arange(72)[:, None]).all()
    assert torch.allclose(residual_directions(d), wide.view(72, 3, D).sum(1), atol=1e-6)
    resid = make("crosscoder")
    assert torch.equal(residual_directions(resid)[PER : 2 * PER], resid.decoders[1][:, D:])
