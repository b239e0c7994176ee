"""One flipped byte in any artefact is found by `diascope verify` and by whoever loads it, and the file is named."""

import shutil
import threading

import numpy as np
import pytest

from diascope.activations import RowReader
from diascope.cli import main
from diascope.dictionaries import BatchTopK, load_dictionary
from diascope.latents.store import Index
from diascope.models.toy import toy_model
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.run import Run
from diascope.storage import seals
from diascope.storage.seals import SEAL, Damaged, LateCheck, check_seal, resealed, seal
from diascope.training import MemberRecipe, TrainingRecipe
from diascope.training.loop import Group


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A finished run on the toy model, with examples beside the release's layout."""
    folder = tmp_path_factory.mktemp("run")
    text = folder / "text.jsonl"
    draw = np.random.default_rng(0)
    words = ["the", "a", "cat", "sat", "on", "mat", "and", "ran"]
    text.write_text("\n".join('{"text": "' + " ".join(draw.choice(words, 40)) + '"}' for _ in range(60)))
    member = MemberRecipe(
        "sae", "L1.resid_post", "L1.resid_post", d_sae=32, activation=BatchTopK(4), matryoshka=None, l0_target=4.0
    )
    recipe = RunRecipe(
        TrainingRecipe((member,), epochs=1, batch=128, lr_warmup=2, l0_warmup=3), model="toy", corpus=str(text), tokens=6400, context=64,
        held_out=0.3, calibration_tokens=256, eval_corpus="held-out", eval_tokens=256, ce_tokens=256, index_tokens=1000, examples=5,
        controls=False,
    )  # fmt: skip
    run = Run(recipe, folder / "w", model=toy_model())
    run.carry_out()
    return folder / "w"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 0x10
    path.write_bytes(data)


def verify(path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["diascope", "verify", str(path)])
    try:
        main()
    except SystemExit as end:
        return end.code, capsys.readouterr().err.replace("\n", "")
    return 0, capsys.readouterr().out


def test_a_whole_workspace_verifies(workspace, monkeypatch, capsys):
    code, said = verify(workspace, monkeypatch, capsys)
    assert code == 0 and all(word in said for word in ("spool", "checkpoint", "index", "dictionaries", "gemma-scope-2"))


LOADERS = {
    "spool": lambda f: RowReader(f / "spool").check(),
    "dictionaries": lambda f: load_dictionary(f / "dictionaries" / "sae"),
    "gemma-scope-2": lambda f: load_dictionary(next(f.glob("gemma-scope-2/*/*"))),
    "index": lambda f: read_all(Index(f / "index")),
}


def read_all(index):
    """What a reader of an index meets: tokens and every record. Large files are compared beside it, so that opening says nothing of them."""
    assert index.tokens.size
    for source in index.sources.values():
        for j in range(len(source)):
            source.record(j)


def sealed_files(workspace):
    return sorted(
        p.relative_to(workspace).as_posix()
        for kind in LOADERS
        for p in (workspace / kind).rglob("*")
        if p.is_file() and not p.name.startswith(".")
    )


def test_one_flipped_byte_is_found_by_verify_and_by_every_loader(workspace, tmp_path, monkeypatch, capsys):
    files = sealed_files(workspace)
    assert len(files) > 20
    for name in files:
        copy = tmp_path / "copy"
        shutil.copytree(workspace, copy)
        flip(copy / name)
        code, said = verify(copy, monkeypatch, capsys)
        owner = (copy / name).name
        assert code == 2 and owner in said, (name, said)
        with pytest.raises(ValueError, match=owner.replace(".", r"\.")):
            LOADERS[name.split("/")[0]](copy)
        shutil.rmtree(copy)


def test_training_reads_no_row_that_was_changed(workspace, tmp_path):
    shutil.copytree(workspace / "spool", tmp_path / "spool")
    flip(next((tmp_path / "spool" / "runs").glob("*/L1.resid_post.safetensors")))
    reader = RowReader(tmp_path / "spool")
    with pytest.raises(ValueError, match=r"L1\.resid_post\.safetensors is damaged"):
        reader.read(reader.sites[0], np.arange(len(reader)))


def test_a_checkpoint_that_was_changed_is_named(workspace, tmp_path):
    shutil.copytree(workspace, tmp_path / "w")
    flip(tmp_path / "w" / "training" / "checkpoint" / "sae.safetensors")
    reader = RowReader(tmp_path / "w" / "spool")
    member = MemberRecipe(
        "sae", "L1.resid_post", "L1.resid_post", d_sae=32, activation=BatchTopK(4), matryoshka=None, l0_target=4.0
    )
    with pytest.raises(ValueError, match=r"sae\.safetensors is damaged"):
        Group(
            TrainingRecipe((member,), epochs=1, batch=128, lr_warmup=2, l0_warmup=3), reader, tmp_path / "w" / "training", "toy"
        )


def test_a_seal_follows_a_file_that_is_written_again(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    assert not check_seal(tmp_path)
    seal(tmp_path)
    assert check_seal(tmp_path)
    with resealed(tmp_path, "a") as path:
        path.write_text("3")
        assert check_seal(tmp_path)  # a kill here leaves a folder that loads
    assert check_seal(tmp_path)
    (tmp_path / "a").write_text("4")
    with pytest.raises(ValueError, match="a is damaged"):
        check_seal(tmp_path)
    (tmp_path / "b").unlink()
    with pytest.raises(ValueError, match="b is missing"):
        check_seal(tmp_path, ["b"])
    assert check_seal(tmp_path, ["b"], whole=False)
    (tmp_path / SEAL).write_text("[]")
    with pytest.raises(ValueError, match="damaged"):
        check_seal(tmp_path)


def test_a_late_check_keeps_readers_waiting_until_their_own_file_is_compared(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_text(name)
    seal(tmp_path)
    (tmp_path / "b").write_text("other")
    go, hashed = {name: threading.Event() for name in "abc"}, seals.sha256_file
    monkeypatch.setattr(seals, "sha256_file", lambda path: go[path.name].wait(10) and hashed(path))
    check, passed = LateCheck(tmp_path, "abc", way_out="fetch it again"), threading.Event()
    reader = threading.Thread(target=lambda: (check.wait("a"), passed.set()))
    reader.start()
    check.wait("of no seal")
    assert not passed.wait(0.1) and not check.ended
    go["a"].set()
    assert passed.wait(10)
    go["b"].set()
    with pytest.raises(Damaged, match=r"b is damaged.*fetch it again"):
        check.wait("b")
    go["c"].set()
    check.wait("c")  # one damaged file does not speak for the others
    assert check.ended
    with pytest.raises(Damaged, match="b is damaged"):
        check.wait()


def test_a_file_that_cannot_be_read_late_is_damaged_too(tmp_path):
    (tmp_path / "a").write_text("a")
    seal(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(Damaged, match="a is missing"):
        LateCheck(tmp_path, ["a"]).wait("a")
