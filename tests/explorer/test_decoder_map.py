"""The decoder map: what it must keep, that it goes on where it was left, and how it is answered."""

import json
import time

import httpx
import msgspec
import numpy as np
import pytest
import torch
from steer_workspace import TOKEN, served

from diascope.dictionaries import Dictionary, DictionaryConfig
from diascope.dictionaries.artefact import save_dictionary
from diascope.explorer import map_store
from diascope.explorer.decoder_map import Embedding, edges, kept, neighbours_of, principal, squared
from diascope.explorer.decoders import cosines, decoder_rows
from diascope.explorer.map_store import NAME, PART, make_map, read_map
from diascope.latents.describe.shelf import Description
from diascope.latents.logits import neighbours
from diascope.latents.store import Index, Record, write_source
from diascope.storage.seals import check_seal, seal

GROUPS, EACH, WIDTH = 12, 16, 24


def grouped(seed=0):
    """A dictionary whose decoder rows stand in tight groups of 16."""
    g = torch.Generator().manual_seed(seed)
    S = GROUPS * EACH
    W = torch.randn(GROUPS, WIDTH, generator=g).repeat_interleave(EACH, 0) + 0.2 * torch.randn(S, WIDTH, generator=g)
    tensors = {"W_enc": torch.randn(WIDTH, S, generator=g), "W_dec": W, "b_enc": torch.zeros(S), "b_dec": torch.zeros(WIDTH), "threshold": torch.zeros(S)}  # fmt: skip
    return Dictionary(DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", WIDTH, WIDTH, S), tensors)


@pytest.fixture
def workspace(tmp_path):
    """A dictionary, and a sealed index of it whose records name true neighbours; three latents have scores, one never fired."""
    d = grouped()
    save_dictionary(d, tmp_path / "dictionaries" / "sae")
    near, cosine = neighbours(d)
    records = [
        msgspec.msgpack.encode(Record([], [], [], [], list(zip(near[j].tolist(), cosine[j].tolist())))) for j in range(d.d_sae)
    ]
    columns = {"density": np.linspace(0, 0.1, d.d_sae, dtype=np.float32), "level": np.ones(d.d_sae, np.int32)}
    said = {j: [Description("judge", f"about {j}", {"detection": j / 10})] for j in range(3)}
    folder = tmp_path / "index"
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.zeros((1, 4), np.int32))
    (folder / "corpus" / "strings.json").write_text("{}")
    meta = {"name": "sae", "config": {}, "card": {}, "title": "t", "tokens_swept": 9, "logit_vocabulary": 1}
    write_source(folder / "sources" / "0", meta, columns, records, said)
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": "toy"}))
    seal(folder)
    return tmp_path


def made(workspace, **options):
    index = Index(workspace / "index")
    return make_map(index, index.sources["sae"], workspace / "dictionaries" / "sae", **options)


def test_principal_directions_are_those_of_the_svd():
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32) * np.linspace(3, 0.2, 12)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    u, s, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    positions, share = principal(rows)
    assert np.allclose(np.abs(positions), np.abs(u[:, :2] * s[:2]), atol=1e-5)
    assert share == pytest.approx((s[:2] ** 2).sum() / (s**2).sum(), rel=1e-5)


def test_edges_join_each_pair_once_by_the_fuzzy_union():
    index = np.array([[1, 2], [0, -1], [0, 1]])
    cosine = np.array([[0.9, 0.5], [0.9, 0], [0.5, 0.4]], np.float32)
    one, other, weight = edges(index, cosine)
    assert list(zip(one, other)) == [(0, 1), (0, 2), (1, 2)]
    beyond = np.exp(-0.4 / 0.2)  # of 0's two neighbours the further: mean of (0, 0.4) is 0.2
    assert weight[0] == pytest.approx(1.0) and weight[1] == pytest.approx(1 - (1 - beyond) * (1 - 1.0), rel=1e-4)
    assert weight[2] == pytest.approx(np.exp(-0.1 / 0.05), rel=1e-4)
    assert [len(x) for x in edges(np.full((3, 2), -1), np.zeros((3, 2), np.float32))] == [0, 0, 0]


def test_groups_stay_together_as_chance_does_not(workspace):
    near = neighbours_of(Index(workspace / "index").sources["sae"])
    positions, about = made(workspace)
    middle = np.array([positions[g * EACH : (g + 1) * EACH].mean(0) for g in range(GROUPS)])
    inside = np.mean([np.linalg.norm(positions[g * EACH : (g + 1) * EACH] - middle[g], axis=1).mean() for g in range(GROUPS)])
    between = np.linalg.norm(middle[:, None] - middle[None], axis=2)[np.triu_indices(GROUPS, 1)].min()
    assert between > 2 * inside
    random = kept(np.random.default_rng(0).normal(size=positions.shape), near)
    assert about["kept"] > 0.95 and random < 0.5
    assert about["kept"] == pytest.approx(kept(positions, near))


def test_a_map_that_was_killed_ends_as_if_it_had_not_been(workspace, monkeypatch):
    whole, _ = made(workspace)
    folder = workspace / "index" / "sources" / "0"
    (folder / NAME).unlink()
    (workspace / "index" / "sha256.json").unlink()
    monkeypatch.setattr(map_store, "EVERY", -1.0)  # a checkpoint an epoch

    class Killed(BaseException):
        pass

    def die(done, total):
        if done == 40:
            raise Killed

    with pytest.raises(Killed):
        made(workspace, progress=die)
    assert (folder / PART).exists() and not (folder / NAME).exists()
    begun = []
    again, _ = made(workspace, progress=lambda done, total: begun.append(done))
    assert begun[0] == 40 and np.array_equal(again, whole) and not (folder / PART).exists()


def test_a_map_is_part_of_the_seal_and_is_read_again(workspace):
    positions, about = made(workspace)
    assert check_seal(workspace / "index")
    again, told = read_map(workspace / "index" / "sources" / "0" / NAME, len(positions))
    assert np.array_equal(again, positions) and told["kept"] == about["kept"]
    assert made(workspace, progress=lambda *a: pytest.fail("made again"))[1]["kept"] == about["kept"]
    path = workspace / "index" / "sources" / "0" / NAME
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="damaged"):
        read_map(path, len(positions))


def test_without_a_decoder_the_outline_is_random_and_groups_still_stay_together(workspace):
    index = Index(workspace / "index")
    _, about = make_map(index, index.sources["sae"], workspace / "nowhere")
    assert about["outline"] == "random" and about["kept"] > 0.9


def test_nothing_moves_without_neighbours(workspace):
    none = (np.full((5, 3), -1), np.zeros((5, 3), np.float32))
    e = Embedding.begin(none, None, epochs=2)
    before = e.positions.copy()
    e.advance()
    assert np.array_equal(e.positions, before) and np.isnan(kept(before, none))


def test_a_square_holds_every_position_and_both_axes_have_one_scale():
    positions = np.random.default_rng(1).normal(size=(5000, 2)) * (4, 1)
    found = squared(positions).astype(float)
    spread = found.std(0)
    assert found.min() >= 0 and found.max() <= 65535 and spread[0] / spread[1] == pytest.approx(4, rel=0.05)
    assert squared(np.zeros((3, 2))).tolist() == [[32768, 32768]] * 3


def test_decoder_rows_are_the_dictionarys(workspace, make_dictionary):
    d = grouped()
    assert np.array_equal(decoder_rows(workspace / "dictionaries" / "sae"), d.W_dec.detach().numpy())
    assert decoder_rows(workspace / "index") is None
    some, stretch = decoder_rows(workspace / "dictionaries" / "sae", some=48), np.arange(16)
    assert np.array_equal(some, d.W_dec.detach().numpy()[np.concatenate([stretch, stretch + 64, stretch + 128])])
    a = np.array([[1, 0], [0, 0], [1, 1]], np.float32)
    assert cosines(a, np.array([[2, 0], [1, 1], [-1, -1]], np.float32)).tolist() == pytest.approx([1, 0, -1])


def test_the_map_over_http(workspace):
    index = Index(workspace / "index")
    headers = {"authorization": f"Bearer {TOKEN}"}
    with served(index, None) as (address, _), httpx.Client(base_url=address, headers=headers) as client:
        about = client.get("/api/sources/sae/map").json()
        assert about["state"] == "none" and about["principal"] and "score:detection" in about["columns"]
        assert client.get("/api/sources/sae/map/neighbours").status_code == 404
        plain = np.frombuffer(client.get("/api/sources/sae/map/principal").content, "<u2").reshape(-1, 2)
        assert np.array_equal(plain, squared(principal(decoder_rows(workspace / "dictionaries" / "sae"))[0]))
        assert client.post("/api/sources/sae/map", json={}).json()["state"] in ("waiting", "making")
        for _ in range(400):
            about = client.get("/api/sources/sae/map").json()
            if about["state"] == "ready":
                break
            assert about["state"] in ("waiting", "making")
            time.sleep(0.05)
        assert about["about"]["neighbours"]["kept"] > 0.9
        assert len(client.get("/api/sources/sae/map/neighbours").content) == 4 * GROUPS * EACH
        scores = np.frombuffer(client.get("/api/sources/sae/values/score:detection").content, "<f4")
        assert scores[:3].tolist() == pytest.approx([0, 0.1, 0.2]) and np.isnan(scores[3:]).all()
        density = np.frombuffer(client.get("/api/sources/sae/values/density").content, "<f4")
        assert np.array_equal(density, index.sources["sae"].columns["density"])
        for path in (
            "/api/sources/nope/map",
            "/api/sources/sae/map/..",
            "/api/sources/sae/values/nope",
            "/api/sources/sae/values/score:x",
        ):
            assert client.get(path).status_code == 404
        assert client.post("/api/sources/sae/map", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    Index(workspace / "index")  # whose seal still holds
