"""A bounded spool: the same dictionary as from a whole one, never more on disk than was given, whoever harvests."""

import os
import signal
import threading

import numpy as np
import pytest
from bounded_cases import PLAN, RECIPE

from diascope.activations import Batches, Layout, RowReader
from diascope.activations.batches import opened_by, windows
from diascope.activations.reader import row_bytes
from diascope.harvest import BoundedReader, feed, harvest
from diascope.models.toy import toy_model
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.verify import artefacts, check_files
from diascope.training import train_group
from diascope.training.member import Member


@pytest.fixture(scope="module")
def expected(model, sequences, bound, tmp_path_factory):
    """Dictionaries trained on a whole spool with the bounded one's window."""
    place = tmp_path_factory.mktemp("expected")
    window = BoundedReader(model, sequences, PLAN, place / "bounded", disk=bound).window
    whole = RowReader(harvest(model, sequences, PLAN, place / "spool").folder, window=window)
    return train_group(RECIPE, whole, place / "training", model="toy")


def trained(reader, folder, progress=lambda done, total, note: None):
    return train_group(RECIPE, reader, folder, model="toy", progress=progress)


def same(a, b):
    for ours, theirs in zip(a, b, strict=True):
        there = theirs.dictionary.tensors()
        assert all((tensor == there[name]).all() for name, tensor in ours.dictionary.tensors().items())
        assert all((tensor == theirs.probe[name]).all() for name, tensor in ours.probe.items() if name != "x")
    return True


def runs(folder):
    return sorted(p.name for p in (folder / "runs").glob("[!.]*"))


def test_training_alone_makes_what_it_reads_and_takes_away_what_it_passed(model, sequences, bound, expected, tmp_path):
    reader, there = BoundedReader(model, sequences, PLAN, tmp_path / "spool", disk=bound), []
    largest = int(reader.layout.counts.max()) * row_bytes(reader.manifest)
    found = trained(reader, tmp_path / "training", lambda *_: there.append(len(runs(tmp_path / "spool"))))
    assert max(there) * largest <= bound and len(set(there)) > 1
    assert [t.recipe.name for t in found] == ["sae", "late", "transcoder"] and same(found, expected)
    assert reader.position()[1] and len(runs(tmp_path / "spool")) * largest <= bound  # also after finishing


def test_harvesters_go_ahead_and_wait(model, sequences, bound, expected, tmp_path):
    said, spool = [], tmp_path / "spool"

    def work(own):
        try:
            reader = BoundedReader(own, sequences, PLAN, spool, disk=bound)
            feed(reader, reader.batches(64, 1.7), progress=lambda done, total, note: said.append((done, total, note)))
        except BaseException as error:
            said.append((0, 0, f"full of {error!r}"))
            raise

    harvesters = [threading.Thread(target=work, args=(toy_model(),)) for _ in range(2)]
    for h in harvesters:
        h.start()
    while not any("full" in note for _, _, note in list(said)):  # both windows are there before training begins
        harvesters[0].join(0.05)
    reader = BoundedReader(model, sequences, PLAN, spool, disk=bound)
    assert [int(r) for r in runs(spool)] == sorted(reader.wanted(0))
    found = trained(reader, tmp_path / "training")
    for h in harvesters:
        h.join(60)
        assert not h.is_alive()
    assert same(found, expected) and said[-1][0] == said[-1][1] > 0
    assert not any("full of" in note for _, _, note in said)


def test_a_crash_costs_no_rows(model, sequences, bound, expected, tmp_path):
    """Training dies behind its checkpoint, with a later window's runs on disk: it makes again what it took away."""

    class Crash(BaseException):
        pass

    def crash(done, total, note):
        if done >= 0.7 * total:
            raise Crash

    def stop(done, total, note):
        if done >= 0.35 * total:
            os.kill(os.getpid(), signal.SIGINT)

    spool = tmp_path / "spool"

    with pytest.raises(KeyboardInterrupt):
        trained(BoundedReader(model, sequences, PLAN, spool, disk=bound), tmp_path / "training", stop)
    with pytest.raises(Crash):
        trained(BoundedReader(model, sequences, PLAN, spool, disk=bound), tmp_path / "training", crash)
    found = trained(BoundedReader(model, sequences, PLAN, spool, disk=bound), tmp_path / "training")
    assert same(found, expected)


def test_a_straggler_is_taken_away_and_what_is_there_can_be_verified(model, sequences, bound, tmp_path):
    reader = BoundedReader(model, sequences, PLAN, tmp_path, disk=bound)
    late = next(r for r in range(16) if r not in reader.wanted(3))
    assert reader.make(late) and runs(tmp_path) == [f"{late:06d}"]
    reader.come_to(3)
    assert runs(tmp_path) == []
    first = reader.wanted(3)[0]
    reader.make(first)
    assert artefacts(tmp_path) == [("spool", tmp_path)]
    assert check_files("spool", tmp_path).startswith("1 runs are there just now")
    with pytest.raises(ValueError, match="come and go"):
        RowReader(tmp_path)
    file = tmp_path / f"runs/{first:06d}/L0.resid_post.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ValueError, match=r"L0.resid_post.safetensors"):
        check_files("spool", tmp_path)


def test_the_stream_counts_its_windows_over_all_epochs():
    layout = Layout([30, 20, 40, 10, 50, 25, 35], seed=3)
    batches = Batches(layout, 16, 2.6, 5, window=100)
    each = len(windows(layout, 100, 5, 0))
    for step in range(batches.steps):
        first = batches[step][0]
        number = batches.place(step)
        assert layout.runs_of(np.array([first]))[0] in opened_by(layout, 100, 5, number)
        assert number // each == step * 16 // 210
    assert batches.windows == 1 + max(batches.place(batches.steps - 1), *(
        n for n in range(3 * each) if layout.runs_of(batches[batches.steps - 1][-1:])[0] in opened_by(layout, 100, 5, n)
        and n in (batches.place(batches.steps - 1), batches.place(batches.steps - 1) + 1)
    ))  # fmt: skip


def test_harvesters_end_when_every_member_has_failed(model, sequences, bound, tmp_path, monkeypatch):
    reader = BoundedReader(model, sequences, PLAN, tmp_path / "spool", disk=bound, training="one")
    monkeypatch.setattr(Member, "step", lambda *_: (_ for _ in ()).throw(ArithmeticError("broken")))
    with pytest.raises(RuntimeError, match="every member failed"):
        trained(reader, tmp_path / "training")
    assert reader.position()[1]
    other = BoundedReader(model, sequences, PLAN, tmp_path / "spool", disk=bound, training="two")
    assert other.position() == (0, False)  # another's end is not its own


def test_what_cannot_work_is_refused(model, sequences, bound, tmp_path):
    with pytest.raises(ValueError, match=r"two runs of .* rows take .* GB, more than"):
        BoundedReader(model, sequences, PLAN, tmp_path, disk=bound / 6)
    with pytest.raises(ValueError, match="stored beforehand"):
        RunRecipe(RECIPE, store="bounded", not_finite="leave out")
    with pytest.raises(ValueError, match="spool, bounded, live"):
        RunRecipe(RECIPE, store="s3")
