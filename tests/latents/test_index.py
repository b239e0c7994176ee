"""The index against a dense recomputation, and the defects of common dashboards."""

import shutil

import numpy as np
import pytest
import torch

from diascope.latents.build import build_index
from diascope.latents.examples import live_rows, sweep
from diascope.latents.logits import direct_logits, neighbours
from diascope.latents.store import Index
from diascope.storage.seals import Damaged
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()


@pytest.fixture(scope="module")
def built(toy, tmp_path_factory):
    from diascope.dictionaries import Dictionary, DictionaryConfig, Matryoshka

    r = np.random.default_rng(0)
    docs = [Document(f"d{i}", " ".join(r.choice(WORDS, 14))) for i in range(60)]
    sequences = pack(toy, docs, context=64, max_tokens=64 * 40)
    g = torch.Generator().manual_seed(0)
    config = DictionaryConfig.single(
        "toy", "L2.resid_post", "L2.resid_post", 32, 32, 64, matryoshka=Matryoshka((16, 64), (1.0, 1.0))
    )
    tensors = {
        "W_enc": torch.randn(32, 64, generator=g) / 5, "W_dec": torch.nn.functional.normalize(torch.randn(64, 32, generator=g), dim=1),
        "b_enc": torch.zeros(64), "b_dec": torch.zeros(32), "threshold": torch.full((64,), 1.0),
    }  # fmt: skip
    tensors["b_enc"][7] = -1e6  # a dead latent
    d = Dictionary(config, tensors)
    folder = build_index(
        toy, {"sae": d}, sequences, live_rows(toy, sequences, [d.site_in]), tmp_path_factory.mktemp("i") / "index"
    )
    return Index(folder), d, sequences


def dense(toy, d, sequences):
    rows = list(live_rows(toy, sequences, [d.site_in]))
    f = torch.cat([d.encode(v[d.site_in]).dense() for v, _, _ in rows]).numpy()
    return f, np.concatenate([s for _, s, _ in rows]), np.concatenate([p for _, _, p in rows])


def test_columns_equal_a_dense_recomputation(toy, built):
    index, d, sequences = built
    source = index.sources["sae"]
    f, *_ = dense(toy, d, sequences)
    assert np.allclose(source.columns["density"], (f > 0).mean(0), atol=1e-7)
    assert np.allclose(source.columns["max_activation"], f.max(0), atol=1e-5)
    assert np.allclose(source.columns["mean_activation"], f.sum(0) / np.maximum((f > 0).sum(0), 1), atol=1e-4)
    assert (source.columns["level"] == np.where(np.arange(64) < 16, 1, 2)).all()


def test_examples_show_the_right_activations(toy, built):
    index, d, sequences = built
    f, seq, pos = dense(toy, d, sequences)
    at = {(s, p): row for s, p, row in zip(seq, pos, f)}
    for j in range(64):
        record = index.sources["sae"].record(j)
        high = f[:, j].max()
        assert sum(record.histogram) == (f[:, j] > 0).sum()
        for group in record.groups:
            for e in group.examples:
                shown = dict(e.fired)
                truth = {p: at[e.sequence, e.first + p][j] for p in range(e.length) if (e.sequence, e.first + p) in at}
                assert set(shown) == {p for p, v in truth.items() if v > 0}
                assert all(abs(shown[p] / 255 * high - truth[p]) <= high / 255 for p in shown)
                assert group.low <= truth[e.peak] * 1.0001 and truth[e.peak] <= group.high * 1.0001


def test_no_examples_for_dead_latents_no_zeros_no_repeated_documents(toy, built):
    index, d, sequences = built
    f, seq, pos = dense(toy, d, sequences)
    document = sequences.document[seq, pos]
    assert index.sources["sae"].record(7).groups == []
    for j in range(64):
        groups = index.sources["sae"].record(j).groups
        for group in groups:
            assert all(e.fired and 0 < e.fired[0][1] for e in group.examples)
            owners = [int(sequences.document[e.sequence, e.first + e.peak]) for e in group.examples]
            inside = (f[:, j] >= group.low) & (f[:, j] <= group.high) & (f[:, j] > 0)
            if (
                group.label == "interval" and inside.sum() <= 64
            ):  # all candidates are looked at: repeats only if there is no other
                assert len(set(owners)) == min(len(owners), len(set(document[inside])))
        assert not groups or sum(g.share for g in groups[1:]) == pytest.approx(1)


def test_an_example_stays_inside_its_document(built):
    index, _, sequences = built
    for j in range(64):
        for group in index.sources["sae"].record(j).groups:
            for e in group.examples:
                assert len(set(sequences.document[e.sequence, e.first : e.first + e.length])) == 1
                assert (sequences.positions[e.sequence, e.first : e.first + e.length] > 0).all()


def test_logits_and_neighbours_are_exact(toy, built):
    _, d, _ = built
    gain = toy.final_norm_gain()
    x = torch.randn(5, 32)
    norm = toy.parts.trunk.norm
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain
    assert torch.allclose(norm(x), expected, atol=1e-4)  # the gain is the norm's own
    full = (d.W_dec * gain) @ toy.unembedding.t()
    full = full - full.mean(1, keepdim=True)
    found = direct_logits(toy, d, k=5, chunk=10)
    assert torch.allclose(found["top_logits"], full.topk(5).values, atol=1e-4)
    assert torch.allclose(found["bottom_logits"], full.topk(5, largest=False).values, atol=1e-4)
    some = torch.tensor([5, 70, 90, 100, 30, 60])
    few = direct_logits(toy, d, vocabulary=some, k=3)
    assert set(few["top"].flatten().tolist()) <= set(some.tolist())
    assert torch.allclose(few["top_logits"], full[:, some].topk(3).values, atol=1e-4)
    index, cosine = neighbours(d, k=3, chunk=20)
    c = d.W_dec @ d.W_dec.t() - 3 * torch.eye(64)
    assert torch.allclose(cosine, c.topk(3).values, atol=1e-5) and (index[:, 0] == c.argmax(1)).all()


def test_browsing_sorts_and_pages(built):
    source = built[0].sources["sae"]
    total, first = source.browse(sort="density", limit=10)
    assert total == (source.columns["density"] > 0).sum() and len(first) == 10
    assert (np.diff(source.columns["density"][first]) <= 0).all()
    _, second = source.browse(sort="density", offset=10, limit=10)
    assert not set(first) & set(second)
    with pytest.raises(KeyError, match="no column"):
        source.browse(sort="nope")
    with pytest.raises(IndexError):
        source.record(64)


def test_one_sweep_serves_many_dictionaries(toy, built):
    _, d, sequences = built
    both = sweep({"a": d, "b": d}, live_rows(toy, sequences, [d.site_in]))
    assert (both["a"].activation == both["b"].activation).all() and both["a"].tokens == (sequences.positions > 0).sum()


def test_a_folder_that_is_no_index_is_named(tmp_path):
    with pytest.raises(ValueError, match="no index"):
        Index(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("index.json", "[]", "damaged"),
        ("corpus/strings.json", "[]", "damaged"),
        ("corpus/strings.json", "{", "strings.json is not valid JSON"),
        ("corpus/tokens.npy", "", "damaged"),
        ("sources/0/columns.safetensors", "PK\x03\x04", "damaged"),
        ("sources/0/source.json", "{}", "damaged"),
        ("sources/0/records.bin", "", "damaged"),
        ("sources/0/records.bin", "cut short", "its offsets say"),
        ("sources/0/offsets.npy", "no array", "damaged"),
    ],
)
def test_a_damaged_index_is_named(built, tmp_path, file, content, says):
    shutil.copytree(built[0].folder, tmp_path / "i")
    (tmp_path / "i" / "sources" / ".DS_Store").write_text("")
    assert list(Index(tmp_path / "i").sources) == ["sae"]
    (tmp_path / "i" / file).write_text(content)
    if says != "damaged":
        (tmp_path / "i" / "sha256.json").unlink()  # what is said where no hash says it first
    with pytest.raises(ValueError, match=says):
        Index(tmp_path / "i")


@pytest.mark.parametrize("file", ["sources/0/records.bin", "corpus/tokens.npy"])
def test_a_flipped_byte_in_what_is_mapped_is_named_before_it_is_read(built, tmp_path, file):
    shutil.copytree(built[0].folder, tmp_path / "i")
    path = tmp_path / "i" / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    index = Index(tmp_path / "i")
    reads = {"sources/0/records.bin": lambda: index.sources["sae"].record(0), "corpus/tokens.npy": lambda: index.tokens}
    with pytest.raises(Damaged, match=path.name):
        reads.pop(file)()
    (other,) = reads.values()
    other()  # as it was written
    assert index.sources["sae"].browse()[0] and index.checked
    with pytest.raises(Damaged, match=path.name):
        index.check()
