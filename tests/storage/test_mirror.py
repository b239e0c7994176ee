"""Checkpoints in a store: a machine with an empty disk goes on bit-identically; half a copy is none; a damaged one is named."""

import json
import os
import signal
from dataclasses import replace

import pytest

from diascope.dictionaries import BatchTopK, Matryoshka
from diascope.storage import store as module
from diascope.storage.vault import vault
from diascope.training import MemberRecipe, TrainingRecipe, train_group

CHOICES = {"d_sae": 32, "activation": BatchTopK(4), "matryoshka": Matryoshka((8, 32), (1.0, 1.0)), "l0_target": 4.0}
MEMBERS = (
    MemberRecipe("sae", "L1.mlp_in", "L1.mlp_in", **CHOICES),
    MemberRecipe("late", "L1.mlp_in", "L1.mlp_in", start="member:sae", begins=0.5, **CHOICES),
)
RECIPE = TrainingRecipe(MEMBERS, epochs=2, batch=256, lr_warmup=2, l0_warmup=3, checkpoint_every=0.0)  # a copy at every step


class Gone(BaseException):
    """The machine was taken away."""


def until(step):
    """A progress that ends the process there, as a preempted machine ends."""

    def progress(done, total, note):
        if done == step * RECIPE.batch:
            raise Gone

    return progress


def train(reader, folder, place="", progress=lambda *_: None, recipe=RECIPE):
    return train_group(recipe, reader, folder, model="toy", progress=progress, checkpoint_to=place)


@pytest.fixture(scope="module")
def expected(reader, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train(reader, folder)


def same(found, expected, folder):
    ours, theirs = ({t.recipe.name: t.dictionary.tensors() for t in some} for some in (found, expected[1]))
    assert ours.keys() == theirs.keys()
    assert all((v == theirs[name][k]).all() for name, tensors in ours.items() for k, v in tensors.items())
    assert log(folder) == log(expected[0])
    assert (folder / "mixing.json").exists() and (folder / "recipe.json").exists()


def log(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line["step"], line["member"], line["fvu"]) for line in lines]


def test_an_empty_disk_goes_on_where_the_last_machine_stood(reader, expected, bucket, tmp_path):
    for life, step in enumerate((7, 19)):  # before and after the late member has begun
        with pytest.raises(Gone):
            train(reader, tmp_path / f"machine-{life}", bucket, until(step))
        names = vault(bucket).names("steps")
        assert len(names) == min(2, step - 1) and int(names[-1]) == step - 1
    same(train(reader, tmp_path / "last", bucket), expected, tmp_path / "last")
    # a machine that comes back after it was overtaken does not begin behind
    seen = []
    same(train(reader, tmp_path / "machine-0", bucket, lambda done, *_: seen.append(done)), expected, tmp_path / "machine-0")
    assert not seen


def test_a_machine_that_is_told_to_end_leaves_its_last_step(reader, expected, bucket, tmp_path):
    def told(done, total, note):
        if done == 9 * RECIPE.batch:
            os.kill(os.getpid(), signal.SIGINT)

    recipe = replace(RECIPE, checkpoint_every=1e9)
    with pytest.raises(KeyboardInterrupt):
        train(reader, tmp_path / "first", bucket, told, recipe)
    assert vault(bucket).names("steps") == [f"{9:012d}"]
    same(train(reader, tmp_path / "second", bucket, recipe=recipe), expected, tmp_path / "second")


def test_half_a_copy_is_none(reader, expected, bucket, tmp_path, monkeypatch):
    put = module.Store._put

    def dies(self, path, file, **how):
        if path.endswith("000000000005/state.json"):  # shares and log are up, what is left is the state and the marker
            raise Gone
        put(self, path, file, **how)

    monkeypatch.setattr(module.Store, "_put", dies)
    with pytest.raises(Gone):
        train(reader, tmp_path / "first", bucket)
    monkeypatch.setattr(module.Store, "_put", put)
    door = vault(bucket)
    assert door.names("steps") == [f"{n:012d}" for n in (3, 4)] and door._objects(f"steps/{5:012d}")  # type: ignore[attr-defined]
    same(train(reader, tmp_path / "second", bucket), expected, tmp_path / "second")


@pytest.mark.parametrize(("content", "what"), [(b"other bytes", "damaged in the store"), (None, "missing")])
def test_a_damaged_copy_is_named_and_the_one_before_it_serves(reader, expected, bucket, tmp_path, content, what):
    import obstore

    with pytest.raises(Gone):
        train(reader, tmp_path / "first", bucket, until(9))
    door = vault(bucket)
    bad = f"steps/{door.names('steps')[-1]}/sae.safetensors"
    obstore.put(door.store, bad, content) if content else obstore.delete(door.store, bad)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=rf"{bad} is {what}: delete the folder"):
        train(reader, tmp_path / "second", bucket)
    assert not (tmp_path / "second" / "checkpoint").exists()
    door.delete(bad.rsplit("/", 1)[0])
    same(train(reader, tmp_path / "second", bucket), expected, tmp_path / "second")


def test_a_folder_serves_too_and_is_checked(reader, expected, tmp_path):
    place = tmp_path / "copies"
    with pytest.raises(Gone):
        train(reader, tmp_path / "first", place, until(9))
    newest = sorted((place / "steps").glob("[!.]*"))[-1]
    good = (newest / "late.safetensors").read_bytes()
    (newest / "late.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"late\.safetensors is damaged.*the one before it counts then"):
        train(reader, tmp_path / "second", place)
    (newest / "late.safetensors").write_bytes(good)
    same(train(reader, tmp_path / "second", place), expected, tmp_path / "second")
    assert not any(p.is_symlink() for p in place.rglob("*"))


def test_copies_of_another_run_are_refused(reader, bucket, tmp_path):
    with pytest.raises(Gone):
        train(reader, tmp_path / "first", bucket, until(3))
    with pytest.raises(ValueError, match="checkpoints of another run"):
        train(reader, tmp_path / "second", bucket, recipe=replace(RECIPE, seed=1))
    assert not (tmp_path / "second" / "checkpoint").exists()


def test_a_store_that_goes_away_ends_training_and_the_checkpoint_here_stands(reader, expected, bucket, tmp_path, monkeypatch):
    import obstore

    def fails(*_, **__):
        raise OSError("503 slow down")

    def cut(done, total, note):
        if done == 6 * RECIPE.batch:
            monkeypatch.setattr(module, "TRIES", 2)
            monkeypatch.setattr(obstore, "put", fails)

    with pytest.raises(OSError, match=r"steps/000000000006/.*the store failed 2 times, at last with: 503"):
        train(reader, tmp_path / "first", bucket, cut)
    assert json.loads((tmp_path / "first" / "checkpoint" / "state.json").read_text())["step"] == 6
    monkeypatch.undo()
    same(train(reader, tmp_path / "first"), expected, tmp_path / "first")


def test_a_store_that_is_gone_is_said_before_training(reader, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRIES", 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    seen = []
    with pytest.raises(OSError, match=r"run\.json: the store failed 2 times"):
        train(reader, tmp_path, bucket, lambda *_: seen.append(1))
    assert not seen
