"""Fine-tuning on a chat model's own conversations, on a toy model with a template."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from diascope.dictionaries import (
    BatchTopK,
    Dictionary,
    DictionaryConfig,
    Joint,
    Matryoshka,
    TopK,
    load_dictionary,
    save_dictionary,
    with_l0,
)
from diascope.edits import Edit
from diascope.evals import Series, difference, evaluate, moved
from diascope.evals.text import EvalText
from diascope.models import ROLES, load_model
from diascope.models.toy import byte_tokenizer, toy_model, toy_module
from diascope.recipes.chat import ChatTuning, chat
from diascope.recipes.gemma_scope_2 import scaled
from diascope.recipes.publish import prepare
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.recipes.tune_model import ModelTuning, tune_model
from diascope.recipes.verify import verify
from diascope.sites import Site
from diascope.storage.files import read_json
from diascope.tokens import Document, Rollouts, open_corpus, pack, rollouts
from diascope.training import MemberRecipe

TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)
SAMPLING = {"count": 80, "max_new_tokens": 24, "batch": 16}


def _recipe(folder):
    member = MemberRecipe("sae", "L1.resid_post", "L1.resid_post", d_sae=64, activation=BatchTopK(8),
                          matryoshka=Matryoshka((16, 64), (1.0, 1.0)), l0_target=8.0)  # fmt: skip
    return RunRecipe(scaled((member,), 8000, batch=256), model=str(folder / "model"), corpus=str(folder / "text.txt"),
                       tokens=8000, context=64, calibration_tokens=512, eval_tokens=512, ce_tokens=512)  # fmt: skip


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A toy chat model in a folder, prompts, and a dictionary of its plain text."""
    folder = tmp_path_factory.mktemp("chat")
    module, tokenizer = toy_module(), byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    module.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "prompts.txt").write_text("\n\n".join(f"what is {i} and {i * 7 % 13}?" for i in range(90)))
    (folder / "text.txt").write_text("\n\n".join(f"number {i} " + "the cat sat on a mat " * 5 for i in range(200)))
    Run(_recipe(folder), folder / "base").train()
    return folder


def test_examples_are_stored_beside_the_release_s_layout_and_published(subject, tmp_path):
    base = read_json(subject / "base" / "recipe.json")["recipe"]
    run = Run(replace(_recipe(subject), examples=7, index_tokens=2000), tmp_path / "w")
    run.train()
    run.evaluate()
    run.index()
    (place,) = (tmp_path / "w" / "gemma-scope-2").glob("*/*/examples.safetensors")
    v = verify(place.parent, load_model(subject / "model"))
    assert base["examples"] == 0 and v.ok and v.examples > 50
    published = prepare(tmp_path / "w", tmp_path / "p", title="t")
    assert [p.read_bytes() for p in published.glob("*/*/examples.safetensors")] == [place.read_bytes()]


def tuning(folder, **more):
    sampling = Rollouts(str(folder / "prompts.txt"), **SAMPLING)
    return ChatTuning(model=str(folder / "model"), rollouts=sampling, eval_tokens=1024, ce_tokens=512, **more)


def test_rollouts_are_the_same_however_often_they_are_interrupted(subject, tmp_path):
    model, config = load_model(subject / "model"), Rollouts(str(subject / "prompts.txt"), **SAMPLING)
    whole = rollouts(model, config, tmp_path / "a")

    def stop(done, total):
        if done > 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rollouts(model, config, tmp_path / "b", progress=stop)
    assert not (tmp_path / "b" / "rollouts.jsonl").exists()
    first = tmp_path / "b" / "parts" / "000000.jsonl"
    first.write_text("".join(first.read_text().splitlines(keepends=True)[:-1]))  # damaged: sampled again
    assert rollouts(model, config, tmp_path / "b").read_bytes() == whole.read_bytes()
    lines = [json.loads(line) for line in whole.read_text().splitlines()]
    assert len(lines) == 80 and len({line["prompt"] for line in lines}) == 80
    assert [m["role"] for m in lines[0]["messages"]] == ["user", "assistant"]
    assert lines[0]["messages"][1]["content"] and len({line["messages"][1]["content"] for line in lines}) > 70
    with pytest.raises(ValueError, match="another model, sampling or prompts"):
        rollouts(model, Rollouts(str(subject / "prompts.txt"), seed=1, **SAMPLING), tmp_path / "a")


def test_a_base_model_has_no_conversations(tmp_path):
    (tmp_path / "p.txt").write_text("who?")
    with pytest.raises(ValueError, match="no chat template"):
        rollouts(toy_model(), Rollouts(str(tmp_path / "p.txt")), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_conversations_are_packed_whole_with_roles_and_without_the_prefix(subject):
    model = load_model(subject / "model")
    talk = ({"role": "user", "content": "u" * 10}, {"role": "assistant", "content": "v" * 20})
    documents = [Document(f"d{i}", "", talk) for i in range(9)] + [Document("t", "plain text " * 8)]
    s = pack(model, documents, context=100, max_tokens=10**6)
    assert s.role is not None
    rows = s.rows(model)
    for i in range(9):
        here = s.document == i
        assert len(np.unique(np.nonzero(here)[0])) == 1  # in one sequence
        text = model.tokenizer.decode(s.tokens[here].tolist())
        assert text == "<bos>user\n" + "u" * 10 + "<eos>\n<bos>assistant\n" + "v" * 20 + "<eos>\n"
        counts = {ROLES[r]: int((s.role[here & rows] == r).sum()) for r in np.unique(s.role[here & rows])}
        assert counts == {"template": len("\nassistant\n\n"), "user": 10, "assistant": 20}  # no `user\n` of the prefix
    assert (s.role[s.document == 9] == 0).all()


def test_the_report_says_who_is_better_and_what_moved(subject, tmp_path):
    base = str(subject / "base" / "dictionaries" / "sae")
    result = chat(base, tuning(subject, epochs=4.0), tmp_path / "w")
    report = json.loads((tmp_path / "w" / "report.json").read_text())
    assert set(report["evaluations"]) == {"unchanged", "thresholds", "tuned", "scratch"}
    assert set(report["tuned_minus"]) == {"unchanged", "thresholds", "scratch"}
    fvu = {n: e.metrics["dictionary"]["fvu"].value for n, e in result.evaluations.items()}
    assert fvu["tuned"] < fvu["unchanged"] and report["tuned_minus"]["unchanged"]["fvu"]["high"] < 0
    assert report["tuned_minus"]["unchanged"]["fvu"]["value"] == pytest.approx(fvu["tuned"] - fvu["unchanged"], abs=1e-9)
    assert set(report["moved"]["fvu"]) == {"all", "template", "user", "assistant"}
    assert 0.2 < report["moved"]["decoder_cosine"]["0.5"] < 1
    l0 = {n: e.metrics["dictionary"]["l0"].value for n, e in result.evaluations.items()}
    assert abs(l0["thresholds"] - 8) < abs(l0["unchanged"] - 8) + 1e-9
    again = chat(base, tuning(subject, epochs=4.0), tmp_path / "w")
    assert torch.equal(again.dictionaries["tuned"].W_dec, result.dictionaries["tuned"].W_dec)


def test_what_did_not_move_is_said_not_to_have_moved(subject):
    d = load_dictionary(subject / "base" / "dictionaries" / "sae")
    model = load_model(subject / "model")
    s = pack(model, open_corpus(str(subject / "text.txt")).documents, context=64, max_tokens=2048)
    x = model.capture(torch.from_numpy(s.tokens).long(), "L1.resid_post")["L1.resid_post"][torch.from_numpy(s.rows(model))]
    documents = s.document[s.rows(model)]
    report = moved(d, d, x, x, documents).report()
    assert report["decoder_cosine"]["0.05"] == pytest.approx(1) and report["frequency"]["woke"] == 0
    assert report["fvu"]["all"]["after_minus_before"] == {
        **report["fvu"]["all"]["after_minus_before"],
        "value": 0.0,
        "low": 0.0,
        "high": 0.0,
    }
    with pytest.raises(ValueError, match="another shape"):
        moved(d, d.prefix(16), x, x, documents)
    half = with_l0(d, x, 4.0)
    assert float(half.encode(x).counts.float().mean()) == pytest.approx(4, abs=0.02) and half.probe is None


def test_differences_need_the_same_tokens(subject):
    documents = np.array([0, 0, 1, 1])
    a = Series(np.ones(4), np.ones(4) * 2, np.ones(4), np.ones(4) * 4, documents, np.ones(4), documents)
    b = replace(a, error=np.zeros(4), error_standardised=np.zeros(4), delta_ce=np.zeros(4))
    assert difference(a, b)["fvu_standardised"].value == 0.25 and a.fvu().value == 0.5
    assert difference(a, b)["fvu"].value == 0.5 and difference(a, b)["delta_ce"].value == 1.0
    with pytest.raises(ValueError, match="not judged on the same tokens"):
        difference(a, replace(b, documents=np.array([0, 1, 1, 1])))


def test_a_dictionary_without_thresholds_is_refused(subject, tmp_path):
    d = load_dictionary(subject / "base" / "dictionaries" / "sae")
    topk = Dictionary(replace(d.config, activation=TopK(4), matryoshka=None), d.tensors())
    save_dictionary(topk, tmp_path / "topk")
    with pytest.raises(ValueError, match="takes JumpReLU"):
        chat(str(tmp_path / "topk"), tuning(subject), tmp_path / "w")


@pytest.mark.parametrize(
    "line", ['{"text": "long enough to be packed, but it is no conversation"}', '{"messages": [{"role": "user"}]}']
)
def test_conversations_of_the_user_s_own_are_checked(subject, tmp_path, line):
    (tmp_path / "c.jsonl").write_text("\n".join([line] * 40))
    base = str(subject / "base" / "dictionaries" / "sae")
    with pytest.raises(ValueError, match=r"is no conversation|message that is not"):
        chat(base, replace(tuning(subject), conversations=str(tmp_path / "c.jsonl")), tmp_path / "w")


def test_the_model_is_tuned_on_its_answers_alone(subject, tmp_path):
    model = load_model(subject / "model")
    talk = [
        Document(f"d{i}", "", ({"role": "user", "content": "what?"}, {"role": "assistant", "content": "abcabc"}))
        for i in range(8)
    ]
    losses = tune_model(model, talk, tmp_path / "tuned", ModelTuning(steps=40, batch=4, lr=3e-3))
    assert losses[-1] < 0.7 * losses[0]
    again = load_model(tmp_path / "tuned")
    ids = again.chat_tokens([{"role": "user", "content": "what?"}])
    assert torch.equal(again.logits([ids]), model.logits([ids]))
    before = load_model(subject / "model").logits([ids]).softmax(-1)[0, -1, again.tokenize("a")[1]]
    assert again.logits([ids]).softmax(-1)[0, -1, again.tokenize("a")[1]] > 2 * before
    with pytest.raises(ValueError, match="exists already"):
        tune_model(model, talk, tmp_path / "tuned")


def test_the_prefix_is_left_as_it_is_when_losses_are_taken(subject):
    """A dictionary that gives back what it reads changes nothing; one that wrote into the prefix would."""
    model = load_model(subject / "model")
    talk = ({"role": "user", "content": "what is this?"}, {"role": "assistant", "content": "it is that"})
    s = pack(model, [Document(f"d{i}", "", talk) for i in range(12)], context=64, max_tokens=64 * 6)
    text = EvalText(model, s)
    assert (model.ordinary(torch.from_numpy(s.tokens)) & ~text.rows & torch.from_numpy(s.document >= 0)).any()
    sites = ("L1.resid_post", "L2.resid_post")
    eye = torch.eye(64)
    tensors = {
        "W_enc": torch.cat([eye, -eye], 1),
        "W_dec": torch.cat([eye, -eye]),
        "b_enc": torch.zeros(128),
        "b_dec": torch.zeros(64),
    }
    config = DictionaryConfig("toy", sites, sites, (32, 32), (32, 32), 128, Joint())
    perfect = Dictionary(config, tensors | {"threshold": torch.zeros(128)})
    assert evaluate(model, {"d": perfect}, s, ce_tokens=10**6)["d"].metrics["dictionary"]["kl"].value < 1e-6
    site, prefix = Site(1, "resid_post"), ~text.rows
    clean = text.hidden()
    with model.edit(Edit(site, site, lambda _, y: torch.where(prefix[: len(y), :, None], 0.0, y))):
        assert torch.equal(text.hidden(), clean)  # it acts on rows alone, so nothing of this reaches the model
