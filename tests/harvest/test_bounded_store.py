"""A bounded spool in a store: the dictionaries of a folder's to the bit, old runs gone from store and cache, dead writers swept."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from bounded_cases import PLAN, RECIPE

from diascope.activations import RowReader
from diascope.activations.reader import row_bytes
from diascope.harvest import BoundedReader, feed, harvest
from diascope.models.toy import toy_model
from diascope.recipes.run import Run
from diascope.storage import store as module
from diascope.training import train_group

sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))
import kills


@pytest.fixture(scope="module")
def expected(model, sequences, bound, tmp_path_factory):
    """Tensors of the dictionaries that a whole spool here gives, with the bounded one's window; a bounded one here gives the same."""
    place = tmp_path_factory.mktemp("expected")
    bounded = BoundedReader(model, sequences, PLAN, place / "bounded", disk=bound)
    whole = RowReader(harvest(model, sequences, PLAN, place / "spool").folder, window=bounded.window)
    found = tensors(train_group(RECIPE, whole, place / "training", model="toy"))
    same(tensors(train_group(RECIPE, bounded, place / "again", model="toy")), found)
    return found


def tensors(trained):
    return {t.recipe.name: t.dictionary.tensors() for t in trained}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert all((tensor == b[name][key]).all() for key, tensor in a[name].items()), name


def held(cache):
    """Bytes of the files in the cache, and how many runs they are of."""
    files = [p for p in cache.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files), len({p.parent for p in files})


def test_a_store_gives_the_dictionaries_of_a_folder_and_holds_no_more(model, sequences, bound, expected, bucket, tmp_path):
    cache, there, fetched = tmp_path / "cache", [], []
    reader = BoundedReader(model, sequences, PLAN, bucket, disk=bound, cache=cache)

    def look(*_):
        there.append(len(reader.vault.names("runs")))
        fetched.append(held(cache))

    found = train_group(RECIPE, reader, tmp_path / "training", model="toy", progress=look)
    same(tensors(found), expected)
    assert max(there) <= 6 and len(set(there)) > 1
    assert max(n for _, n in fetched) <= 6 and max(size for size, _ in fetched) < 1.3 * bound  # small runs: headers weigh
    look()
    assert there[-1] <= 6 and fetched[-1][1] <= 6 and reader.position()[1]


def test_a_harvester_beside_a_training_in_a_store(sequences, bound, expected, bucket, tmp_path):
    wrong, notes = [], []

    def work():
        try:
            reader = BoundedReader(toy_model(), sequences, PLAN, bucket, disk=bound)
            batches = reader.batches(RECIPE.batch, RECIPE.epochs)
            feed(reader, batches, progress=lambda done, total, note: notes.append((done, total, note)))
        except BaseException as error:
            wrong.append(error)
            raise

    harvester = threading.Thread(target=work)
    harvester.start()
    while not any("full" in note for _, _, note in list(notes)) and harvester.is_alive():
        harvester.join(0.05)
    reader = BoundedReader(toy_model(), sequences, PLAN, bucket, disk=bound, cache=tmp_path / "cache")
    assert [int(r) for r in reader.vault.names("runs")] == sorted(reader.wanted(0))
    found = train_group(RECIPE, reader, tmp_path / "training", model="toy")
    harvester.join(60)
    assert not harvester.is_alive() and not wrong and notes[-1][0] == notes[-1][1]
    same(tensors(found), expected)


def test_a_crash_leaves_nothing_behind_for_long(model, sequences, bound, expected, bucket, tmp_path, monkeypatch):
    """Training dies, and so does a writer between two objects: the next life ends alike, and takes away what both have left."""

    class Crash(BaseException):
        pass

    def crash(done, total, note):
        if done >= 0.5 * total:
            raise Crash

    cache = tmp_path / "cache"
    first = BoundedReader(model, sequences, PLAN, bucket, disk=bound, cache=cache)
    with pytest.raises(Crash):
        train_group(RECIPE, first, tmp_path / "training", model="toy", progress=crash)
    left = set(first.vault.names("runs"))
    lost = next(f"{r:06d}" for r in range(16) if f"{r:06d}" not in left)
    put = module.Store._put

    def dies(self, path, file, **how):
        if path.endswith("mlp_out.safetensors"):
            raise Crash
        put(self, path, file, **how)

    monkeypatch.setattr(module.Store, "_put", dies)
    with pytest.raises(Crash):
        first.make(int(lost))
    monkeypatch.setattr(module.Store, "_put", put)
    assert lost not in first.vault.names("runs") and first.vault._objects(f"runs/{lost}")  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "STALE", -1.0)
    reader = BoundedReader(model, sequences, PLAN, bucket, disk=bound, cache=cache)
    same(tensors(train_group(RECIPE, reader, tmp_path / "training", model="toy")), expected)
    names = set(reader.vault.names("runs"))
    assert {p.split("/")[-2] for p in reader.vault._objects("runs")} == names and len(names) <= 6  # type: ignore[attr-defined]
    assert {p.name for p in cache.glob("*/runs/*")} <= names


def test_two_runs_that_fit_two_times_are_what_a_cache_may_hold(model, sequences, bound, bucket, tmp_path):
    """What an earlier life has fetched counts."""
    for _ in range(2):
        reader = BoundedReader(model, sequences, PLAN, bucket, disk=bound, cache=tmp_path / "cache")
        for window in (0, 1):
            reader.open_window(window)
            for r in reader.wanted(window)[:3]:
                reader.read(reader.sites[0], [int(reader.layout.starts[r])])
        size, runs = held(tmp_path / "cache")
        assert 0 < size <= bound + int(reader.layout.counts.max()) * row_bytes(reader.manifest) and runs <= 6
        reader.come_to(5)
        assert held(tmp_path / "cache")[1] <= len(reader.wanted(5))


def test_a_whole_run_with_its_rows_in_a_store_ends_like_one_with_a_folder(bucket, tmp_path):
    recipe = replace(kills.recipe(tmp_path), tokens=8_000, store="bounded", row_bytes=1e6)
    for place, spool in (("here", ""), ("there", bucket)):
        Run(recipe, tmp_path / place, model=toy_model(), spool=spool).carry_out("evaluation")
    here, there = (
        {n: h for n, h in kills.hashes(tmp_path / place).items() if not n.startswith("spool")} for place in ("here", "there")
    )
    assert len(here) > 15 and here == there
    assert not (tmp_path / "there" / "spool").exists()
