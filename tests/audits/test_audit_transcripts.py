"""Transcripts: read from three formats, cut into spans that hold the very words, and an injection that is found where it was put."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from planted_behaviour import FROM_Q, TEMPLATE, planted_model, unit

from diascope.audits import Target
from diascope.audits.monitor import Monitor
from diascope.audits.timeline import change_points, timeline
from diascope.audits.transcript import Turn, lay, read_transcripts

CALL = {"id": "1", "type": "function", "function": {"name": "fetch", "arguments": '{"page": 1}'}}
MESSAGES = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": [{"type": "text", "text": "Read the board."}]},
    {"role": "assistant", "content": "<think>I should look.</think>I will look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "The fair was good. A towel was found. Tea is sold."},
    {"role": "assistant", "content": "The fair was good."},
]
KINDS = ["system", "user", "think", "text", "tool_call", "tool_result", "text"]


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def with_result(text):
    return [*MESSAGES[:3], {**MESSAGES[3], "content": text}, MESSAGES[4]]


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.fixture(scope="module")
def monitor(model):
    """Reads q at its own token, after the first block."""
    return Monitor(
        "agent", model.name, Target(model).hash, "L0.resid_post", "span:planted", "by hand",
        tuple(unit(FROM_Q).tolist()), 0.0, 0.5, "none", 0,
    )  # fmt: skip


def test_openai_messages_in_three_wrappings_are_the_same(tmp_path):
    a = read_transcripts(write(tmp_path / "a.json", MESSAGES))
    b = read_transcripts(write(tmp_path / "b.json", {"id": "mine", "messages": MESSAGES}))
    c = read_transcripts(write(tmp_path / "c.jsonl", "\n".join(json.dumps({"messages": MESSAGES}) for _ in range(2)) + "\n"))
    assert a[0].turns == b[0].turns == c[0].turns == c[1].turns and len(c) == 2
    assert b[0].name == "mine" and [t.kind for t in a[0].turns] == KINDS
    assert a[0].turns[4] == Turn("tool_call", 'fetch({"page": 1})', 2)


def test_an_inspect_log_is_read_with_its_attachments(tmp_path):
    said = [
        {"role": "user", "content": "Read the board."},
        {
            "role": "assistant", "content": [{"type": "reasoning", "reasoning": "I should look."}, {"type": "text", "text": "I will."}],
            "tool_calls": [{"id": "1", "function": "fetch", "arguments": {"page": 1}, "type": "function"}],
        },
        {"role": "tool", "tool_call_id": "1", "function": "fetch", "content": "attachment://abc123", "error": {"type": "timeout", "message": "too slow"}},
    ]  # fmt: skip
    log = {"version": 2, "status": "success", "eval": {"task": "t"}, "samples": [
        {"id": 7, "epoch": 2, "messages": said, "attachments": {"abc123": "A long board."}},
    ]}  # fmt: skip
    (t,) = read_transcripts(write(tmp_path / "log.json", log))
    assert t.name == "sample 7, epoch 2"
    assert [(x.kind, x.text) for x in t.turns] == [
        ("user", "Read the board."), ("think", "I should look."), ("text", "I will."), ("tool_call", 'fetch({"page": 1})'),
        ("tool_result", "A long board."), ("tool_result", "too slow"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "{", "line 1: not JSON"),
        ("a.json", "[]", "holds no messages"),
        ("a.json", '{"hi": 1}', "neither a list of messages"),
        ("a.json", '{"eval": {}, "status": "success"}', "has no samples"),
        ("a.json", '[{"role": "robot", "content": "x"}]', "message 0 has no role that is known"),
        ("a.eval", "PK", "inspect log convert"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, says):
    with pytest.raises(ValueError, match=says):
        read_transcripts(write(tmp_path / name, content))
    with pytest.raises(ValueError, match="there is no transcript"):
        read_transcripts(tmp_path / "none.json")


def test_spans_hold_the_very_words(model, tmp_path):
    (t,) = read_transcripts(write(tmp_path / "a.json", MESSAGES))
    laid = lay(model, t)
    assert [s.turn for s in laid.spans] == list(t.turns) and not laid.told
    for s in laid.spans:
        assert model.tokenizer.decode(list(laid.tokens[s.start : s.stop])) == s.turn.text
    assert all(a.stop <= b.start for a, b in itertools.pairwise(laid.spans))


def test_a_template_without_a_tool_role_has_results_as_the_users_words(tmp_path):
    model = planted_model()
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}" + TEMPLATE
    )
    (t,) = read_transcripts(write(tmp_path / "a.json", MESSAGES))
    laid = lay(model, t)
    assert "knows no tool role" in laid.told[0]
    assert [model.tokenizer.decode(list(laid.tokens[s.start : s.stop])) for s in laid.spans] == [x.text for x in t.turns]


def test_a_planted_injection_is_found_at_its_sentence_and_a_benign_run_is_not_flagged(model, monitor, tmp_path):
    planted = "The fair was good. qqqq qqqq qqqqq. Tea is sold."
    bad, good = (
        timeline(model, monitor, read_transcripts(write(tmp_path / f"{i}.json", with_result(text)))[0])
        for i, text in enumerate((planted, MESSAGES[3]["content"]))
    )
    suspect = bad.suspect
    assert (
        suspect is not None and suspect.text == "qqqq qqqq qqqqq." and bad.laid.spans[suspect.span].turn.kind == "tool_result"
    )
    at = bad.sentences.index(suspect)
    assert bad.changes == (at, at + 1)
    assert sum(s.flagged for s in bad.sentences) == 1
    assert good.suspect is None and good.changes == ()


def test_instructions_in_spans_that_are_not_watched_are_not_flagged(model, monitor, tmp_path):
    messages = [{"role": "user", "content": "qqqqqq qqqq."}, *MESSAGES[2:]]
    (t,) = read_transcripts(write(tmp_path / "a.json", messages))
    assert timeline(model, monitor, t).suspect is None
    assert timeline(model, monitor, t, watched=("user",)).suspect is not None


def test_a_sentence_scores_as_its_mean_vector(model, monitor, tmp_path):
    (t,) = read_transcripts(write(tmp_path / "a.json", with_result("One q here. And two q and q. None.")))
    found = timeline(model, monitor, t)
    vectors = model.capture([list(found.laid.tokens)], "L0.resid_post")["L0.resid_post"][0].double().numpy()
    for s in found.sentences:
        assert s.score == pytest.approx(float(vectors[s.start : s.stop].mean(0) @ unit(FROM_Q)), abs=1e-5)
    for i, span in enumerate(found.laid.spans):  # sentences tile their span
        own = [s for s in found.sentences if s.span == i]
        assert own[0].start == span.start and own[-1].stop == span.stop
        assert all(a.stop == b.start for a, b in itertools.pairwise(own))


def test_change_points_are_the_best_of_all_cuts():
    """Against every way to cut eight pieces."""
    random = np.random.default_rng(0)
    for trial in range(20):
        sizes = random.integers(2, 6, 8)
        ends = np.cumsum(sizes)
        pieces = list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))
        scores = random.normal(size=int(ends[-1])) + np.repeat(random.choice([0, 2], 8), sizes)
        price = 3.0 * np.square(np.diff(scores)).mean() / 2 * np.log(len(scores))

        def cost(cuts, scores=scores, pieces=pieces, price=price):
            starts = [pieces[c][0] for c in (0, *cuts)]
            parts = np.split(scores, starts[1:])
            return sum(np.square(p - p.mean()).sum() for p in parts) + price * len(cuts)

        every = [c for k in range(8) for c in itertools.combinations(range(1, 8), k)]
        assert tuple(change_points(scores, pieces)) == min(every, key=cost), trial
    assert change_points(np.zeros(3), [(0, 3)]) == []


def test_the_command_says_which_span_and_stores_no_words(model, monitor, tmp_path, capsys, monkeypatch):
    import diascope.models
    from diascope.cli import main

    monkeypatch.setattr(diascope.models, "load_model", lambda *a, **k: model)
    monitor.save(tmp_path / "monitor.json")
    run, out = write(tmp_path / "run.json", with_result("The fair was good. qqqq qqqq qqqqq.")), tmp_path / "scores.json"

    def command(*words):
        monkeypatch.setattr("sys.argv", ["diascope", "audit", "transcript", *map(str, words)])
        try:
            main()
        except SystemExit as stop:
            return stop.code or 0
        return 0

    assert command(run, "--monitor", tmp_path / "monitor.json", "--out", out, "--fail") == 1
    assert "message 3, tool_result" in capsys.readouterr().out
    data = json.loads(out.read_text())
    (t,) = data["transcripts"]
    assert t["spans"][t["sentences"][t["suspect"]]["span"]]["kind"] == "tool_result"
    assert data["monitor"] == monitor.hash and "fair" not in out.read_text()
    assert command(run, "--monitor", tmp_path / "monitor.json", "--watch", "robot") == 2
    replace(monitor, model_sha256="0" * 16).save(tmp_path / "other.json")
    assert command(run, "--monitor", tmp_path / "other.json") == 2
    assert "make one on this model" in " ".join(capsys.readouterr().err.split())
