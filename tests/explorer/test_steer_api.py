"""The playground's interface: what it asks for is done as from Python, and what is wrong gets a sentence."""

import json

import httpx
import pytest
import torch
from steer_workspace import DEAD, TOKEN, events, opened_of, served, write_index

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.explorer.steer import MOST_PUSHES
from diascope.latents.steering import Push, side_by_side, typical_norms
from diascope.models.toy import toy_model
from diascope.sites import Site

HEADERS = {"authorization": f"Bearer {TOKEN}"}
SITE = Site.parse("L2.resid_post")
TEMPLATE = (
    "<bos>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"
)


@pytest.fixture(scope="module")
def d():
    g = torch.Generator().manual_seed(0)
    tensors = {
        "W_enc": torch.randn(32, 64, generator=g) / 32**0.5,
        "W_dec": torch.nn.functional.normalize(torch.randn(64, 32, generator=g), dim=1),
        "b_enc": torch.randn(64, generator=g) * 0.1,
        "b_dec": torch.randn(32, generator=g),
        "threshold": torch.rand(64, generator=g) * 0.3,
    }
    return Dictionary(DictionaryConfig.single("toy", str(SITE), str(SITE), 32, 32, 64), tensors)


@pytest.fixture(scope="module")
def chatty():
    model = toy_model()
    model.tokenizer.chat_template = TEMPLATE
    return model


@pytest.fixture(scope="module")
def client(tmp_path_factory, chatty, d):
    index = write_index(tmp_path_factory.mktemp("api") / "index", chatty, d)
    with served(index, opened_of(chatty, d)) as (address, _), httpx.Client(base_url=address, headers=HEADERS) as client:
        yield client


def run(client, **asked):
    answer = client.post("/api/steer", json={"prompt": "abc", "pushes": [], "max_new_tokens": 6} | asked)
    assert answer.status_code == 200, answer.text
    found = list(events(iter(answer.text.split("\n"))))
    assert [kind for _, kind, _ in found[:2]] == ["job", "begin"], found
    return found[1][2], [data for _, kind, data in found if kind == "step"], found[-1]


def latent(j=3, dose=1.0):
    return {"source": "sae", "latent": j, "dose": dose}


@pytest.mark.parametrize("method", ["additive", "orthogonal", "cap", "clamp"])
def test_what_is_streamed_is_what_python_gives(client, chatty, d, method):
    begin, steps, (_, kind, last) = run(client, pushes=[latent(dose=1.5)], method=method, temperature=0.8, seed=4)
    push = Push.of_latent(d, 3, dose=1.5 * 2.0, method=method)  # the largest activation in the index is 2
    expected = list(side_by_side(chatty, "abc", [push], max_new_tokens=6, temperature=0.8, seed=4))
    assert begin == {"prompt_tokens": 4, "pushes": [{"dose": 3.0, "sites": [str(SITE)]}]}
    for got, want in zip(steps, expected, strict=True):
        for side in ("default", "steered"):
            token = getattr(want, side)
            assert got[side] == (token and {"text": token.text, "log_probability": token.log_probability, "top": [list(t) for t in token.top], "ends": token.ends})  # fmt: skip
    assert kind == "done"
    for side in ("default", "steered"):
        told = [s[side] for s in steps if s[side]]
        assert last[side] == {"text": "".join(t["text"] for t in told if not t["ends"]), "tokens": len(told), "ended": told[-1]["ends"]}  # fmt: skip


def test_no_strength_is_no_difference(client):
    for unit in ("activation", "max", "norm"):
        _, steps, _ = run(client, pushes=[latent(dose=0.0), latent(5, 0.0)], unit=unit, temperature=1.0, seed=2)
        assert steps and all(s["default"] == s["steered"] for s in steps)


def test_units_are_told_in_the_directions_own(client, chatty, d):
    corpus = [[2, *range(30, 49)]] * 3
    typical = typical_norms(chatty, [SITE], corpus)[SITE]
    v = [float(x) for x in torch.arange(1, 33)]
    length = float(torch.tensor(v).norm())
    doses = {
        unit: [p["dose"] for p in run(client, pushes=[latent(dose=0.5)], unit=unit)[0]["pushes"]]
        for unit in ("activation", "max", "norm")
    }
    assert doses["activation"] == [0.5] and doses["max"] == [1.0]
    assert doses["norm"] == [pytest.approx(0.5 * typical, rel=1e-5)]  # decoder rows have unit length
    vector = {"site": str(SITE), "vector": v, "dose": 2.0}
    assert run(client, pushes=[vector], unit="activation")[0]["pushes"][0]["dose"] == 2.0
    assert run(client, pushes=[vector, latent()], unit="norm")[0]["pushes"][0]["dose"] == pytest.approx(2 * typical / length, rel=1e-5)  # fmt: skip


def test_a_chat_is_written_by_the_template(client):
    assert client.get("/api/steer").json()["chat"] is True
    asked = {"prompt": "", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]}
    chat = run(client, **asked)
    assert chat[1] == run(client, prompt="[system]be brief[user]hi[model]")[1]


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"prompt": " "}, 400, "a prompt or messages"),
        ({"messages": [{"role": "user", "content": "hi"}]}, 400, "one of the two"),
        ({"prompt": "", "messages": [{"role": "assistant", "content": "hi"}]}, 400, "must be the user's"),
        ({"prompt": "", "messages": [{"role": "root", "content": "hi"}]}, 400, "Invalid enum value 'root'"),
        ({"prompt": "", "messages": [{"role": "user", "content": "hi"}] * 65}, 400, "length <= 64"),
        ({"prompt": "x" * 20_001}, 413, "20,001 characters"),
        ({"pushes": [latent()] * (MOST_PUSHES + 1)}, 400, "length <= 16"),
        ({"pushes": [latent(64)]}, 404, "latents 0 to 63"),
        ({"pushes": [latent(-1)]}, 404, "latents 0 to 63"),
        ({"pushes": [{"source": "../../etc", "latent": 1, "dose": 1}]}, 404, "no source"),
        ({"pushes": [{"dose": 1}]}, 400, "of a latent"),
        ({"pushes": [latent() | {"site": "L2.resid_post"}]}, 400, "of a latent"),
        ({"pushes": [latent(DEAD)]}, 422, "never fired"),
        ({"pushes": [latent(dose=1e7)]}, 400, "$.pushes[0].dose"),
        ({"pushes": [{"site": "nowhere", "vector": [1.0], "dose": 1}]}, 400, "nowhere"),
        ({"pushes": [{"site": "L2.resid_post", "vector": [], "dose": 1}], "unit": "norm"}, 400, "not all 0"),
        ({"pushes": [{"site": "L2.resid_post", "vector": [1.0], "dose": 1}]}, 400, "no largest activation"),
        (
            {"pushes": [{"site": "L2.resid_post", "vector": [1.0], "dose": 1}], "unit": "norm", "method": "clamp"},
            400,
            "orthogonal",
        ),
        ({"method": "rotate"}, 400, "Invalid enum value 'rotate'"),
        ({"max_new_tokens": 257}, 400, "<= 256"),
        ({"temperature": -1}, 400, ">= 0"),
        ({"seed": -1}, 400, ">= 0"),
        ({"seed": True}, 400, "int"),
        ({"path": "/etc/passwd"}, 400, "unknown field"),
    ],
)
def test_wrong_requests_get_a_sentence(client, asked, status, says):
    answer = client.post("/api/steer", json={"prompt": "abc", "pushes": []} | asked)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text


def test_a_client_cannot_set_the_factor(client):
    begin, _, _ = run(client, pushes=[latent() | {"factor": 1e6}], unit="activation")
    assert begin["pushes"][0]["dose"] == 1.0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"pushes": [{"site": "L9.resid_post", "vector": [1.0], "dose": 1}], "unit": "activation"}, "L9"),
        (
            {"pushes": [{"site": "L2.resid_post", "vector": [1.0] * 31, "dose": 1}], "unit": "activation"},
            "the direction has 31",
        ),
        ({"pushes": [{"site": "L2.resid_post", "vector": [1e38] * 32, "dose": 1e6}], "unit": "activation"}, "finite"),
        ({"prompt": "x" * 2000}, "the limit is 1,024"),
        ({"prompt": "x" * 100, "max_new_tokens": 64}, "more than the 128"),
    ],
)
def test_what_the_model_cannot_do_fails_with_a_sentence(client, asked, says):
    answer = client.post("/api/steer", json={"prompt": "abc", "pushes": []} | asked)
    _, kind, data = list(events(iter(answer.text.split("\n"))))[-1]
    assert kind == "failed" and says in data["error"], json.dumps(data)
    assert run(client)[2][1] == "done"  # and the next one works
