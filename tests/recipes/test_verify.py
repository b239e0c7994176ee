"""`verify` runs stored examples through the model: a wrong hook cannot pass."""

import pytest
import torch
from safetensors.torch import save_file

from diascope.dictionaries import Dictionary, save_dictionary
from diascope.recipes.verify import verify


@pytest.fixture
def folder(toy, make_dictionary, tmp_path):
    """A transcoder in the release's layout with examples made from the model's own activations."""
    d = make_dictionary(kind="transcoder", skip=True)
    tokens = torch.randint(4, 260, (6, 20), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 2
    f = d.encode(toy.capture(tokens, d.site_in)[d.site_in]).dense()
    f[:, 0] = 0
    top = f.reshape(-1, 64).t().topk(10, dim=1)
    path = save_dictionary(d, tmp_path / "d", format="gemma-scope-2")
    examples = {"tokens": tokens, "activations": top.values, "seq_ids": top.indices // 20, "positions": top.indices % 20}
    save_file({k: v.contiguous() for k, v in examples.items()}, path / "examples.safetensors")
    return path, d


def test_the_right_model_and_hook_pass(folder, toy):
    v = verify(folder[0], toy)
    assert v.ok and v.examples > 20 and v.median_error < 1e-4


def test_a_wrong_hook_fails(folder, toy, tmp_path):
    path, d = folder
    wrong = type(d.config)(**{**d.config.__dict__, "sites_in": ("L2.resid_post",), "sites_out": ("L2.resid_post",)})
    other = save_dictionary(Dictionary(wrong, d.tensors()), tmp_path / "w", format="gemma-scope-2")
    (other / "examples.safetensors").write_bytes((path / "examples.safetensors").read_bytes())
    assert not verify(other, toy).ok


def test_nothing_to_check_is_said(make_dictionary, tmp_path):
    path = save_dictionary(make_dictionary(), tmp_path / "d")
    with pytest.raises(ValueError, match="nothing to verify"):
        verify(path)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("seq_ids", lambda t: t + 100, "outside 0 to 5"),
        ("positions", lambda t: t - 30, "outside 0 to 19"),
        ("activations", lambda t: t[:5], "must be"),
        ("tokens", lambda t: t + 9999, "token ids"),
        ("tokens", None, "damaged"),
    ],
)
def test_damaged_examples_are_named(folder, toy, name, change, says):
    from safetensors.torch import load_file

    path = folder[0] / "examples.safetensors"
    tensors = load_file(path)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, path)
    with pytest.raises(ValueError, match=says):
        verify(folder[0], toy)
