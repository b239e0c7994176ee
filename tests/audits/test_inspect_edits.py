"""Edits as data are the operators of audits, what is wrong with them is said, and damaged packed logs are refused."""

import json
import zipfile

import numpy as np
import pytest
import torch
from planted_behaviour import planted_model, unit

from diascope.audits.exchange.answer import Changed, Sampling, answer
from diascope.audits.exchange.edits_file import read_edits
from diascope.audits.monitor import Monitor
from diascope.audits.operators import Along, AtMost, Intervention, OfLatent, Plus, Times, To, everywhere
from diascope.audits.transcript import read_transcripts
from diascope.sites import Site


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture
def vector(tmp_path):
    np.save(tmp_path / "v.npy", unit(2) * 3)
    return f"{tmp_path}/v.npy@L1.resid_post"


def test_a_file_of_edits_is_the_operators_of_audits(model, make_dictionary, vector, tmp_path):
    d = make_dictionary()
    listed = [
        {"operator": "add", "latent": 5, "amount": 2.0},
        {"operator": "pin", "latent": 5, "amount": 0.5, "when": ["response"]},
        {"operator": "ablate", "direction": vector},
        {"operator": "cap", "direction": vector, "amount": 1.0},
        {"operator": "scale", "direction": vector, "amount": 0.5, "sites": ["L0.resid_post", "L3.resid_post"]},
    ]
    (tmp_path / "edits.json").write_text(json.dumps(listed))
    add, pin, ablate, cap, scale = read_edits(tmp_path / "edits.json", model, d)
    assert all(isinstance(e, Intervention) for e in (add, pin, ablate, cap, scale))
    assert add.what == OfLatent(d, 5, Plus(2.0)) and add.when == ("prompt", "response") and add.label == "add 5 by 2"
    assert pin.what == OfLatent(d, 5, To(0.5)) and pin.when == ("response",)
    assert isinstance(ablate.what, Along) and ablate.what.rule == Times(0.0)
    assert ablate.sites == everywhere(model)  # as audits ablate
    assert cap.what.rule == AtMost(1.0) and cap.sites == (Site(1, "resid_post"),)
    assert torch.equal(cap.what.direction, torch.from_numpy(unit(2) * 3).float())
    assert scale.sites == (Site(0, "resid_post"), Site(3, "resid_post"))


def test_a_monitor_is_a_direction_and_a_splice_is_the_dictionarys(model, make_dictionary, tmp_path):
    m = Monitor("p", "m", "0" * 16, "L2.resid_post", "last", "mean", tuple(unit(1).tolist()), 0.0, 0.5, "none", 0)
    m.save(tmp_path / "m.json")
    (edit,) = read_edits([{"operator": "add", "direction": f"{tmp_path}/m.json", "amount": -1}], model, None)
    assert edit.sites == (Site(2, "resid_post"),) and edit.what.direction.tolist() == unit(1).tolist()
    d, prompt = make_dictionary(), model.tokenize("abc")
    found = answer(model, prompt, Sampling(max_tokens=5), edits=read_edits([{"operator": "splice"}], model, d))
    with model.splice(d, keep_error=False):
        assert found.text == model.generate(prompt, max_new_tokens=5)
    assert found.changed == [Changed("splice L2.resid_post", 1, 3, 4)] and len(prompt) == 4  # BOS is left alone


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"operator": "add", "amount": 1.0}, "give a latent or a direction"),
        ({"operator": "add", "latent": 1}, "add takes a finite amount, not None"),
        ({"operator": "ablate", "latent": 1, "amount": 2.0}, "ablate takes no amount"),
        ({"operator": "add", "latent": 1, "amount": float("nan")}, "takes a finite amount"),
        ({"operator": "add", "latent": 64, "amount": 1.0}, "latents 0 to 63"),
        ({"operator": "add", "latent": 1, "amount": 1.0, "dose": 1}, "edit 0: .*dose"),
        ({"operator": "push", "latent": 1, "amount": 1.0}, "edit 0: Invalid enum value 'push'"),
        ({"operator": "add", "direction": "none.npy@L1.resid_post", "amount": 1.0}, "there is no file none.npy"),
        ({"operator": "add", "direction": "VECTOR", "amount": 1.0, "sites": ["L9.resid_post"]}, "L9"),
    ],
)
def test_what_is_wrong_with_an_edit_is_said(model, make_dictionary, vector, edit, says):
    given = {k: vector if v == "VECTOR" else v for k, v in edit.items()}
    with pytest.raises(ValueError, match=says):
        read_edits([given], model, make_dictionary())


def test_latents_need_a_dictionary_and_vectors_the_models_width(model, tmp_path):
    with pytest.raises(ValueError, match="say dictionary=FOLDER"):
        read_edits([{"operator": "ablate", "latent": 1}], model, None)
    np.save(tmp_path / "short.npy", np.ones(7))
    with pytest.raises(ValueError, match=r"has 7 numbers, L0\.resid_pre of planted 32"):
        read_edits([{"operator": "ablate", "direction": f"{tmp_path}/short.npy@L1.resid_post"}], model, None)
    with pytest.raises(ValueError, match="no file of edits"):
        read_edits(tmp_path / "none.json", model, None)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_edits(str(tmp_path / "bad.json"), model, None)
    with pytest.raises(ValueError, match="edits are a list"):
        read_edits({"operator": "add"}, model, None)  # type: ignore[arg-type]


def test_packed_logs_without_samples_and_damaged_ones_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.eval", "w") as archive:
        archive.writestr("header.json", "{}")
    with pytest.raises(ValueError, match="has no samples"):
        read_transcripts(tmp_path / "empty.eval")
    said = {"id": 1, "epoch": 1, "messages": [{"role": "user", "content": "Hello there."}]}
    with zipfile.ZipFile(tmp_path / "old.eval", "w", zipfile.ZIP_DEFLATED) as archive:  # as older versions packed them
        archive.writestr("samples/1_epoch_1.json", json.dumps(said))
    (t,) = read_transcripts(tmp_path / "old.eval")
    assert [x.text for x in t.turns] == ["Hello there."]
    whole = (tmp_path / "old.eval").read_bytes()
    (tmp_path / "cut.eval").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is no packed Inspect log, or it is damaged"):
        read_transcripts(tmp_path / "cut.eval")
