"""Steering beside the model as it is: against a hook by hand, by what each method promises, and with no push at all."""

import math

import pytest
import torch

from diascope.dictionaries import Causal, Dictionary, DictionaryConfig
from diascope.latents.steering import METHODS, Push, side_by_side, stream, typical_norms
from diascope.models.toy import toy_model
from diascope.sites import Site

SITE = Site.parse("L2.resid_post")
PROMPT = [2, 30, 31, 32, 33, 34]


def vector(seed=0, d=32):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed))


def pairs(model, pushes, **options):
    return list(side_by_side(model, PROMPT, pushes, **{"max_new_tokens": 12} | options))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("pushes", ["none", "zero"])
def test_without_strength_both_sides_are_equal_bit_for_bit(toy, make_dictionary, temperature, pushes):
    zero = [Push.of_latent(make_dictionary(), 3, dose=0.0), Push.of_vector(SITE, vector(), dose=0.0)]
    for seed in range(4):
        found = pairs(toy, zero if pushes == "zero" else [], temperature=temperature, seed=seed)
        assert found and all(p.default == p.steered for p in found)  # ids, texts, log-probabilities, the top five


@pytest.mark.parametrize(
    ("push", "acts"),
    [
        (Push.of_vector(SITE, vector(), dose=0.0), False),
        (Push.of_vector(SITE, vector(), dose=1e5, method="cap"), False),  # never reached
        (Push.of_vector(SITE, vector(), dose=1e-3), True),
        (Push.of_vector(SITE, vector(), dose=0.0, method="orthogonal"), True),  # takes the direction away
    ],
)
def test_rounding_between_rows_shows_only_once_a_push_has_acted(toy, monkeypatch, push, acts):
    step = toy.decode_step

    def rounded(*args):
        hidden, past = step(*args)
        return hidden * torch.tensor([[1.0], [1.0 + 1e-6]]), past  # as more threads, or a GPU, tell rows apart

    monkeypatch.setattr(toy, "decode_step", rounded)
    found = pairs(toy, [push])
    assert all(p.default == p.steered for p in found) != acts


def by_hand(model, change, steps):
    """Greedy tokens and log-probabilities with `change` added after block 2, everywhere but at BOS, without a cache."""
    ids, told = list(PROMPT), []

    def hook(module, args, output):
        y = output[0] if isinstance(output, tuple) else output
        y = y.clone()
        y[:, 1:] += change
        return (y, *output[1:]) if isinstance(output, tuple) else y

    handle = model.module.model.layers[2].register_forward_hook(hook)
    try:
        for _ in range(steps):
            with torch.no_grad():
                log_p = model.module(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            ids.append(int(log_p.argmax()))
            told.append((ids[-1], float(log_p.max())))
    finally:
        handle.remove()
    return told


def test_additive_is_the_vector_added_by_hand_on_every_token(toy):
    v = vector()
    found = pairs(toy, [Push.of_vector(SITE, v, dose=3.0)])
    expected = by_hand(toy, 3.0 * v, len(found))
    assert [p.steered.id for p in found] == [token for token, _ in expected]
    torch.testing.assert_close(torch.tensor([p.steered.log_probability for p in found]), torch.tensor([q for _, q in expected]), rtol=1e-5, atol=1e-5)  # fmt: skip
    plain = by_hand(toy, torch.zeros(32), len(found))
    assert [p.default.id for p in found] == [token for token, _ in plain] != [token for token, _ in expected]


def test_pushes_add_up(toy, make_dictionary):
    d = make_dictionary()
    both = pairs(toy, [Push.of_latent(d, 5, dose=2.0), Push.of_vector(SITE, vector(), dose=1.5)])
    expected = by_hand(toy, 2.0 * d.direction(5)[SITE] + 1.5 * vector(), len(both))
    assert [p.steered.id for p in both] == [token for token, _ in expected]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_leaves_along_the_direction_what_it_promises(toy, make_dictionary, method):
    d, j = make_dictionary(), 7
    v = d.direction(j)[SITE]
    y = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1)) * 3
    (edit,) = Push.of_latent(d, j, dose=0.7, method=method).edits()
    new = edit.function(y, y)
    before, after = (x @ v / (v @ v) for x in (y, new))
    torch.testing.assert_close(new - y, (after - before)[..., None] * v, rtol=1e-4, atol=1e-5)  # nothing else moves
    expected = {
        "additive": before + 0.7,
        "orthogonal": torch.full_like(before, 0.7),
        "cap": before.clamp_max(0.7),
        "clamp": before + 0.7 - d.encode(y).dense()[..., j],
    }[method]
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
    assert (before > 0.7).any() and (before < 0.7).any()  # both sides of a cap were tried


def test_a_direction_at_several_sites_is_steered_at_each(toy):
    g = torch.Generator().manual_seed(0)
    sites = ("L1.resid_post", "L2.resid_post")
    config = DictionaryConfig("toy", sites, sites, (32, 32), (32, 32), 8, map=Causal())
    tensors = {"b_enc": torch.zeros(8), "b_dec": torch.zeros(64), "threshold": torch.zeros(8)}
    for i, d_out in enumerate((64, 32)):
        tensors |= {f"W_enc.{i}": torch.randn(32, 4, generator=g), f"W_dec.{i}": torch.randn(4, d_out, generator=g)}
    push = Push.of_latent(Dictionary(config, tensors), 5, dose=1.0, method="orthogonal")
    assert list(push.direction) == [SITE]  # a latent of the second block writes there alone
    assert len(Push.of_latent(Dictionary(config, tensors), 1, dose=1.0, method="cap").edits()) == 2


def test_a_stopped_stream_leaves_the_model_as_it_was(toy):
    before = toy.logits([PROMPT])
    running = side_by_side(toy, PROMPT, [Push.of_vector(SITE, vector(), dose=50.0)])
    next(running)
    assert torch.equal(toy.logits([PROMPT]), before)  # between two steps
    running.close()
    assert torch.equal(toy.logits([PROMPT]), before)


def test_log_probabilities_are_the_models_and_the_top_five_are_sorted(toy):
    (first, *_) = pairs(toy, [], temperature=1.0, seed=3)
    log_p = toy.logits([PROMPT])[0, -1].float().log_softmax(-1)
    assert first.default.log_probability == pytest.approx(float(log_p[first.default.id]), abs=1e-5)
    assert [p for _, p in first.default.top] == pytest.approx(log_p.topk(5).values.tolist(), abs=1e-5)


def test_seeds_draw_alike_and_differently(toy):
    def text(seed):
        return [p.default.id for p in pairs(toy, [], temperature=1.0, seed=seed)]

    assert text(1) == text(1) and len({tuple(text(s)) for s in range(4)}) > 1


def test_pieces_make_the_text_and_characters_are_not_torn(toy, monkeypatch):
    ids = toy.tokenizer("né 漢字 ok", add_special_tokens=False)["input_ids"]  # one token a byte
    wanted = iter(ids)

    def chosen(logits, *_):
        return torch.tensor([next(wanted)])

    monkeypatch.setattr("diascope.latents.steering.steps.next_tokens", chosen)
    texts = [step[0].text for step in stream(toy, [PROMPT], max_new_tokens=len(ids), seeds=[0])]
    assert "".join(texts) == "né 漢字 ok" and "\ufffd" not in "".join(texts)
    assert texts[1:3] == ["", "é"]


def test_a_row_that_ends_is_none_from_then_on(toy, monkeypatch):
    plan = iter([[40, 41], [1, 42], [9, 43]])  # 1 is <eos>
    monkeypatch.setattr("diascope.latents.steering.steps.next_tokens", lambda *_: torch.tensor(next(plan)))
    steps = list(stream(toy, [PROMPT, PROMPT], max_new_tokens=3, seeds=[0, 0]))
    assert [s[0] and (s[0].id, s[0].ends) for s in steps] == [(40, False), (1, True), None]
    assert [s[1].id for s in steps] == [41, 42, 43]


def test_typical_norms_are_medians_over_ordinary_tokens(toy):
    seen = toy.capture([PROMPT], SITE)[SITE][0, 1:]  # without BOS
    norms = typical_norms(toy, [SITE], [PROMPT])
    assert norms[SITE] == pytest.approx(float(seen.norm(dim=-1).median()))
    assert Push.of_vector(SITE, vector(), dose=1).per_norm(norms) * float(vector().norm()) == pytest.approx(norms[SITE])
    with pytest.raises(ValueError, match="special"):
        typical_norms(toy, [SITE], [[2]])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Push.of_vector(SITE, vector(), dose=1, method="rotate"), "no method 'rotate'"),
        (lambda: Push.of_vector(SITE, vector(), dose=math.nan), "dose is nan"),
        (lambda: Push.of_vector(SITE, vector(), dose=1, method="clamp"), "use orthogonal"),
        (lambda: Push.of_vector(SITE, torch.zeros(32), dose=1), "points nowhere"),
        (lambda: Push.of_vector(SITE, torch.ones(2, 32), dose=1), "one axis"),
    ],
)
def test_wrong_pushes_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("push", "options", "says"),
    [
        (Push.of_vector(SITE, torch.ones(31), dose=1), {}, "32 numbers, the direction has 31"),
        (Push.of_vector("L9.resid_post", torch.ones(32), dose=1), {}, "L9"),
        (Push.of_vector("chat:L2.resid_post", torch.ones(32), dose=1), {}, "steer that one"),
        (Push.of_vector(SITE, torch.ones(32), dose=1), {"temperature": -1.0}, "temperature is -1"),
        (
            Push.of_vector(SITE, torch.ones(32), dose=1),
            {"max_new_tokens": 123},
            "6 tokens and 123 new ones are more than the 128",
        ),
        (Push.of_vector(SITE, torch.ones(32), dose=1e39), {"max_new_tokens": 4}, "not finite"),
    ],
)
def test_what_cannot_be_run_is_named(toy, push, options, says):
    with pytest.raises(ValueError, match=says):
        pairs(toy, [push], **options)


def test_messages_are_written_by_the_chat_template():
    model = toy_model()
    with pytest.raises(ValueError, match="no chat template"):
        side_by_side(model, [{"role": "user", "content": "hi"}], [])
    model.tokenizer.chat_template = "<bos>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[model]{% endif %}"  # fmt: skip
    chat = list(side_by_side(model, [{"role": "user", "content": "hi"}], [], max_new_tokens=4))
    plain = list(side_by_side(model, "[user]hi[model]", [], max_new_tokens=4))
    assert [p.default.id for p in chat] == [p.default.id for p in plain]
