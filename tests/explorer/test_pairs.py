"""Two sources latent by latent: which belong together, and what is said of their differences."""

import httpx
import numpy as np
import pytest
from pair_workspace import LOWERED, RAISED, STRONGER, TOKENS, S, dictionary, write_pairs
from steer_workspace import TOKEN, served

from diascope.explorer.pairs import SAME, ordered, pairs, sides
from diascope.latents.store import Index


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def found(workspace):
    return {(p.a.label, p.b.label): p for p in pairs(sides(Index(workspace / "index"), workspace))}


def test_what_has_a_common_start_is_paired_and_what_has_none_is_not(found):
    assert set(found) == {("sae", "tuned"), ("sae", "index-chat/sae"), ("tuned", "index-chat/sae")}
    assert found["sae", "index-chat/sae"].why == SAME and "point the same way" in found["sae", "tuned"].why
    assert not found["sae", "index-chat/sae"].same_texts and found["sae", "tuned"].same_texts


def test_changes_are_those_that_were_made(found):
    columns = found["sae", "index-chat/sae"].columns()
    z = columns["change"]
    counts = 0.05 * TOKENS + 1, 0.01 * TOKENS + 1
    assert z[RAISED] == pytest.approx((0.05 - 0.01) / np.sqrt(sum(counts) / TOKENS**2), rel=1e-4)
    assert z[LOWERED] < -5 and np.abs(np.delete(z, [RAISED, LOWERED])).max() < 1e-3
    assert columns["ratio"][RAISED] == pytest.approx(np.log2(counts[0] / counts[1]), rel=1e-4)
    assert columns["cosine"].tolist() == pytest.approx([1] * S) and columns["max_b"][STRONGER] == 9


def test_cosines_are_those_of_the_decoders(found):
    a, b = (d.W_dec.detach().numpy() for d in (dictionary(0), dictionary(0, moved=0.2)))
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.allclose(found["sae", "tuned"].columns()["cosine"], expected, atol=1e-6)


def test_rows_come_by_size_of_change_and_silent_latents_not_at_all(found):
    columns = found["sae", "index-chat/sae"].columns()
    total, latents = ordered(columns, sort="change", descending=True, offset=0, limit=2)
    assert total == S - 1 and latents == [RAISED, LOWERED]
    assert ordered(columns, sort="max_b", descending=True, offset=0, limit=1)[1] == [STRONGER]
    assert ordered(columns, sort="latent", descending=False, offset=S - 3, limit=9)[1] == [S - 2, S - 1]
    assert ordered(columns, sort="latent", descending=False, offset=99, limit=9) == (S - 1, [])
    columns["cosine"][5] = np.nan
    for descending in (True, False):
        assert ordered(columns, sort="cosine", descending=descending, offset=S - 2, limit=1)[1] == [5]
    with pytest.raises(KeyError, match="no column"):
        ordered(columns, sort="evil", descending=True, offset=0, limit=1)


def test_without_decoders_only_the_same_dictionary_is_paired(workspace, tmp_path):
    """`other` has the same config and thresholds, so that without decoders it cannot be told apart; with them it is."""
    index = Index(workspace / "index")
    (tmp_path / "index-chat").symlink_to(workspace / "index-chat")
    found = pairs(sides(index, tmp_path))
    assert ("sae", "index-chat/sae") in [(p.a.label, p.b.label) for p in found] and {p.why for p in found} == {SAME}
    assert "tuned" not in {p.b.label for p in found} and found[0].columns()["cosine"][3] == 1
    for source in index.sources.values():  # as TopK has it: equal thresholds say nothing
        source.columns["threshold"] = np.zeros(S, np.float32)
    assert pairs([s for s in sides(index, tmp_path) if s.index is index]) == []


def test_pairs_over_http(workspace):
    headers = {"authorization": f"Bearer {TOKEN}"}
    with served(Index(workspace / "index"), None) as (address, _), httpx.Client(base_url=address, headers=headers) as client:
        listed = client.get("/api/pairs").json()
        assert [p["b"]["model"] for p in listed] == ["base", "chat", "chat"]
        pair = {"a": "sae", "b": "index-chat/sae"}
        page = client.get("/api/pair", params=pair | {"limit": 2}).json()
        assert [r["latent"] for r in page["rows"]] == [RAISED, LOWERED] and page["total"] == S - 1
        assert page["rows"][0]["said_a"] == f"base {RAISED}" and page["rows"][0]["said_b"] == f"chat {RAISED}"
        both = client.get("/api/pair/latent", params=pair | {"latent": 3}).json()
        texts = [both[side]["latent"]["groups"][0]["examples"][0]["tokens"][0] for side in ("a", "b")]
        assert texts == [" t1", " t51"]  # each on its own corpus
        assert client.get("/api/pair", params={"a": "sae", "b": "other"}).status_code == 404
        assert client.get("/api/pair/latent", params=pair | {"latent": S}).status_code == 404
        assert client.get("/api/pair", params=pair | {"sort": "evil"}).status_code == 400
        assert client.get("/api/pair", params=pair | {"offset": "x"}).status_code == 400
