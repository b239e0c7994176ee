"""Latents as data: every firing of every document, resumable; groups told apart, beside their words."""

import json

import numpy as np
import pytest
import torch

from diascope.cli import main
from diascope.dictionaries import Dictionary, DictionaryConfig, save_dictionary
from diascope.latents.contrast import Ranked, contrast
from diascope.latents.dataset import LatentData, encode_dataset
from diascope.models.toy import toy_model

WORDS = ["the", "a", "cat", "sat", "on", "mat", "and", "ran"]


@pytest.fixture(scope="module")
def model():
    return toy_model()


def random_dictionary(width, seed=0):
    """24 random directions whose thresholds leave about a third of them active."""
    directions = torch.nn.functional.normalize(torch.randn(24, width, generator=torch.Generator().manual_seed(seed)), dim=1)
    config = DictionaryConfig.single("toy", "L1.resid_post", "L1.resid_post", width, width, 24)
    tensors = {"W_enc": directions.t().contiguous(), "W_dec": directions, "b_enc": torch.zeros(24), "b_dec": torch.zeros(width)}
    return Dictionary(config, tensors | {"threshold": torch.full((24,), 0.4)})


@pytest.fixture(scope="module")
def d(model):
    return random_dictionary(model.d_model)


@pytest.fixture(scope="module")
def rows():
    """Sixty documents: those about dogs hold a word that the others do not."""
    draw = np.random.default_rng(0)
    out = []
    for i in range(60):
        text = " ".join(draw.choice(WORDS, draw.integers(1, 40)))
        out.append({"text": f"dog {text}" if i % 3 == 0 else text, "label": "dogs" if i % 3 == 0 else "others"})
    return out


@pytest.fixture(scope="module")
def data(model, d, rows, tmp_path_factory):
    return encode_dataset(model, d, rows, tmp_path_factory.mktemp("latents") / "data", shard=25, context=48)


def test_every_firing_of_every_document_is_there(model, d, rows, data):
    shown = {}
    for f in data.firings():
        for document, position, token, latent, value in zip(
            *(f[n] for n in ("document", "position", "token", "latent", "activation"))
        ):
            shown[int(document), int(position), int(latent)] = int(token), float(value)
    expected = {}
    for i, row in enumerate(rows):  # one document at a time
        seen = model.capture([model.tokenize(row["text"])[:48]], [d.site_in])
        dense = d.encode(seen[d.site_in][0].float()).dense()
        for position, latent in (dense > 0).nonzero().tolist():
            if seen.mask[0, position]:
                expected[i, position, latent] = int(seen.tokens[0, position]), float(dense[position, latent])
    assert shown.keys() == expected.keys() and len(shown) > 1000
    for key, (token, value) in expected.items():
        assert shown[key][0] == token and shown[key][1] == pytest.approx(value, rel=1e-4)


def test_documents_carry_labels_words_and_text(model, rows, data):
    assert len(data) == 60 and data.counts() == {"others": 40, "dogs": 20} and data.text(37) == rows[37]["text"]
    counts, vocabulary = data.words()
    dog = int(np.flatnonzero(vocabulary == model.tokenize("dog")[-1])[0])
    assert counts[:, dog].toarray().ravel().tolist() == [1.0 if i % 3 == 0 else 0.0 for i in range(60)]
    assert int(counts.sum()) == int(data.tokens.sum()) and set(vocabulary.tolist()) == set(data.spelled())


def test_pools_agree_with_the_firings(data):
    dense = np.zeros((4, 60, data.d_sae))
    for f in data.firings():
        place = f["document"], f["latent"]
        np.maximum.at(dense[0], place, f["activation"])
        np.add.at(dense[1], place, f["activation"])
        np.add.at(dense[3], place, 1)
    dense[2] = dense[1] / np.maximum(data.tokens, 1)[:, None]
    for what, expected in zip(("max", "sum", "mean", "count"), dense):
        assert np.allclose(data.per_document(what).toarray(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="choose max, sum, mean or count"):
        data.per_document("median")


def test_an_interrupted_call_goes_on_and_gives_the_same_bytes(model, d, rows, data, tmp_path):
    def broken():
        yield from rows[:40]
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="network"):
        encode_dataset(model, d, broken(), tmp_path / "a", shard=25, context=48)
    assert len(LatentData(tmp_path / "a")) == 25
    stamp = (tmp_path / "a/shards/000000/sha256.json").stat().st_mtime_ns
    again = encode_dataset(model, d, rows, tmp_path / "a", shard=25, context=48)
    assert len(again) == 60 and (tmp_path / "a/shards/000000/sha256.json").stat().st_mtime_ns == stamp
    for ours, theirs in zip(again.shards, data.shards):
        assert (ours / "sha256.json").read_bytes() == (theirs / "sha256.json").read_bytes()
    with pytest.raises(ValueError, match="another model, dictionary or setting"):
        encode_dataset(model, d, rows, tmp_path / "a", shard=25, context=32)
    with pytest.raises(ValueError, match="another model, dictionary or setting"):
        encode_dataset(model, random_dictionary(model.d_model, seed=1), rows, tmp_path / "a", shard=25, context=48)  # fmt: skip


def test_a_planted_word_is_found_by_words_and_its_latents(model, data):
    found = contrast(data, "dogs", "others")
    best = found.words.feature[0]
    assert (found.n_a, found.n_b) == (20, 40) and best == model.tokenize("dog")[-1]
    assert found.words.auroc[0] == 1.0 and found.words.q[0] < 1e-6 and found.words.held_out == 1.0
    assert (found.words.rate_a[0], found.words.rate_b[0]) == (1.0, 0.0)
    flipped = contrast(data, "others", "dogs")
    assert flipped.words.auroc[0] == 0.0 and np.allclose(np.sort(flipped.latents.auroc), np.sort(1 - found.latents.auroc))


def test_shuffled_labels_find_nothing(data):
    """False discoveries: over 40 shuffles, at most a few report any latent at q < 0.05."""
    draw, kept, any_found, held_out = np.random.default_rng(0), data.label, 0, []
    try:
        for _ in range(40):
            data.label = draw.permutation(kept)
            found = contrast(data, "dogs", "others")
            any_found += bool((found.latents.q < 0.05).any() or (found.words.q < 0.05).any())
            held_out.append(found.latents.held_out)
    finally:
        data.label = kept
    assert any_found <= 8 and abs(np.mean(held_out) - 0.5) < 0.05


def test_auroc_is_the_share_of_pairs(data):
    found: Ranked = contrast(data, "dogs", "others").latents
    x = data.per_document().toarray()
    a, b = x[data.label == "dogs"], x[data.label == "others"]
    for latent, auroc in zip(found.feature, found.auroc):
        left, right = a[:, latent][:, None], b[:, latent][None]
        assert auroc == pytest.approx(((left > right) + 0.5 * (left == right)).mean())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([3], "document 0 is '3'"),
        ([{"body": "x"}], "no column 'text'"),
        ([("x", "y", "z")], "give a text"),
        ([{"text": None}], "give a text"),
    ],
)
def test_what_is_no_text_is_named(model, d, rows, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        encode_dataset(model, d, rows, tmp_path / "x")


def test_empty_documents_and_empty_datasets(model, d, tmp_path):
    data = encode_dataset(model, d, ["", "the cat", "sat"], tmp_path / "a")
    assert len(data) == 3 and data.tokens.tolist() == [0, 7, 3] and data.per_document().shape == (3, 24)
    nothing = encode_dataset(model, d, [], tmp_path / "b")
    assert len(nothing) == 0 and nothing.per_document().shape == (0, 24)
    with pytest.raises(ValueError, match="two labels of at least 2 documents"):
        contrast(data, "a", "b")


def test_the_commands(model, d, rows, tmp_path, monkeypatch, capsys):
    save_dictionary(d, tmp_path / "d")
    lines = "\n".join(json.dumps({"body": r["text"], "kind": r["label"]}) for r in rows)
    (tmp_path / "data.jsonl").write_text(lines)
    (tmp_path / "data.csv").write_text("body,kind\n" + "\n".join(f'"{r["text"]}",{r["label"]}' for r in rows))
    monkeypatch.setattr("diascope.models.load_model", lambda *_, **__: toy_model())

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["diascope", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    for kind in ("jsonl", "csv"):
        code, said = call(
            "encode", tmp_path / "d", tmp_path / f"data.{kind}", tmp_path / kind, "--text", "body", "--label", "kind"
        )
        assert code == 0 and "60 documents" in said and "'others' 40" in said
    code, said = call("contrast", tmp_path / "csv", "dogs", "others", "--json", tmp_path / "c.json")
    assert code == 0 and "1.000" in said and "dog" in said and json.loads((tmp_path / "c.json").read_text())["n_a"] == 20
    for arguments, expected in (
        (("contrast", tmp_path / "csv", "dogs", "birds"), "'birds' 0"),
        (("contrast", tmp_path, "a", "b"), "no dataset.json"),
        (("encode", tmp_path / "d", tmp_path / "none.jsonl", tmp_path / "n"), "there is no file"),
        (("encode", tmp_path / "d", tmp_path / "data.jsonl", tmp_path / "n"), "no column 'text'"),
    ):
        code, said = call(*arguments)
        assert code == 2 and expected in said.replace("\n", " ") and "Traceback" not in said
    file = tmp_path / "csv/shards/000000/firings.parquet"
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 0x10
    file.write_bytes(changed)
    code, said = call("contrast", tmp_path / "csv", "dogs", "others")
    assert code == 2 and "firings.parquet" in said.replace("\n", "")
