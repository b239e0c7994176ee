"""The whole line on the toy model: windows against a dense recomputation, resumption, controls, the index and its search."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from describe_server import serving

from diascope.cli import main
from diascope.config import to_data
from diascope.dictionaries import Dictionary, DictionaryConfig, save_dictionary
from diascope.latents.build import build_index
from diascope.latents.describe.battery import Settings
from diascope.latents.describe.endpoint import Endpoint
from diascope.latents.describe.judge import JudgeDown, Scripted
from diascope.latents.describe.report import for_index
from diascope.latents.describe.run import describe
from diascope.latents.describe.shelf import Description, Shelf, shelve, write_shelf
from diascope.latents.describe.windows import Grid, Sampling
from diascope.latents.examples import live_rows, sweep
from diascope.latents.store import Index
from diascope.tokens import Document, pack

WORDS = "the cat sat on a mat and the dog ran off with my hat to sea".split()
SMALL = Sampling(window=12, train=6, positives=8, negatives=8)
CHEAP = Settings(SMALL, scorers=("detection", "overlap"))
QUICK = Settings(SMALL, trials=2, simulated=2, surprisal=3)


@pytest.fixture(scope="module")
def subject(toy):
    r = np.random.default_rng(0)
    docs = [Document(f"d{i}", " ".join(r.choice(WORDS, 24))) for i in range(80)]
    docs += [Document(f"copy{i}", docs[i].text) for i in range(10)]  # a text that stands in the corpus twice
    sequences = pack(toy, docs, context=64, max_tokens=64 * 120)
    g = torch.Generator().manual_seed(0)
    config = DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", 32, 32, 24)
    tensors = {
        "W_enc": torch.randn(32, 24, generator=g) / 5, "W_dec": torch.nn.functional.normalize(torch.randn(24, 32, generator=g), dim=1),
        "b_enc": torch.zeros(24), "b_dec": torch.zeros(32), "threshold": torch.full((24,), 2.0),
    }  # fmt: skip
    tensors["b_enc"][5] = -1e6  # never fires
    tensors["threshold"][6], tensors["b_enc"][6] = 0.0, 1e3  # always fires
    return Dictionary(config, tensors), sequences


@pytest.fixture(scope="module")
def grid(toy, subject):
    d, sequences = subject
    return Grid(toy, sequences, sweep({"d": d}, live_rows(toy, sequences, [d.site_in]))["d"], SMALL)


def truth(toy, d, sequences):
    """Activations [N, T, S] of every row, nan where there is none."""
    out = np.full((*sequences.tokens.shape, d.d_sae), np.nan, np.float32)
    for v, s, p in live_rows(toy, sequences, [d.site_in]):
        out[s, p] = d.encode(v[d.site_in]).dense().numpy()
    return out


def test_windows_hold_the_right_activations_and_negatives_do_not_fire(toy, subject, grid):
    """Elsewhere random windows serve as negatives without a look at whether the latent fires there."""
    d, sequences = subject
    f = truth(toy, d, sequences)
    by_tokens = {}
    for m, first in enumerate(grid.first):
        s, p = divmod(int(first), sequences.tokens.shape[1])
        assert len(set(sequences.document[s, p : p + 12])) == 1 and (np.diff(sequences.positions[s, p : p + 12]) == 1).all()
        by_tokens[grid.tokens[m].tobytes()] = f[s, p : p + 12]
    drawn = grid.draw(99)
    assert len(drawn) > 5 and not {5, 6} & set(drawn)
    for j in drawn:
        e = grid.examples(j)
        for w in (*e.train, *e.positive, *e.negative):
            assert np.allclose(w.activations, by_tokens[w.tokens.tobytes()][:, j], atol=1e-4)
        assert all(w.peak > 0 for w in (*e.train, *e.positive)) and all(w.peak == 0 for w in e.negative)
        assert [w.peak for w in e.train] == sorted((w.peak for w in e.train), reverse=True)


def test_training_and_test_windows_share_no_document_and_no_text(subject, grid):
    """Elsewhere 10 to 20 of 50 test examples were training examples."""
    for j in grid.draw(99):
        e = grid.examples(j)
        train, test = ({w.document for w in part} for part in (e.train, e.test))
        assert not train & test
        assert not {w.tokens.tobytes() for w in e.train} & {w.tokens.tobytes() for w in e.test}
    assert len({row.tobytes() for row in grid.tokens}) == len(grid.tokens)  # the copies count once
    assert 0.3 < grid.train.mean() < 0.7


def test_some_negatives_are_hard_and_positives_come_from_all_intervals(grid):
    hard = intervals = 0
    for j in grid.draw(99):
        e = grid.examples(j)
        commonest = set(e.profile.commonest(3).tolist())
        hard += sum(bool(commonest & set(w.tokens.tolist())) for w in e.negative)
        windows, activations = grid.fired(j)
        peaks = activations.max(1)[~grid.train[windows]]
        there = set(np.minimum(peaks / peaks.max() * 5, 4).astype(int))
        shown = {min(int(w.peak / peaks.max() * 5), 4) for w in e.positive}
        intervals += shown == there or len(shown) == 5
    assert hard and intervals > len(grid.draw(99)) / 2


def test_the_lookup_is_the_mean_over_training_windows(grid):
    j = grid.draw(1)[0]
    windows, activations = grid.fired(j)
    dense = np.zeros(grid.tokens.shape)
    dense[windows] = activations
    tokens, values = grid.tokens[grid.train], dense[grid.train]
    for token, mean in grid.examples(j).by_token.items():
        assert mean == pytest.approx(values[tokens == token].mean(), rel=1e-5)


def test_firings_of_another_text_are_refused(toy, subject, grid):
    _, sequences = subject
    with pytest.raises(ValueError, match="must have been swept"):
        Grid(toy, sequences.part(0, 3), grid.firings, SMALL)
    with pytest.raises(ValueError, match="fires in no"):
        grid.examples(5)
    with pytest.raises(ValueError, match="every test window"):
        grid.examples(6)


def test_without_a_judge_there_is_the_template_beside_its_shuffled_control(toy, subject, tmp_path):
    d, sequences = subject
    labels = {f"d{i}": "ab"[i % 2] for i in range(80)}
    report = describe(toy, d, sequences, tmp_path / "r", latents=8, settings=QUICK, labels=labels)
    assert report["rows"] == ["template", "shuffled"] and report["judge"] is None and report["usage"] == {}
    assert set(report["scores"]["template"]) == {"overlap", "surprisal", "output"} and set(report["alone"]) == {
        "lookup",
        "purity",
    }
    assert report["scores"]["template"]["output"]["value"] > 0.5 and abs(report["alone"]["purity"]["value"]) < 0.4
    texts = report["descriptions"]
    assert len(texts) == 8 and all(t["template"].startswith("fires on") for t in texts.values())
    assert json.loads((tmp_path / "r" / "report.json").read_text()) == report
    assert "template minus shuffled" in report["differences"]


def marks(messages, _=0):
    """A judge of the toy's world: describes by the first marked byte, and looks for that byte."""
    question = messages[0]["content"]
    if "have in common" in question:
        return f"Description: the letter {re.search(r'<<(.)>>', question)[1]!r}"
    if "does not belong" in question:
        return "1"
    letter = re.search(r"the letter '(.)'", question)
    texts = re.findall(r"(?m)^\d+\. (.*)$", question)
    if "How strongly" in question:
        return "none"
    return str([i for i, t in enumerate(texts, 1) if letter and f"<<{letter[1]}>>" in t])


def test_a_judge_a_baseline_and_a_control_that_never_meets_itself(toy, subject, tmp_path):
    d, sequences = subject
    seen = []
    report = describe(
        toy, d, sequences, tmp_path / "r", latents=8, judge=Scripted(marks), settings=QUICK, before=lambda e: seen.append(e)
    )
    (estimate,) = seen
    assert report["rows"] == ["examples", "template", "shuffled"] and estimate.latents == 8
    used = report["usage"]
    assert used["requests"] <= estimate.requests and used["prompt_tokens"] > 0 and used["failures"] == 0
    assert set(report["scores"]["examples"]) == {"detection", "fuzzing", "simulation", "overlap", "surprisal", "output"}
    for line in map(json.loads, (tmp_path / "r" / "scores.jsonl").read_text().splitlines()):
        assert line["rows"]["examples"]["detection"] == {"value": 0.5, "n": 16, "failures": 0}  # it always says []
    entries = for_index(tmp_path / "r")
    assert [x.by for x in next(iter(entries.values()))] == ["scripted, from examples", "template"]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_control_is_another_latents_description(toy, subject, tmp_path, count):
    from diascope.latents.describe.run import _Run

    d, sequences = subject
    run = _Run(toy, d, sequences, tmp_path, None, QUICK, (0, 0), lambda *a: None)
    run.latents = list(range(10, 10 + count))
    others = run._others()
    assert sorted(others) == sorted(others.values()) == run.latents and all(a != b for a, b in others.items())


def test_a_run_that_is_broken_off_goes_on_and_is_the_same(toy, subject, tmp_path, monkeypatch):
    """The server dies twice and is rude in between: nothing that was answered is asked again, and nothing is lost."""
    d, sequences = subject
    whole = describe(toy, d, sequences, tmp_path / "whole", latents=6, judge=Scripted(marks, "j"), settings=QUICK)
    with serving(marks) as server:
        for dies_after in (4, 37):
            server.moods = ["well"] * dies_after + [(429, {"Retry-After": "0"}), "garbage"] + ["dead"] * 1000
            with pytest.raises(JudgeDown, match="same command goes on"):
                describe(toy, d, sequences, tmp_path / "r", latents=6, judge=judge_of(server), settings=QUICK)
            assert not (tmp_path / "r" / "report.json").exists()
        server.moods = []
        report = describe(toy, d, sequences, tmp_path / "r", latents=6, judge=judge_of(server), settings=QUICK)
        answered = [json.dumps(b["messages"]) for b in server.asked]
    for part in ("rows", "scores", "alone", "differences", "descriptions", "latents"):
        assert report[part] == whole[part]
    lines = (tmp_path / "r" / "answers.jsonl").read_text().splitlines()
    assert len(lines) == report["usage"]["requests"] == whole["usage"]["requests"] == len(set(answered))
    assert report["usage"]["failures"] >= 2 * 3 and report["usage"]["replayed"] > 0
    again = len(server.asked)
    monkeypatch.setattr("diascope.latents.describe.ground.live_rows", None)  # nor is the text swept again
    assert (
        describe(toy, d, sequences, tmp_path / "r", latents=6, judge=judge_of(server), settings=QUICK)["scores"]
        == whole["scores"]
    )
    assert len(server.asked) == again  # a finished run asks nothing


def judge_of(server):
    found = Endpoint(server.base, attempts=3, timeout=5.0, parallel=3, sleep=lambda s: None, model="j")
    found.name = "j"
    return found


def test_many_at_once_are_the_same_as_one_after_another(toy, subject, tmp_path):
    d, sequences = subject
    one = describe(toy, d, sequences, tmp_path / "one", latents=6, judge=Scripted(marks, "j"), settings=CHEAP)
    many = describe(toy, d, sequences, tmp_path / "many", latents=6, judge=Scripted(marks, "j", parallel=4), settings=CHEAP)
    assert one["scores"] == many["scores"] and one["descriptions"] == many["descriptions"]


def test_a_stop_before_it_costs_asks_nothing(toy, subject, tmp_path):
    d, sequences = subject
    asked = []

    def stop(estimate):
        assert (
            estimate.cost == pytest.approx((estimate.prompt_tokens * 2 + estimate.answer_tokens * 8) / 1e6)
            and estimate.cost > 0
        )
        assert estimate.seconds is None and "at the given prices" in str(estimate)
        raise ValueError("too dear")

    judge = Scripted(lambda m, n: asked.append(m) or "x")
    with pytest.raises(ValueError, match="too dear"):
        describe(toy, d, sequences, tmp_path / "r", latents=4, judge=judge, settings=QUICK, prices=(2.0, 8.0), before=stop)
    assert asked == []


def test_empty_descriptions_are_chance_and_counted(toy, subject, tmp_path):
    d, sequences = subject
    report = describe(toy, d, sequences, tmp_path / "r", latents=4, judge=Scripted(lambda m, n: "..."), settings=QUICK)
    assert report["empty_descriptions"] == {"examples": 4}
    own = report["scores"]["examples"]
    assert own["detection"]["value"] == own["fuzzing"]["value"] == 0.5 == own["surprisal"]["value"] == own["overlap"]["value"]
    assert (
        report["scores"]["template"]["detection"]["value"] == 0.0
        and report["scores"]["template"]["detection"]["failures"] == 4 * 16
    )


def test_another_run_in_the_folder_is_refused(toy, subject, tmp_path):
    d, sequences = subject
    describe(toy, d, sequences, tmp_path / "r", latents=4, settings=CHEAP)
    for other in ({"latents": 3}, {"settings": Settings(SMALL, together=3)}, {"judge": Scripted(marks)}):
        with pytest.raises(ValueError, match="holds another run"):
            describe(toy, d, sequences, tmp_path / "r", **({"latents": 4, "settings": CHEAP} | other))
    for wrong in ([], [99], [-1], 0, -1):
        with pytest.raises(ValueError, match=r"give a number|give some"):
            describe(toy, d, sequences, tmp_path / "x", latents=wrong, settings=CHEAP)
    with pytest.raises(ValueError, match=r"5 .*fires in no"):
        describe(toy, d, sequences, tmp_path / "y", latents=[1, 5], settings=CHEAP)
    assert not (tmp_path / "y" / "describe.json").exists()


def test_kept_firings_are_the_same_windows(toy, subject, grid, tmp_path):
    from diascope.latents.describe.kept import keep, kept, only

    drawn = grid.draw(5)
    keep(tmp_path, only(grid.firings, drawn))
    again = Grid(toy, subject[1], kept(tmp_path), SMALL)
    for j in drawn:
        a, b = grid.examples(j), again.examples(j)
        assert a.by_token == b.by_token and a.profile.tokens.tolist() == b.profile.tokens.tolist()
        assert [w.tokens.tobytes() + w.activations.tobytes() for w in (*a.train, *a.test)] == [
            w.tokens.tobytes() + w.activations.tobytes() for w in (*b.train, *b.test)
        ]
    assert again.fired(next(j for j in range(24) if j not in drawn))[0].size == 0
    (tmp_path / "firings.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="swept again"):
        kept(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"scorers": ("x",)}, "no scorer"), ({"explain": ("x",)}, "examples or outputs"), ({"explain": ()}, "examples or outputs"), ({"together": 0}, "together")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        Settings(**change)


# -- the index
@pytest.fixture(scope="module")
def index(toy, subject, tmp_path_factory):
    d, sequences = subject
    return build_index(
        toy, {"sae": d}, sequences, live_rows(toy, sequences, [d.site_in]), tmp_path_factory.mktemp("i") / "index"
    )


def test_an_index_has_the_template_of_every_latent_that_fired(index):
    source = Index(index).sources["sae"]
    fired = source.columns["density"] > 0
    assert [bool(source.description(j)) for j in range(24)] == fired.tolist() and source.description(5) == ""
    assert all(source.descriptions(j)[0].by == "template" for j in np.flatnonzero(fired))


def test_descriptions_enter_the_index_and_are_found(index, tmp_path):
    shutil.copytree(index, tmp_path / "i")
    shelve(
        tmp_path / "i",
        0,
        {3: [Description("judge", "rivers and lakes near Zürich", {"detection": 0.9})], 4: [Description("judge", "a lake")]},
    )
    source = Index(tmp_path / "i").sources["sae"]  # the seal holds
    assert [d.by for d in source.descriptions(3)] == ["judge", "template"] and source.descriptions(3)[0].scores == {
        "detection": 0.9
    }
    assert source.description(2) == Index(index).sources["sae"].description(2)
    assert sorted(source.search("lake")) == [3, 4] and source.search("river") == [3] and source.search("LAK zurich") == [3]
    assert source.search('"river" OR lake*') == [] and source.search("nothing-here") == []
    assert set(source.search(";")) >= {3}  # no word: as it stands, in the template
    with pytest.raises(ValueError, match="empty"):
        source.search("  ")
    shelve(tmp_path / "i", 0, {3: [Description("judge", "seas")]})
    source = Index(tmp_path / "i").sources["sae"]
    assert (
        [d.by for d in source.descriptions(3)] == ["judge", "template"]
        and source.search("river") == []
        and source.search("lake") == [4]
    )


@pytest.mark.parametrize(
    "query", ["'", '"', "a'b", "NEAR(", "text:", "*", "-", "()", "a AND", "\x00", "^", "é*", "{}", "SELECT 1;--"]
)
def test_no_query_reaches_the_search_engine_as_its_syntax(query):
    shelf = Shelf({1: [Description("x", "plain words")]})
    assert shelf.search(query) in ([], [1])


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "diascope-descriptions-9", "latents": {}}', '{"format": "x", "latents": {"a": 1}}']
)
def test_a_damaged_shelf_is_named(tmp_path, content):
    (tmp_path / "descriptions.json").write_text(content)
    with pytest.raises(ValueError, match=r"descriptions\.json"):
        Shelf.open(tmp_path)
    write_shelf(tmp_path / "descriptions.json", {2: [Description("a", "b")], 3: []})
    assert Shelf.open(tmp_path).latents == {2: [Description("a", "b")]}


# -- the command
def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["diascope", "describe", *map(str, arguments)])
    from diascope.cli import COMMANDS
    from diascope.cli.describe import Describe

    monkeypatch.setitem(COMMANDS, "describe", Describe)
    main()


def test_a_server_elsewhere_needs_a_yes_before_it_is_asked():
    from diascope.cli.describe import Describe
    from diascope.latents.describe.estimate import Estimate

    def asked(judge, **options):
        found = Describe("d", "f", judge=judge, **options)
        found._before(Estimate(1, 10, 100, 10, 10 * found.price_in, None))
        return found._prices()

    assert asked("http://127.0.0.1:8000/v1") == asked("smollm2-135m-instruct") == (0.0, 0.0)
    assert asked("https://api.example.org/v1", yes=True) is None
    with pytest.raises(ValueError, match="may cost"):
        asked("https://api.example.org/v1")
    with pytest.raises(ValueError, match=r"at most 20\.00"):
        asked("http://localhost/v1", price_in=2.0)


def test_the_command_says_what_it_costs_first_and_tells_the_index(toy, subject, index, tmp_path, monkeypatch, capsys):
    d, _ = subject
    save_dictionary(d, tmp_path / "d")
    shutil.copytree(index, tmp_path / "i")
    assert Index(index).sources["sae"].meta["config"] == to_data(d.config)
    (tmp_path / "t.txt").write_text("\n\n".join(" ".join(np.random.default_rng(i).choice(WORDS, 24)) for i in range(90)))
    monkeypatch.setattr("diascope.models.load_model", lambda *a, **k: toy)
    rest = (
        "--text",
        tmp_path / "t.txt",
        "--tokens",
        7000,
        "--context",
        64,
        "--latents",
        4,
        "--index",
        tmp_path / "i",
        "--scorers",
        "detection",
        "overlap",
    )
    with serving(marks) as server:
        judge = ("--judge", server.base, "--attempts", 2)
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, tmp_path / "d", tmp_path / "r", *rest, *judge, "--price-in", 3)
        assert stopped.value.code == 2 and "pass --yes" in capsys.readouterr().err and server.asked == []
        command(
            monkeypatch,
            tmp_path / "d",
            tmp_path / "r",
            *rest,
            *judge,
            "--price-in",
            3,
            "--yes",
            "--json",
            tmp_path / "report.json",
        )
    shown = capsys.readouterr().out
    assert "at the given prices" in shown and "shuffled" in shown and "template" in shown and "chance" in shown
    report = json.loads((tmp_path / "report.json").read_text())
    latent = report["latents"][0]
    source = Index(tmp_path / "i").sources["sae"]
    assert source.description(latent) == report["descriptions"][str(latent)]["examples"] and latent in source.search("letter")
    for wrong, says in (
        (("--judge", "nope/nope/nope"), "no model folder"),
        (("--judge", "scripted:x"), "PACKAGE.MODULE"),
        (("--scorers", "y"), "no scorer"),
        (("--source", "z"), "0 sources"),
    ):
        monkeypatch.undo()
        with pytest.raises(SystemExit):
            command(monkeypatch, tmp_path / "d", tmp_path / "r2", *rest, *wrong)
        assert says in capsys.readouterr().err
