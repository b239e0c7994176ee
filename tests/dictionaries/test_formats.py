"""Round trips over all formats with a dictionary of every kind, what each says of itself, and bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diascope.dictionaries import (
    Causal,
    Dictionary,
    DictionaryConfig,
    Joint,
    JumpReLU,
    OneToOne,
    ReLU,
    TopK,
    load_dictionary,
    save_dictionary,
)
from diascope.dictionaries.artefact import format_of
from diascope.dictionaries.dictionary import tensor_shapes
from diascope.dictionaries.formats import FORMATS

D, LAYERS = 16, tuple(range(12))  # layer 10 comes after layer 2
KINDS = {
    "sae": (OneToOne(), "resid_post", "resid_post", (11,)),
    "transcoder": (OneToOne(), "mlp_in", "mlp_out", (10,)),
    "skip-transcoder": (OneToOne(), "mlp_in", "mlp_out", (10,)),
    "clt": (Causal(), "mlp_in", "mlp_out", LAYERS),
    "skip-clt": (Causal(), "mlp_in", "mlp_out", LAYERS),
    "causal crosscoder": (Causal(), "resid_post", "resid_post", (2, 5, 10)),
    "joint crosscoder": (Joint(), "resid_post", "resid_post", (2, 5, 10)),
}
ACTIVATIONS = {"jumprelu": JumpReLU(), "relu": ReLU(), "topk": TopK(4)}


def make(kind="sae", activation="jumprelu", per=24):
    """A random dictionary with unit decoder rows and a probe computed in float64."""
    site_map, a, b, layers = KINDS[kind]
    sites = [tuple(f"L{layer}.{name}" for layer in layers) for name in (a, b)]
    widths, n = (D,) * len(layers), len(layers)
    config = DictionaryConfig("toy", *sites, widths, widths, per * n, site_map, ACTIVATIONS[activation], skip="skip" in kind)
    g = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=g) / shape[0] ** 0.5 for name, shape in tensor_shapes(config).items()}
    for name in tensors:
        if name.startswith("W_dec"):
            tensors[name] /= tensors[name].norm(dim=1, keepdim=True)
    tensors["threshold"] = torch.rand(per * n, generator=g) * (activation == "jumprelu")
    d = Dictionary(config, tensors)
    x = torch.randn(20, config.d_in, generator=g)
    exact = Dictionary(config, tensors).double()
    d.probe = {"x": x, "latents": exact.encode(x.double()).dense().float(), "y_hat": exact(x.double()).float()}
    return d


CASES = [(f, k, a) for f in FORMATS for k in KINDS for a in ACTIVATIONS]
HELD = {  # what each layout holds: kinds, activations
    "diascope": (set(KINDS), set(ACTIVATIONS)),
    "gemma-scope-2": (set(KINDS) - {"joint crosscoder"}, {"jumprelu", "relu"}),
    "gemma-scope-1": ({"sae", "transcoder"}, {"jumprelu", "relu"}),
    "saelens": ({"sae", "transcoder", "skip-transcoder"}, set(ACTIVATIONS)),
    "sparsify": ({"sae", "transcoder", "skip-transcoder"}, {"topk"}),
    "llamascopium": ({"sae", "transcoder", "clt"}, set(ACTIVATIONS)),
    "dictionary-learning": ({"sae"}, set(ACTIVATIONS)),
    "circuit-tracer": ({"transcoder", "skip-transcoder", "clt"}, {"jumprelu", "relu"}),
}
NOT = {("saelens", "transcoder", "topk"), ("saelens", "skip-transcoder", "topk"), ("llamascopium", "clt", "topk")}


@pytest.mark.parametrize(("name", "kind", "activation"), CASES)
def test_round_trips(tmp_path, name, kind, activation):
    d = make(kind, activation)
    kinds, activations = HELD[name]
    if kind not in kinds or activation not in activations or (name, kind, activation) in NOT:
        with pytest.raises(ValueError, match="cannot hold this"):
            save_dictionary(d, tmp_path / "d", format=name)
        assert not (tmp_path / "d").exists()
        return
    folder = save_dictionary(d, tmp_path / "d", format=name)
    assert format_of(folder).name == name and (folder / "probe.safetensors").exists()
    again = load_dictionary(folder, sites=(d.config.sites_in, d.config.sites_out))  # the probe is checked
    assert again.config.reads == d.config.reads and again.config.writes == d.config.writes and again.config.map == d.config.map
    fidelity = FORMATS[name].fidelity(d)
    tolerance = {"lossless": 0.0, "folded-exact": 1e-6, "lossy": 1e-5}[fidelity.kind]
    ours, theirs = d.tensors(), again.tensors()
    for tensor, value in ours.items():
        assert float((theirs[tensor] - value).abs().max()) <= tolerance * max(1.0, float(value.abs().max())), (
            tensor,
            str(fidelity),
        )
    if name == "diascope":  # names its probe by hash
        return
    # no probe: the layout alone still gives the same map
    (folder / "probe.safetensors").unlink()
    alone = load_dictionary(folder, sites=(d.config.sites_in, d.config.sites_out))
    x = torch.randn(40, d.config.d_in)
    assert torch.allclose(alone(x), d(x), atol=1e-4) and torch.allclose(alone.encode(x).dense(), d.encode(x).dense(), atol=1e-4)


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("gemma-scope-1", "sparsify")])
def test_sites_and_model_survive_where_the_layout_has_them(tmp_path, name):
    d = make("clt" if name == "circuit-tracer" else "sae")
    again = load_dictionary(save_dictionary(d, tmp_path / "d", format=name))
    assert again.config.reads == d.config.reads and again.config.writes == d.config.writes
    assert again.config.model == ("toy" if name != "llamascopium" else "")


@pytest.mark.parametrize("name", ["gemma-scope-2", "saelens", "circuit-tracer", "sparsify"])
def test_a_transposed_skip_is_caught_by_the_probe(tmp_path, name):
    d = make("skip-transcoder", "topk" if name == "sparsify" else "jumprelu")
    folder = save_dictionary(d, tmp_path / "d", format=name)
    (folder / "sha256.json").unlink()  # put together by hand
    (file,) = [f for f in folder.glob("*.safetensors") if f.name != "probe.safetensors"]
    tensors = load_file(file)
    skip = next(k for k in tensors if "skip" in k.lower())
    save_file(tensors | {skip: tensors[skip].t().contiguous()}, file)
    with pytest.raises(ValueError, match="its own probe: y_hat"):
        load_dictionary(folder, sites=("L10.mlp_in", "L10.mlp_out"))


def test_a_gated_dictionary_is_the_jumprelu_that_it_says(tmp_path):
    g = torch.Generator().manual_seed(0)
    theirs = {
        "encoder.weight": torch.randn(24, D, generator=g), "decoder.weight": torch.randn(D, 24, generator=g),
        "decoder_bias": torch.randn(D, generator=g), "r_mag": torch.randn(24, generator=g) / 3,
        "gate_bias": torch.randn(24, generator=g), "mag_bias": torch.randn(24, generator=g),
    }  # fmt: skip
    folder = tmp_path / "dl"
    folder.mkdir()
    torch.save(theirs, folder / "ae.pt")
    trainer = {"dict_class": "GatedAutoEncoder", "layer": 3, "submodule_name": "resid_post_layer_3", "lm_name": "m"}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    d = load_dictionary(folder)
    x = torch.randn(200, D, dtype=torch.float64)
    t = {k: v.double() for k, v in theirs.items()}
    product = (x - t["decoder_bias"]) @ t["encoder.weight"].t()
    f = (product + t["gate_bias"] > 0) * (t["r_mag"].exp() * product + t["mag_bias"]).relu()
    y = f @ t["decoder.weight"].t() + t["decoder_bias"]
    assert torch.allclose(d.encode(x.float()).dense().double(), f, atol=1e-4) and torch.allclose(
        d(x.float()).double(), y, atol=1e-4
    )
    assert str(d.site_in) == "L3.resid_post" and d.config.model == "m"


def test_llamascopiums_dataset_norm_and_decoder_norm_are_folded(tmp_path):
    d = make("transcoder")
    folder = save_dictionary(d, tmp_path / "d", format="llamascopium")
    (folder / "sha256.json").unlink()  # put together by hand
    (folder / "probe.safetensors").unlink()
    config, file = json.loads((folder / "config.json").read_text()), folder / "sae_weights.safetensors"
    t = load_file(file)
    norms = {config["hook_point_in"]: 37.0, config["hook_point_out"]: 5.0}
    t |= {f"dataset_average_activation_norm.{k}": torch.tensor(v) for k, v in norms.items()}
    t["W_D"] *= torch.rand(len(t["W_D"]), 1) + 0.5
    save_file(t, file)
    config |= {"norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True}
    (folder / "config.json").write_text(json.dumps(config))
    x = torch.randn(300, D).double() * 3
    t = {k: v.double() for k, v in t.items()}
    into, out = (D**0.5 / norms[config[f"hook_point_{end}"]] for end in ("in", "out"))
    pre, n = (x * into) @ t["W_E"] + t["b_E"], t["W_D"].norm(dim=1)  # as the library's forward pass does
    f = pre * (pre * n > t["activation_function.log_jumprelu_threshold"].exp())
    y = (f @ t["W_D"] + t["b_D"]) / out
    ours = load_dictionary(folder)
    assert torch.allclose(ours(x.float()).double(), y, atol=1e-4)
    assert torch.allclose(ours.encode(x.float()).dense().double(), f / into, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("dictionary-learning", lambda f: (f / "ae.pt").write_bytes(b"\x80\x04cposix\nsystem\n."), "no plain archive of tensors"),
        ("saelens", lambda f: (f / "sae_weights.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n."), "damaged"),
        ("gemma-scope-1", lambda f: (f / "params.npz").write_bytes(b"\x80\x04cposix\nsystem\n."), "no npz archive"),
        ("saelens", lambda f: _json(f / "cfg.json", normalize_activations="layer_norm"), "normalises its input"),
        ("saelens", lambda f: _json(f / "cfg.json", architecture="matching_pursuit"), "architecture 'matching_pursuit'"),
        ("saelens", lambda f: _json(f / "cfg.json", metadata={"hook_name": "blocks.1.hook_mlp_in"}), "raw residual"),
        ("saelens", lambda f: _json(f / "cfg.json", metadata={}), "give sites"),
        ("dictionary-learning", lambda f: _json(f / "config.json", trainer={"dict_class": "X"}), "holds a 'X'"),
        ("llamascopium", lambda f: _json(f / "config.json", norm_activation="token-wise"), "token-wise"),
        ("llamascopium", lambda f: _json(f / "config.json", sae_type="crosscoder"), "decoder norm"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_error(tmp_path, name, damage, says):
    folder = save_dictionary(make(), tmp_path / "d", format=name)
    (folder / "sha256.json").unlink()  # put together by hand
    damage(folder)
    with pytest.raises(ValueError, match=says):
        load_dictionary(folder, sites="L1.resid_post" if name == "gemma-scope-1" else None)


def _json(path, **change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_pickle_in_a_renamed_file_never_runs(tmp_path):
    """A numpy array of objects inside an npz is a pickle too."""
    folder = save_dictionary(make(), tmp_path / "d", format="gemma-scope-1")
    (folder / "sha256.json").unlink()  # put together by hand
    arrays = dict(np.load(folder / "params.npz"))
    np.savez(folder / "params.npz", **(arrays | {"threshold": np.array([{"a": 1}], dtype=object)}))
    with pytest.raises(ValueError, match=r"Object arrays|pickle"):
        load_dictionary(folder, sites="L1.resid_post")


def test_a_set_of_layers_is_loaded_one_by_one(tmp_path):
    d = make("skip-transcoder")
    folder = save_dictionary(d, tmp_path / "d", format="circuit-tracer")
    shutil.copy(folder / "layer_10.safetensors", folder / "layer_2.safetensors")
    with pytest.raises(ValueError, match=r"a set of 2 transcoders: load one by its file, such as .*layer_2"):
        load_dictionary(folder)
    assert str(load_dictionary(folder / "layer_2.safetensors").site_in) == "L2.mlp_in"
    assert torch.equal(load_dictionary(folder / "layer_10.safetensors").W_dec, d.W_dec)


def test_nothing_known_is_said(tmp_path):
    with pytest.raises(ValueError, match="there is no dictionary folder"):
        load_dictionary(tmp_path / "gone")
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="of no known format: diascope, gemma-scope-2"):
        load_dictionary(tmp_path / "x")


def test_near_ties_of_top_k_are_no_disagreement(tmp_path):
    """At rank k float32 and float64 may choose differently; the rows where they do are left out of the outputs."""
    d = make(activation="topk")
    d.probe["x"] = d.probe["x"].clone()
    pre = d.pre_acts(d.probe["x"])
    top = pre[0].topk(5)
    swapped = d.probe["latents"].clone()
    with torch.no_grad():  # make ranks 4 and 5 of row 0 tie, and let the probe have chosen the other one
        d.b_enc[top.indices[4]] += top.values[3] - top.values[4]
    exact = d.encode(d.probe["x"]).dense()
    swapped = exact.clone()
    swapped[0, top.indices[3]], swapped[0, top.indices[4]] = exact[0, top.indices[4]], exact[0, top.indices[3]]
    d.probe |= {"latents": swapped, "y_hat": swapped @ d.W_dec + d.b_dec}
    save_dictionary(d, tmp_path / "d")
    d.probe["latents"] = swapped.roll(1, 1)
    with pytest.raises(ValueError, match="latents off by"):
        save_dictionary(d, tmp_path / "e")


def test_what_a_layout_would_change_is_refused():
    d = make("transcoder")
    crossing = Dictionary(DictionaryConfig(**{**d.config.__dict__, "sites_out": ("L11.mlp_out",)}), d.tensors())
    assert "transcoders of one layer" in FORMATS["circuit-tracer"].refuses(crossing)
    c = make("causal crosscoder")
    named = DictionaryConfig(**{**c.config.__dict__, "sites_in": tuple(f"a:{s}" for s in c.config.sites_in), "sites_out": tuple(f"a:{s}" for s in c.config.sites_out)})  # fmt: skip
    assert "it has one model" in FORMATS["gemma-scope-2"].refuses(Dictionary(named, c.tensors()))


@pytest.mark.parametrize(("kind", "hook"), [("resid_pre", "hook_resid_pre"), ("attn_write", "hook_attn_out")])
def test_sites_that_the_release_lacks_go_to_saelens_and_back(tmp_path, monkeypatch, kind, hook):
    """SAELens's first SAEs, of GPT-2 small, read hook_resid_pre."""
    monkeypatch.setitem(KINDS, "sae", (OneToOne(), kind, kind, (8,)))
    d = make()
    folder = save_dictionary(d, tmp_path / "d", format="saelens")
    assert json.loads((folder / "cfg.json").read_text())["metadata"]["hook_name"] == f"blocks.8.{hook}"
    again = load_dictionary(folder)
    assert again.config.sites_in == (f"L8.{kind}",) and torch.equal(again.W_enc, d.W_enc)
    assert "no dictionaries at L8" in FORMATS["gemma-scope-2"].refuses(d)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_probe_that_accepts_anything_is_refused(tmp_path, value):
    folder = save_dictionary(make(), tmp_path / "d", format="saelens")
    (folder / "sha256.json").unlink()  # put together by hand
    probe = load_file(folder / "probe.safetensors")
    probe["y_hat"][0, 0] = value
    save_file(probe, folder / "probe.safetensors")
    with pytest.raises(ValueError, match=r"d: the probe lacks y_hat, or holds values"):
        load_dictionary(folder)
    save_file(probe | {"y_hat": torch.full_like(probe["y_hat"], 1e30)}, folder / "probe.safetensors")
    with pytest.raises(ValueError, match="its own probe"):
        load_dictionary(folder)


def test_sites_given_against_the_layouts_own_are_refused(tmp_path):
    folder = save_dictionary(make(), tmp_path / "d", format="saelens")
    with pytest.raises(ValueError, match=r"says that it reads L11\.resid_post"):
        load_dictionary(folder, sites=("L1.mlp_in", "L1.mlp_out"))
    one = save_dictionary(make(), tmp_path / "e", format="gemma-scope-1")
    with pytest.raises(ValueError, match="holds a dictionary of one site"):
        load_dictionary(one, sites=(("L1.resid_post", "L2.resid_post"),) * 2)


@pytest.mark.parametrize("text", ["a: [1", "a: *b", "\t x", "- 1"])
def test_broken_yaml_is_named(tmp_path, text):
    folder = save_dictionary(make("transcoder"), tmp_path / "d", format="circuit-tracer")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_dictionary(folder)


def test_layers_that_disagree_are_refused(tmp_path):
    save_dictionary(make("clt"), tmp_path / "c", format="circuit-tracer")
    (tmp_path / "c" / "sha256.json").unlink()  # put together by hand, as the others below
    path = tmp_path / "c" / "W_enc_2.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "threshold" not in k}, path)
    with pytest.raises(ValueError, match="none in layer 2"):
        load_dictionary(tmp_path / "c")
    save_dictionary(make("skip-clt"), tmp_path / "g", format="gemma-scope-2")
    (tmp_path / "g" / "sha256.json").unlink()
    path = tmp_path / "g" / "params_layer_1.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "skip" not in k}, path)
    with pytest.raises(ValueError, match=r"affine_skip_connection|skip in some layers"):
        load_dictionary(tmp_path / "g")
    save_dictionary(make(activation="topk"), tmp_path / "s", format="sparsify")
    (tmp_path / "s" / "sha256.json").unlink()
    _json(tmp_path / "s" / "cfg.json", k=10**6)
    with pytest.raises(ValueError, match="one of them is another dictionary's"):
        load_dictionary(tmp_path / "s", sites="L1.resid_post")
