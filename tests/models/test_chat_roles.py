"""Conversations: roles by token, the template's prefix found for any tokenizer, and answers sampled side by side."""

import pytest
import torch

from diascope.models import ROLES, continuations, render, template_prefix
from diascope.models.toy import toy_model

# the shape of Gemma 3's and SmolLM2's templates: the first strips messages, the second has a system message of its own
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SYSTEM = (
    "{% if messages[0].role != 'system' %}<sys>You are a helpful assistant<end>\n{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [
    {"role": "user", "content": "a"},  # a letter that the templates have too
    {"role": "assistant", "content": "You are\n"},
    {"role": "user", "content": "user"},
]


def chat(template):
    model = toy_model()
    model.tokenizer.chat_template = template
    return model


def spans(model, rendered):
    """[(role, text)] of the runs of one role."""
    found = []
    for token, role in zip(rendered.tokens, rendered.role, strict=True):
        text = model.tokenizer.decode([token])
        if found and found[-1][0] == ROLES[role]:
            found[-1][1] += text
        else:
            found.append([ROLES[role], text])
    return [tuple(f) for f in found]


def test_every_token_has_its_role():
    gemma = chat(GEMMA)
    assert spans(gemma, render(gemma, TALK, answer_next=True)) == [
        ("prefix", "<bos><start_of_turn>user\n"), ("user", "a"), ("template", "<end_of_turn>\n<start_of_turn>model\n"),
        ("assistant", "You are"), ("template", "<end_of_turn>\n<start_of_turn>user\n"), ("user", "user"),
        ("template", "<end_of_turn>\n<start_of_turn>model\n"),
    ]  # fmt: skip
    smol = chat(SYSTEM)
    assert spans(smol, render(smol, TALK)) == [
        ("prefix", "<sys>You are a helpful assistant<end>\n<user>"), ("user", "a"), ("template", "<end>\n<assistant>"),
        ("assistant", "You are\n"), ("template", "<end>\n<user>"), ("user", "user"), ("template", "<end>\n"),
    ]  # fmt: skip


@pytest.mark.parametrize("template", [GEMMA, SYSTEM])
def test_the_prefix_is_what_all_conversations_begin_with(template):
    model = chat(template)
    texts = ("who?", "Zebras run", "You are a helpful", "1")
    opened = [render(model, [{"role": "user", "content": t}]).tokens for t in texts]
    shared = next(i for i, column in enumerate(zip(*opened, strict=False)) if len(set(column)) > 1)
    assert template_prefix(model) == opened[0][:shared]


def test_a_system_message_is_no_part_of_the_prefix():
    smol = chat(SYSTEM)
    found = spans(smol, render(smol, [{"role": "system", "content": "Be brief."}, *TALK[:1]]))
    assert found[:3] == [("prefix", "<system>"), ("system", "Be brief."), ("template", "<end>\n<user>")]


@pytest.mark.parametrize(
    ("template", "messages", "says"),
    [
        (GEMMA, [{"role": "wizard", "content": "a"}], "has the role 'wizard'"),
        ("{{ messages[0].content | upper }}", TALK, "rewrites message 0"),
        ("{{ raise_exception('roles must alternate') }}", TALK, "roles must alternate"),
        (None, TALK, "no chat template"),
    ],
)
def test_what_cannot_be_rendered_is_said(template, messages, says):
    with pytest.raises(ValueError, match=says):
        render(chat(template), messages)


def test_prompts_side_by_side_are_continued_as_each_alone():
    model = toy_model()
    prompts = [model.tokenize(t) for t in ("a", "a longer prompt", "xyz")]
    for temperature in (0.0, 1.0):
        together = continuations(model, prompts, max_new_tokens=8, seeds=[1, 2, 3], temperature=temperature)
        alone = [
            continuations(model, [p], max_new_tokens=8, seeds=[s], temperature=temperature)[0]
            for p, s in zip(prompts, (1, 2, 3), strict=True)
        ]
        assert together == alone
    other = continuations(model, prompts, max_new_tokens=8, seeds=[4, 5, 6])
    assert other != continuations(model, prompts, max_new_tokens=8, seeds=[1, 2, 3])


def test_an_answer_ends_where_the_model_ends_it():
    model = toy_model()
    logits = model.logits_of
    model.logits_of = lambda h: logits(h).index_fill(-1, torch.tensor([1]), 1e9)  # type: ignore[method-assign]
    assert continuations(model, [model.tokenize("abc")], max_new_tokens=8, seeds=[0]) == [[]]
