"""What people call a dictionary, and what is fetched for it."""

import pytest
import torch

from diascope.dictionaries import load_dictionary, save_dictionary
from diascope.dictionaries.resolve import locate, resolve


@pytest.mark.parametrize(
    ("name", "repository", "folder"),
    [
        ("google/gemma-scope-2-1b-it/clt/width_262k_l0_medium", "google/gemma-scope-2-1b-it", "clt/width_262k_l0_medium"),
        ("gemma-scope-2-270m-pt-res/layer_12_width_16k_l0_medium", "google/gemma-scope-2-270m-pt", "resid_post/layer_12_width_16k_l0_medium"),
        ("gemma-scope-2-270m-pt-res-all:layer_3_width_16k_l0_big", "google/gemma-scope-2-270m-pt", "resid_post_all/layer_3_width_16k_l0_big"),
        ("gemma-scope-2-270m-pt-transcoders:transcoder/layer_15_width_262k_l0_big_affine", "google/gemma-scope-2-270m-pt", "transcoder/layer_15_width_262k_l0_big_affine"),
        ("gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71", "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"),
        ("gemma-3-270m/12-gemmascope-2-res-16k", "google/gemma-scope-2-270m-pt", "resid_post/layer_12_width_16k_l0_medium"),
        ("gemma-3-4b-it/29-gemmascope-2-res-262k/404", "google/gemma-scope-2-4b-it", "resid_post/layer_29_width_262k_l0_medium"),
    ],
)  # fmt: skip
def test_names_by_rule(name, repository, folder):
    assert locate(name) == (repository, folder)


def test_a_mirror_needs_no_network(make_dictionary, tmp_path, monkeypatch):
    d = make_dictionary()
    place = tmp_path / "google/gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium"
    save_dictionary(d, place, format="gemma-scope-2")
    monkeypatch.setenv("DIASCOPE_MIRROR", str(tmp_path))
    for name in (
        "gemma-3-270m/12-gemmascope-2-res-16k",
        "google/gemma-scope-2-270m-pt/resid_post/layer_12_width_16k_l0_medium",
    ):
        assert torch.equal(load_dictionary(name).W_dec, d.W_dec)
    with pytest.raises(ValueError, match=r"the mirror .* has no google/gemma-scope-2-270m-pt/clt/x"):
        load_dictionary("google/gemma-scope-2-270m-pt/clt/x")


def test_only_what_is_needed_is_fetched(make_dictionary, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    save_dictionary(make_dictionary(), tmp_path / "resid_post/x", format="gemma-scope-2")

    def fetch(repository, *, allow_patterns, local_files_only=False):
        if local_files_only:
            raise OSError("not cached")
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    resolve("google/gemma-scope-2-270m-pt/resid_post/x")
    assert "resid_post/x/params*.safetensors" in asked and not any("examples" in p for p in asked)
    resolve("google/gemma-scope-2-270m-pt/resid_post/x", examples=True)
    assert "resid_post/x/examples.safetensors" in asked
    with pytest.raises(ValueError, match="has no dictionary at resid_post/y"):
        resolve("google/gemma-scope-2-270m-pt/resid_post/y")


@pytest.mark.parametrize("name", ["./gone", "/gone/x", "gone", "~/gone", "a b/c d"])
def test_what_is_nothing_is_said(name):
    with pytest.raises(ValueError, match=r"there is no dictionary folder|neither a local folder"):
        resolve(name)


def test_no_network_is_said(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=r"from the hub .no route to host.: is there a network"):
        load_dictionary("google/gemma-scope-2-270m-pt/resid_post/x")
