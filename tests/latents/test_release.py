"""examples.safetensors: what is written can be recomputed from its own text, and read back into an index."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diascope.dictionaries import save_dictionary
from diascope.latents.build import write_index
from diascope.latents.examples import live_rows, sweep
from diascope.latents.logits import direct_logits
from diascope.latents.release import read_examples, write_examples
from diascope.latents.store import Index
from diascope.recipes.verify import verify
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat ".split()


@pytest.fixture
def written(toy, make_dictionary, tmp_path):
    """A folder in the release's layout with examples from a packed text: several documents a sequence."""
    r = np.random.default_rng(0)
    docs = [Document(f"d{i}", " ".join(r.choice(WORDS, 8))) for i in range(40)]
    sequences = pack(toy, docs, context=100, max_tokens=100 * 12)
    assert (sequences.positions == 0).sum() > 2 * len(sequences)
    d = make_dictionary(kind="transcoder", skip=True)
    firings = sweep({"d": d}, live_rows(toy, sequences, [d.site_in]))["d"]
    path = save_dictionary(d, tmp_path / "d", format="gemma-scope-2")
    logits = {k: v.numpy() for k, v in direct_logits(toy, d).items()}
    write_examples(path / "examples.safetensors", d, firings, sequences, most=5, logits=logits)
    return path, d, firings


def test_the_release_s_tensors_have_its_names_and_shapes(written):
    tensors = load_file(written[0] / "examples.safetensors")
    S = written[1].d_sae
    assert {k: tuple(v.shape) for k, v in tensors.items() if k != "tokens"} == {
        "activations": (S, 5), "seq_ids": (S, 5), "positions": (S, 5), "feature_frequencies": (S,),
        "top_tokens": (S, 10), "top_logits": (S, 10), "bottom_tokens": (S, 10), "bottom_logits": (S, 10),
    }  # fmt: skip
    assert tensors["tokens"].shape[1] == 100


def test_the_stored_activations_are_the_model_s_on_the_stored_text(written, toy):
    """Rows are read as they stand: a row that held two documents would give other activations."""
    v = verify(written[0], toy)
    assert v.ok and v.examples > 50 and v.median_error < 1e-5


def test_what_is_read_back_is_the_strongest_of_what_fired(written):
    path, d, firings = written
    stored = read_examples(path / "examples.safetensors", d.d_sae)
    counts = np.diff(firings.start)
    assert (np.diff(stored.firings.start) == np.minimum(counts, 5)).all() and counts.max() > 5
    for j in range(d.d_sae):
        assert np.allclose(stored.firings.activation[stored.firings.of(j)], firings.activation[firings.of(j)][:5])
    assert np.allclose(stored.frequency, counts / firings.tokens)


def test_an_index_comes_from_stored_examples_alone(written, toy, tmp_path):
    path, d, firings = written
    stored = read_examples(path / "examples.safetensors", d.d_sae)
    index = Index(write_index(toy, {"d": d}, {"d": stored.firings}, stored.sequences, tmp_path / "index",
                              frequency={"d": stored.frequency}))  # fmt: skip
    source = index.sources["d"]
    assert np.allclose(source.columns["density"], np.diff(firings.start) / firings.tokens) and source.meta["strongest_only"]
    texts = {index.text(t) for j in range(d.d_sae) for g in source.record(j).groups for e in g.examples
             for t in index.tokens[e.sequence, e.first : e.first + e.length]}  # fmt: skip
    assert "<pad>" not in texts and len(texts) > 5
    latent = int(np.argmax(index.sources["d"].columns["max_activation"]))
    example = index.sources["d"].record(latent).groups[0].examples[0]
    entry = stored.firings.of(latent).start
    assert (example.sequence, example.first + example.peak) == (stored.firings.sequence[entry], stored.firings.position[entry])


def test_a_latent_that_never_fires_has_no_examples(toy, make_dictionary, tmp_path):
    d = make_dictionary()
    d.b_enc[:] = -1e6
    sequences = pack(toy, [Document("d", "the cat sat on a mat")], context=64, max_tokens=64)
    firings = sweep({"d": d}, live_rows(toy, sequences, [d.site_in]))["d"]
    stored = read_examples(write_examples(tmp_path / "e.safetensors", d, firings, sequences), d.d_sae)
    assert not len(stored.firings.activation) and not stored.frequency.any()
    assert torch.equal(load_file(tmp_path / "e.safetensors")["activations"], torch.zeros(d.d_sae, 1))
