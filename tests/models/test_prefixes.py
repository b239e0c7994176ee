"""Keys and values that were computed once, put together for any batch: against computing each batch whole."""

import pytest
import torch

from diascope.edits import Edit
from diascope.models.prefixes import Prefixes
from diascope.models.toy import toy_model
from diascope.sites import Site

TEXTS = ["a", "some more words", "quite a long line of words that goes on", "another line", "words"]
NEW = 3  # tokens after the prefix


def batched(model, texts):
    return model.batch([model.tokenize(t) for t in texts], padding_side="left")


def after(model, prefixes, texts):
    """The last hidden state of each text, of which all but `NEW` tokens come from `prefixes`."""
    tokens, attention = batched(model, texts)
    past = prefixes.past(tokens[:, :-NEW], attention[:, :-NEW])
    return model.decode_step(tokens[:, -NEW:], attention, past)[0]


def whole(model, texts):
    return torch.cat([model.hidden([model.tokenize(t)])[:, -1].detach() for t in texts])


@pytest.mark.parametrize("architecture", ["gemma3_text", "llama", "gpt2", "olmo2"])
def test_rows_of_other_batches_stand_in_one(architecture):
    model = toy_model(architecture)
    prefixes = Prefixes(model, batch=2)
    for texts in (TEXTS[1:], TEXTS[:3:2], TEXTS[::-1]):
        assert torch.allclose(after(model, prefixes, texts), whole(model, texts), atol=1e-5)
    assert prefixes.computed == len({tuple(model.tokenize(t)[:-NEW]) for t in TEXTS} - {()})


def test_what_is_grown_from_them_leaves_them_as_they_are():
    model, texts = toy_model(), TEXTS[1:3]
    prefixes = Prefixes(model)
    first = after(model, prefixes, texts)
    assert torch.equal(after(model, prefixes, texts), first) and prefixes.computed == 2


def test_where_rows_cannot_be_taken_out_all_is_computed():
    """A window that has been passed has let go of the first keys."""
    model = toy_model(sliding_window=8)
    prefixes = Prefixes(model)
    same = [TEXTS[2], TEXTS[2][::-1]]
    for _ in range(2):
        assert torch.allclose(after(model, prefixes, same), whole(model, same), atol=1e-5)
    assert prefixes.computed == 4


def test_under_an_edit_nothing_that_was_kept_is_used_and_nothing_is_kept():
    model = toy_model()
    prefixes = Prefixes(model)
    clean = after(model, Prefixes(model), TEXTS[1:3])
    push = Edit(Site(1, "resid_post"), Site(1, "resid_post"), lambda _, y: y + 1, special=True)
    with model.edit(push):
        edited = after(model, prefixes, TEXTS[1:3])
        assert torch.allclose(edited, whole(model, TEXTS[1:3]), atol=1e-4) and not torch.allclose(edited, clean, atol=1e-2)
        after(model, prefixes, TEXTS[3:])
    for _ in range(2):
        assert torch.equal(after(model, prefixes, TEXTS[1:3]), clean)
    with model.edit(push):
        assert torch.equal(after(model, prefixes, TEXTS[1:3]), edited)


def test_beyond_a_size_all_is_let_go():
    model = toy_model()
    prefixes = Prefixes(model, most=1)
    for texts in ([TEXTS[1]], [TEXTS[2]], [TEXTS[1]]):
        assert torch.allclose(after(model, prefixes, texts), whole(model, texts), atol=1e-5)
    assert prefixes.computed == 3


@pytest.mark.parametrize("architecture", ["gemma3_text", "llama", "gpt2", "olmo2"])
def test_a_pass_that_reads_vectors_leaves_the_keys_of_the_first_tokens(architecture):
    model = toy_model(architecture)
    prefixes = Prefixes(model)
    rows = [model.tokenize(t) for t in TEXTS[1:]]
    last = [Site(model.n_layers - 1, "resid_post")]
    seen = prefixes.capture(rows, last, [len(r) - NEW for r in rows])
    assert torch.equal(seen[last[0]], model.capture(rows, last)[last[0]])
    for texts in (TEXTS[1:3], TEXTS[:0:-1]):
        assert torch.allclose(after(model, prefixes, texts), whole(model, texts), atol=1e-5)
    assert prefixes.computed == 0


def test_a_pass_that_ends_below_the_last_block_leaves_nothing():
    model = toy_model()
    prefixes = Prefixes(model)
    rows = [model.tokenize(t) for t in TEXTS[1:3]]
    prefixes.capture(rows, [Site(0, "resid_post")], [len(r) - NEW for r in rows])
    assert torch.allclose(after(model, prefixes, TEXTS[1:3]), whole(model, TEXTS[1:3]), atol=1e-5)
    assert prefixes.computed == 2
