"""Operators against arithmetic by hand, trials on tails against whole passes, and counters that notice a hook that stops."""

from dataclasses import replace

import pytest
import torch
from planted_behaviour import TEMPLATE

from diascope.audits import Case, Target
from diascope.audits.operators import (
    Above,
    Along,
    AtLeast,
    AtMost,
    Counted,
    Intervention,
    OfLatent,
    Plus,
    Times,
    To,
    ToIfActive,
    everywhere,
)
from diascope.audits.spans import prompt
from diascope.audits.target import Tails
from diascope.models.prefixes import Prefixes
from diascope.models.toy import toy_model
from diascope.sites import Site

SITE = Site.parse("L2.resid_post")


@pytest.fixture(scope="module")
def target():
    model = toy_model()
    model.tokenizer.chat_template = TEMPLATE
    return Target(model, batch=3)


def cases(*texts, **more):
    return [Case(str(i), ({"role": "user", "content": t},), "a", str(i), **more) for i, t in enumerate(texts)]


TEXTS = ("one", "two three", "four five six", "7", "eight nine")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Plus(2.0), lambda c: c + 2.0), (Times(0.0), lambda c: 0 * c), (Times(3.0), lambda c: 3 * c), (To(1.5), lambda c: 0 * c + 1.5),
        (ToIfActive(2.0), lambda c: torch.where(c > 0, 2.0, c)), (AtMost(0.5), lambda c: c.clamp(max=0.5)), (AtLeast(0.5), lambda c: c.clamp(min=0.5)),
    ],
)  # fmt: skip
def test_a_direction_holds_what_the_rule_says_and_all_else_stays(rule, expected):
    g = torch.Generator().manual_seed(0)
    v, y = torch.randn(8, generator=g), torch.randn(2, 5, 8, generator=g)
    new = y + Along(v, rule).shift(y, y)
    multiple = lambda t: (t @ v) / (v @ v)  # noqa: E731
    assert torch.allclose(multiple(new), expected(multiple(y)), atol=1e-5)
    off = lambda t: t - multiple(t)[..., None] * v  # noqa: E731
    assert torch.allclose(off(new), off(y), atol=1e-5)


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
@pytest.mark.parametrize(
    ("rule", "wanted"), [(Times(0.0), lambda f: 0 * f), (ToIfActive(5.0), lambda f: torch.where(f > 0, 5.0, f))]
)
def test_a_latent_is_changed_and_the_error_stays(make_dictionary, kind, rule, wanted):
    d = make_dictionary(kind=kind, skip=kind == "transcoder")
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 9, 32, generator=g) * 3, torch.randn(1, 9, 32, generator=g)
    f = d.encode(x).dense()
    j = int((f > 0).sum((0, 1)).argmax())
    changed = f.clone()
    changed[..., j] = wanted(f[..., j])
    error = y - d.decode(d.encode(x), x)
    skip = x @ d.W_skip if d.config.skip else 0
    assert torch.allclose(y + OfLatent(d, j, rule).shift(x, y), changed @ d.W_dec + d.b_dec + skip + error, atol=1e-4)


def test_an_ablation_in_a_text_is_the_dictionarys_own(target, make_dictionary):
    d, model = make_dictionary(), target.model
    ids = torch.tensor([model.tokenize("some words here")])
    j = int((d.encode(model.capture(ids, [SITE])[SITE]).dense() > 0).sum((0, 1)).argmax())
    edits, counted = Intervention(OfLatent(d, j, Times(0.0))).edits(model.ordinary(ids))
    with model.edit(*edits):
        ours = model.logits(ids)
    with model.edit(d.ablate(j)):
        assert torch.allclose(ours, model.logits(ids), atol=1e-5)
    assert not torch.allclose(ours, model.logits(ids), atol=1e-3)
    assert counted[0].positions == [ids.shape[1] - 1]


def whole_pass(target, text, change):
    """Next-token log-probabilities with `change` added after block 2 on the tail, without a cache."""
    p = prompt(target.model, cases(text)[0])
    ids = torch.tensor([p.tokens])

    def hook(module, args, output):
        y = (output[0] if isinstance(output, tuple) else output).clone()
        y[:, -p.tail :] = change(y[:, -p.tail :])
        return (y, *output[1:]) if isinstance(output, tuple) else y

    handle = target.model.module.model.layers[2].register_forward_hook(hook)
    try:
        return target.model.logits(ids)[0, -1].log_softmax(-1)
    finally:
        handle.remove()


def test_directions_in_one_batch_are_each_by_itself_over_the_whole_prompt(target):
    v = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    tails = Tails(target, target.prompts(cases(*TEXTS)))
    found = tails.read(lambda p, _: p, [Intervention(Along(v, Plus(2.0)), (SITE,))], repeats=4)
    for i, text in enumerate(TEXTS):
        for r in range(4):
            assert torch.allclose(found[i, r], whole_pass(target, text, lambda y, r=r: y + 2 * v[r]), atol=1e-4)
    clean = tails.read(lambda p, _: p)
    assert torch.allclose(clean[2, 0], whole_pass(target, TEXTS[2], lambda y: y), atol=1e-4)
    assert not torch.allclose(clean[2, 0], found[2, 0], atol=1e-2)


@pytest.mark.parametrize("kind", ["resid_pre", "attn_out", "attn_write", "mlp_in", "mlp_out", "resid_post"])
def test_blocks_below_an_edit_are_not_computed_again(target, kind, monkeypatch):
    """The same to the last bit as with all blocks, whatever is edited, and in turn with an edit lower down."""
    width = target.model.width(Site(2, kind))
    v = torch.randn(width, generator=torch.Generator().manual_seed(1))
    tails = Tails(target, target.prompts(cases(*TEXTS)))
    edits = [Intervention(Along(v, Plus(2.0)), (Site(layer, kind),)) for layer in (2, 1, 3)]
    attended = []
    for layer, block in enumerate(target.model.parts.blocks):
        forward = block.self_attn.forward
        monkeypatch.setattr(block.self_attn, "forward", lambda *a, f=forward, n=layer, **k: (attended.append(n), f(*a, **k))[1])
    found = [tails.read(lambda p, _: p, [e]) for e in edits]
    attended.clear()
    tails.read(lambda p, _: p, [edits[2]])
    assert min(attended) == 3
    monkeypatch.setattr(type(target.model), "resumes", False)
    for edit, quick in zip(edits, found, strict=True):
        assert torch.equal(tails.read(lambda p, _: p, [edit]), quick)
    assert 0 in attended


READS_BETWEEN = {
    "gemma3_text": "pre_feedforward_layernorm",
    "llama": "post_attention_layernorm",
    "gpt2": "ln_2",
    "olmo2": "mlp",
}


@pytest.mark.parametrize("architecture", READS_BETWEEN)
def test_an_ablated_direction_stands_nowhere_in_the_stream(architecture):
    """Every block's attention, its MLP and the final norm read a stream without it: what these modules are given, by name."""
    model = toy_model(architecture)
    v = torch.nn.functional.normalize(torch.randn(model.d_model, generator=torch.Generator().manual_seed(1)), dim=0)
    ids = torch.tensor([model.tokenize("some words")])
    readers = [(block, READS_BETWEEN[architecture]) for block in model.parts.blocks]
    modules = [getattr(block, name) for block, name in readers] + [model.final_norm]
    found = []
    for module in modules:
        module.register_forward_pre_hook(lambda m, args: found.append(float((args[0] @ v).abs().max())))
    edits, counted = Intervention(Along(v, Times(0.0)), everywhere(model)).edits(torch.ones_like(ids, dtype=torch.bool))
    model.hidden(ids)
    assert len(found) == model.n_layers + 1 and min(found) > 1e-2
    found.clear()
    ends = [Site(layer, "resid_post") for layer in range(model.n_layers)]
    with model.edit(*edits):
        model.hidden(ids)
        assert max(found) < 1e-4
        assert max(float((x @ v).abs().max()) for x in model.capture(ids, ends).values()) < 1e-4
    for c in counted:
        assert c.positions == [ids.numel()] * 2


def test_rows_that_cannot_share_the_directions(target):
    with pytest.raises(ValueError, match="5 rows cannot share 2 directions"):
        Along(torch.ones(2, 4), Plus(1.0)).shift(torch.ones(5, 1, 4), torch.ones(5, 1, 4))


@pytest.mark.parametrize("edited", [False, True])
def test_answers_from_kept_prefixes_are_those_of_whole_prompts(target, monkeypatch, edited):
    """Prompts of several lengths, and tails of two, in one batch; an edit that changes what is said."""
    target, v = replace(target), torch.randn(32, generator=torch.Generator().manual_seed(1))
    edits = [Intervention(Along(v, Plus(3.0)), (SITE,))] if edited else []
    given = cases(*TEXTS)
    given[1] = replace(given[1], prefill="Well,")
    prompts = target.prompts(given)
    assert len({p.tail for p in prompts}) == 2 and len({len(p.tokens) for p in prompts}) > 1
    cold = target.generate(prompts, edits, max_new_tokens=8)
    computed = target.prefixes.computed
    warm = target.generate(prompts, edits, max_new_tokens=8)
    assert target.prefixes.computed == computed >= 3
    monkeypatch.setattr(Prefixes, "usable", lambda *_: False)
    whole = target.generate(prompts, edits, max_new_tokens=8)
    assert cold == warm == whole
    assert not edited or whole != target.generate(prompts, max_new_tokens=8)


@pytest.mark.parametrize("when", [("prompt",), ("response",), ("prompt", "response")])
def test_every_decode_step_is_counted(target, when, monkeypatch):
    v = torch.randn(32, generator=torch.Generator().manual_seed(1))
    seen = []
    check = Counted.check
    monkeypatch.setattr(Counted, "check", lambda self, expected: (seen.append(list(expected)), check(self, expected)))
    prompts = target.prompts(cases(*TEXTS[:3]))
    target.generate(prompts, [Intervention(Along(v, Plus(3.0)), (SITE,), when=when)], max_new_tokens=5)
    tail = sum(p.tail for p in prompts)
    assert seen == [[tail if "prompt" in when else 0, *[3 if "response" in when else 0] * 4]]


def test_a_hook_that_stops_is_noticed(target, monkeypatch):
    step = target.model.decode_step
    calls = []

    def forgetful(*args):
        calls.append(1)
        if len(calls) == 3:
            target.model._edits.clear()
        return step(*args)

    monkeypatch.setattr(target.model, "decode_step", forgetful)
    edit = Intervention(Along(torch.ones(32), Plus(0.1)), (SITE,))
    with pytest.raises(AssertionError, match=r"edit at L2\.resid_post acted on"):
        target.generate(target.prompts(cases("one")), [edit], max_new_tokens=6)


def test_a_condition_limits_where_it_acts(target):
    v, ids = torch.ones(32), torch.tensor([target.model.tokenize("some words")])
    seen = target.model.capture(ids, [SITE])[SITE][0]
    score = seen @ v
    bar = float(score.median())
    edit = Intervention(Along(v, Plus(1.0)), (SITE,), only=Above(v, -bar))
    edits, counted = edit.edits(torch.ones_like(ids, dtype=torch.bool))
    with target.model.edit(*edits):
        target.model.hidden(ids)
    assert counted[0].positions == [int((score > bar).sum())] and 0 < counted[0].positions[0] < ids.shape[1]


def test_bad_interventions():
    with pytest.raises(ValueError, match="an edit acts on prompt or response, not later"):
        Intervention(Along(torch.ones(2), Plus(1.0)), (SITE,), when=("later",))
    with pytest.raises(ValueError, match="needs the sites"):
        Intervention(Along(torch.ones(2), Plus(1.0)))


# -- places ----------------------------------------------------------------------------------------------------------------
def test_places_are_the_tokens_that_they_name(target):
    c = Case("1", ({"role": "user", "content": "go to Rome now"},), "a", "1", prefill="ok", spans={"city": "Rome"})
    p = prompt(target.model, c)
    text = lambda where: target.model.tokenizer.decode(list(p.tokens[where]))  # noqa: E731
    assert (text(p.place("request")), text(p.place("city")), text(p.place("last")), text(p.place("last-2"))) == (
        "go to Rome now", "e", "k", ">",
    )  # fmt: skip
    assert text(p.spans["city"]) == "Rome" and p.tail == len("]>ok")
    for name, says in (("last-4", "lies in the user's words"), ("town", "has no span 'town'")):
        with pytest.raises(ValueError, match=says):
            p.place(name)


def test_vectors_are_captured_at_places(target):
    prompts = target.prompts(cases(*TEXTS))
    found = target.vectors(prompts, [SITE], ["last", "request"])
    seen = target.model.capture(list(prompts[2].tokens), [SITE])[SITE][0]
    assert torch.allclose(found[2, 0, 0], seen[-1], atol=1e-4)
    assert torch.allclose(found[2, 0, 1], seen[prompts[2].place("request")].mean(0), atol=1e-4)


def test_a_base_model_is_refused(toy):
    with pytest.raises(ValueError, match="has no chat template: an audit asks a chat model"):
        Target(toy_model())
