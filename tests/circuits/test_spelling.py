"""Targets and nodes as people write them."""

import numpy as np
import pytest
import torch
from planted import PROMPT, transcoders
from safetensors.torch import save_file

from diascope.circuits import DirectionTarget, LatentTarget, Place, TokenTarget, TopLogits, TraceConfig, trace
from diascope.circuits.spelling import fixed_target, place_of, position_of, target_of
from diascope.models.toy import toy_model

ONE = {" Rome", " Paris", " - ", "-", "a", "b - c"}.__contains__


@pytest.fixture(scope="module")
def model():
    m = toy_model()
    m.module.double()
    return m


@pytest.mark.parametrize(
    ("texts", "against", "target"),
    [
        ((), "", TopLogits()),
        ((" Rome",), "", TokenTarget(" Rome")),
        ((" Rome",), " Paris", TokenTarget(" Rome", " Paris")),
        ((" Rome -  Paris",), "", TokenTarget(" Rome", " Paris")),
        ((" -  - a",), "", TokenTarget(" - ", "a")),
        ((" - ",), "", TokenTarget(" - ")),  # a token is a token, whatever it looks like
        (("b - c",), "", TokenTarget("b - c")),
        (("two words",), "", TokenTarget("two words")),  # refused where ids are known, with the tokens it has
        ((" Rome", " Paris"), "", TokenTarget((" Rome", " Paris"))),
        (("L5/123@-2",), "", LatentTarget(5, 123, -2)),
        (("L5/123",), "", LatentTarget(5, 123)),
    ],
)
def test_what_is_meant(texts, against, target):
    assert target_of(texts, ONE, against) == target


@pytest.mark.parametrize(
    ("texts", "against", "says"),
    [
        ((" Rome - two words",), "", "is no difference of two tokens"),
        (("L5/123", " Rome"), "", "trace a latent or a direction by itself"),
        (("L5/123",), " Rome", "trace a latent or a direction by itself"),
    ],
)
def test_what_is_not_understood_says_so(texts, against, says):
    with pytest.raises(ValueError, match=says):
        target_of(texts, ONE, against)


def test_a_direction_comes_from_a_file(tmp_path):
    u = torch.arange(1.0, 5.0)
    np.save(tmp_path / "probe.npy", u.numpy()[None].astype(np.float64))
    save_file({"a": u, "b": 2 * u}, tmp_path / "two.safetensors")
    save_file({"only": u}, tmp_path / "one.safetensors")
    found = {
        f"{tmp_path}/probe.npy@L12": ("L12.resid_post", -1, 1, "probe"),
        f"{tmp_path}/one.safetensors@L3.resid_post@5": ("L3.resid_post", 5, 1, "one"),
        f"{tmp_path}/two.safetensors:b@L3@-2": ("L3.resid_post", -2, 2, "two:b"),
    }
    for text, (site, position, times, name) in found.items():
        target = fixed_target(text)
        assert isinstance(target, DirectionTarget) and (target.direction == times * u).all()
        assert (target.site, target.position, target.name) == (site, position, name)
    bad = {
        "probe.npy": "say after which block",
        "two.safetensors@L3": "holds a, b: name one",
        "two.safetensors:c@L3": "holds a, b, not c",
        "probe.npy:a@L3": "holds one array",
        "none.npy@L3": "there is no file",
    }
    for text, says in bad.items():
        with pytest.raises(ValueError, match=says):
            fixed_target(f"{tmp_path}/{text}")
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "torn.safetensors").write_bytes(b"x")
    for name in ("object.npy", "torn.safetensors"):
        with pytest.raises(ValueError, match=name):
            fixed_target(f"{tmp_path}/{name}@L1")


@pytest.mark.parametrize("text", ["L3/123@4", "L3/*@-1", "L3/error@4", "L3@4", "@4", "L3", "/*@2", "/error", "L12/0", "all"])
def test_places_are_read_as_they_are_written(text):
    assert str(place_of(text)) == text


def test_places_mean_what_they_say():
    assert place_of("L3/123@4") == Place(3, 4, 123) and place_of("@-1") == Place(None, -1, "all")
    assert place_of("/*") == Place(None, None, "latents") and place_of("L3/error") == Place(3, None, "error")
    for text in ("", "3/4@1", "L3/x", "/12@4", "L3@", "L3/123@4 "):
        with pytest.raises(ValueError, match="names no nodes"):
            place_of(text)
    assert position_of("9:7") == (9, 7) and position_of("-1:-2") == (-1, -2)
    with pytest.raises(ValueError, match="HERE:THERE"):
        position_of("9")


def test_several_tokens_are_weighed_by_their_probabilities(model):
    g = trace(model, transcoders(), PROMPT, target=TokenTarget((40, 50, 60)), config=TraceConfig(tolerance=1e-5))
    logits = model.logits(torch.tensor([PROMPT]))[0, -1]
    p = logits.softmax(-1)[[40, 50, 60]]
    assert g.index[g.targets()].tolist() == [40, 50, 60]
    torch.testing.assert_close(g.weight[g.targets()], (p / p.sum()).float(), rtol=1e-5, atol=1e-7)
    alone = trace(model, transcoders(), PROMPT, target=TokenTarget(50), config=TraceConfig(tolerance=1e-5))
    assert float(g.value[g.targets()[1]]) == pytest.approx(float(alone.value[alone.targets()[0]]))
    against = trace(model, transcoders(), PROMPT, target=TokenTarget((40, 50), against=60), config=TraceConfig(tolerance=1e-5))
    wanted = (logits[[40, 50]] - logits[60]).float()
    torch.testing.assert_close(against.value[against.targets()], wanted, rtol=1e-4, atol=1e-5)
    for bad in ((40, 40), ()):
        with pytest.raises(ValueError, match="several different ones"):
            trace(model, transcoders(), PROMPT, target=TokenTarget(bad))
