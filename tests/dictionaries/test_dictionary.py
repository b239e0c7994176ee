"""One Dictionary against the formulas in float64; its artefact against tampering; its edits against arithmetic."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from diascope.dictionaries import Dictionary, JumpReLU, TopK, load_dictionary, save_dictionary
from diascope.dictionaries.formats.gemma_scope_2 import folder_name


def reference(d, x):
    """Latents and output by the release's formulas, float64."""
    x = x.double()
    pre = x @ d.W_enc.double() + d.b_enc.double()
    f = torch.relu(pre) * (pre > d.threshold.double())
    y = f @ d.W_dec.double() + d.b_dec.double()
    return f, y + (x @ d.W_skip.double() if d.W_skip is not None else 0)


@pytest.mark.parametrize(("kind", "skip"), [("sae", False), ("transcoder", False), ("transcoder", True)])
def test_encode_and_decode_follow_the_formulas(make_dictionary, kind, skip):
    d = make_dictionary(kind=kind, skip=skip)
    x = torch.randn(3, 50, 32)
    f, y = reference(d, x)
    latents = d.encode(x)
    assert torch.allclose(latents.dense().double(), f, atol=1e-5)
    assert torch.allclose(d(x).double(), y, atol=1e-5) and d(x).shape == (3, 50, 32)
    assert torch.allclose(d.decode(latents, x), d(x))


def test_a_rows_latents_do_not_depend_on_its_batch(make_dictionary):
    for activation in (JumpReLU(), TopK(5)):
        d = make_dictionary()
        d = Dictionary(type(d.config)(**{**d.config.__dict__, "activation": activation}), d.tensors())
        x = torch.randn(20, 32)
        together = d.encode(x).dense()
        assert all(torch.allclose(d.encode(x[i : i + 1]).dense()[0], together[i], atol=1e-5) for i in range(20))
        if isinstance(activation, TopK):
            assert int(d.encode(x).counts.max()) <= 5


def test_gradients_reach_the_input_through_encode_and_decode(make_dictionary):
    d = make_dictionary(kind="transcoder", skip=True).double()
    x = torch.randn(4, 32, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(d, (x,))


@pytest.mark.parametrize("format", ["diascope", "gemma-scope-2"])
@pytest.mark.parametrize(("kind", "skip"), [("sae", False), ("transcoder", True)])
def test_saving_and_loading_is_lossless(make_dictionary, tmp_path, format, kind, skip):
    d = make_dictionary(kind=kind, skip=skip)
    again = load_dictionary(save_dictionary(d, tmp_path / "d", format=format))
    for name, value in d.tensors().items():
        assert torch.equal(again.tensors()[name], value), name
    assert (again.site_in, again.site_out, again.config.kind) == (d.site_in, d.site_out, kind)


def test_gemma_scope_2_folders_have_the_releases_names(make_dictionary, tmp_path):
    d = make_dictionary(kind="transcoder", skip=True)
    folder = save_dictionary(d, tmp_path / folder_name(d.config), format="gemma-scope-2")
    config = json.loads((folder / "config.json").read_text())
    assert set(config) == {
        "hf_hook_point_in", "hf_hook_point_out", "width", "model_name", "architecture", "l0", "affine_connection", "type",
    }  # fmt: skip
    assert config["hf_hook_point_in"] == "model.layers.2.pre_feedforward_layernorm.output"
    tensors = load_file(folder / "params.safetensors")
    assert tensors["w_enc"].shape == (32, 64) and torch.equal(tensors["affine_skip_connection"], d.W_skip)
    assert str(folder).endswith("transcoder/layer_2_width_64_l0_small_affine")
    with pytest.raises(ValueError, match="JumpReLU"):
        topk = Dictionary(type(d.config)(**{**d.config.__dict__, "activation": TopK(3)}), d.tensors())
        save_dictionary(topk, tmp_path / "no", format="gemma-scope-2")


@pytest.mark.parametrize("wrong", ["transposed skip", "b_dec subtracted", "threshold lost"])
def test_probes_catch_a_wrong_reading(make_dictionary, tmp_path, wrong):
    d = make_dictionary(kind="transcoder", skip=True)
    x = torch.randn(16, 32)
    f, y = reference(d, x)
    save_dictionary(d, tmp_path / "d", probe={"x": x, "latents": f.float(), "y_hat": y.float()})
    load_dictionary(tmp_path / "d")
    broken = {k: v.clone() for k, v in d.tensors().items()}
    if wrong == "transposed skip":
        broken["W_skip"] = broken["W_skip"].t()
    elif wrong == "b_dec subtracted":
        broken["b_enc"] = broken["b_enc"] - broken["b_dec"] @ broken["W_enc"]
    else:
        broken["threshold"] = torch.zeros_like(broken["threshold"])
    with pytest.raises(ValueError, match="disagrees with its own probe"):
        save_dictionary(Dictionary(d.config, broken), tmp_path / "e", probe={"x": x, "latents": f.float(), "y_hat": y.float()})
    assert not (tmp_path / "e").exists()


def test_damage_is_named(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "d")
    whole = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_dictionary(folder)
    theirs = save_dictionary(make_dictionary(), tmp_path / "g", format="gemma-scope-2")
    whole = (theirs / "params.safetensors").read_bytes()
    (theirs / "params.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_dictionary(theirs)
    (theirs / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_dictionary(theirs)
    with pytest.raises(ValueError, match="no dictionary folder"):
        load_dictionary(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="shape"):
        d = make_dictionary()
        Dictionary(d.config, {k: v[:1] for k, v in d.tensors().items()})
    with pytest.raises(ValueError, match="width 32"):
        d.encode(torch.zeros(2, 31))


def test_a_pickle_is_never_read(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "g", format="gemma-scope-2")
    torch.save({"w_enc": 1}, folder / "params.safetensors")
    with pytest.raises(ValueError, match="damaged"):
        load_dictionary(folder)


def test_edits_change_exactly_what_they_say(make_dictionary, toy):
    d = make_dictionary()
    tokens = torch.tensor([[2, 70, 81, 92, 33]])
    y = toy.capture(tokens, d.site_out)[d.site_out]
    with toy.edit(d.steer(5, dose=3.0)):
        steered = toy.capture(tokens, d.site_out)[d.site_out]
    assert torch.allclose(steered[:, 1:], y[:, 1:] + 3 * d.W_dec[5], atol=1e-5) and torch.equal(steered[:, 0], y[:, 0])
    j = int(d.encode(y[0, 1:]).index[0])
    with toy.edit(d.ablate(j)):
        ablated = toy.capture(tokens, d.site_out)[d.site_out]
    value = d.encode(y).dense()[..., j]
    assert float(value[0, 1:].max()) > 0
    assert torch.allclose(ablated[:, 1:], (y - value[..., None] * d.W_dec[j])[:, 1:], atol=1e-5)
    clean = toy.logits(tokens)
    with toy.splice(d, keep_error=True):
        assert torch.allclose(toy.logits(tokens), clean, atol=1e-4)
    with toy.splice(d, keep_error=False):
        assert not torch.allclose(toy.logits(tokens), clean, atol=1e-2)
    with pytest.raises(ValueError, match="no latent 64"):
        d.steer(64, dose=1)
    for edit in (lambda v: d.steer(1, dose=v), lambda v: d.clamp(1, v)):
        with pytest.raises(ValueError, match="finite"):
            edit(float("nan"))


def test_a_clamped_latent_of_a_transcoder_moves_the_mlps_output(make_dictionary, toy):
    d = make_dictionary(kind="transcoder", skip=True)
    tokens = torch.tensor([[2, 70, 81, 92]])
    seen = toy.capture(tokens, [d.site_in, d.site_out])
    now = d.encode(seen[d.site_in]).dense()[..., 7]
    with toy.edit(d.clamp(7, 2.0)):
        after = toy.capture(tokens, d.site_out)[d.site_out]
    expected = seen[d.site_out] + (2.0 - now)[..., None] * d.W_dec[7]
    assert torch.allclose(after[:, 1:], expected[:, 1:], atol=1e-5)


def test_a_changed_file_is_noticed(make_dictionary, tmp_path):
    folder = save_dictionary(make_dictionary(), tmp_path / "d")
    tensors = load_file(folder / "weights.safetensors")
    save_file({k: v + 1e-3 for k, v in tensors.items()}, folder / "weights.safetensors")
    with pytest.raises(ValueError, match="hash"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [1, 2], lambda c: "x", lambda c: None, lambda c: {k: v for k, v in c.items() if k != "sha256"},
        lambda c: {**c, "sha256": None}, lambda c: {**c, "dictionary": None}, lambda c: {**c, "dictionary": {"skip": True}},
        lambda c: {**c, "dictionary": {**c["dictionary"], "matryoshka": 5}},
        lambda c: {**c, "dictionary": {**c["dictionary"], "activation": None}},
        lambda c: {**c, "dictionary": {**c["dictionary"], "activation": {"type": "TopK", "k": 3.5}}},
        lambda c: {**c, "dictionary": {**c["dictionary"], "sites_in": None}},
        lambda c: {**c, "dictionary": {**c["dictionary"], "sites_out": ["foo"]}},
    ],
)  # fmt: skip
def test_every_damaged_config_is_a_value_error(make_dictionary, tmp_path, change):
    folder = save_dictionary(make_dictionary(), tmp_path / "d")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(config)))
    with pytest.raises(ValueError):
        load_dictionary(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"hf_hook_point_in": None},
        {"hf_hook_point_out": 5},
        {"architecture": "topk"},
        {"affine_connection": True},
        {"type": "clt"},
    ],
)
def test_every_damaged_release_config_is_a_value_error(make_dictionary, tmp_path, change):
    folder = save_dictionary(make_dictionary(), tmp_path / "g", format="gemma-scope-2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError):
        load_dictionary(folder)


@pytest.mark.parametrize("name", ["W_enc", "b_dec", "threshold"])
def test_weights_that_are_not_numbers_are_refused(make_dictionary, tmp_path, name):
    d = make_dictionary()
    getattr(d, name).data.view(-1)[3] = float("nan")
    for format in ("gemma-scope-2", "diascope"):
        folder = save_dictionary(d, tmp_path / format, format=format)
        with pytest.raises(ValueError, match=f"1 of .* values of {name} are not finite"):
            load_dictionary(folder)


def test_one_vector_keeps_its_shape(make_dictionary):
    d, x = make_dictionary(), torch.randn(5, 32)
    assert d.encode(x[0]).dense().shape == (64,) and d(x[0]).shape == (32,)
    assert torch.allclose(d(x[0]), d(x)[0], atol=1e-6)
    for wrong in (x.numpy(), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="reads vectors of width 32"):
            d.encode(wrong)
    with pytest.raises(ValueError, match=r"not 1\.5"):
        d.steer(1.5, dose=1)
