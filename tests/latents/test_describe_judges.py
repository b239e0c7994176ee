"""Judges: servers in every mood, answers remembered, keys kept to themselves."""

import email.utils
import json
import threading
import time

import pytest
from describe_server import serving

from diascope.latents.describe.ahead import ahead
from diascope.latents.describe.endpoint import Endpoint
from diascope.latents.describe.judge import Answer, Judge, JudgeDown, Replay, Scripted
from diascope.latents.describe.lines import Lines
from diascope.latents.describe.local import Local

ASK = [{"role": "user", "content": "what?"}]


@pytest.fixture
def server():
    with serving(lambda messages: messages[0]["content"].upper()) as found:
        yield found


def judge(server, **options):
    waits = []
    made = Endpoint(server.base, sleep=waits.append, timeout=options.pop("timeout", 5.0), **options)
    return made, waits


def test_a_server_is_asked_in_its_own_terms_and_counted(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    found, waits = judge(server, key_env="MY_KEY")
    assert isinstance(found, Judge) and found.name == "toy-judge at 127.0.0.1"
    assert found.ask(ASK, 9) == Answer("WHAT?", 7, 3) and waits == [] and found.failures == 0
    assert server.asked == [{"model": "toy-judge", "messages": ASK, "max_tokens": 9, "temperature": 0}]
    assert server.headers[0]["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("mood", ["slow", "drops", "cut", "dead", "garbage", "other", (503, {}), (500, {}), (408, {})])
def test_a_bad_mood_is_waited_out(server, mood):
    found, waits = judge(server, timeout=0.3)
    server.moods = [mood, mood]
    assert found.ask(ASK, 9).text == "WHAT?"
    assert found.failures == 2 and len(waits) == 2 and 1 <= waits[0] < waits[1] <= 2.5


@pytest.mark.parametrize("mood", ["dead", "garbage", "other", (503, {}), (429, {})])
def test_a_lasting_one_says_that_nothing_is_lost(server, mood):
    found, _ = judge(server, attempts=3)
    server.moods = [mood] * 9
    with pytest.raises(JudgeDown, match="same command goes on"):
        found.ask(ASK, 9)
    assert found.failures == 3


def test_retry_after_is_kept_to(server):
    found, waits = judge(server)
    soon = email.utils.format_datetime(email.utils.localtime())
    server.moods = [
        (429, {"Retry-After": "7"}),
        (429, {"Retry-After": soon}),
        (429, {"Retry-After": "soon"}),
        (503, {"Retry-After": "0.5"}),
    ]
    assert found.ask(ASK, 9).text == "WHAT?"
    assert waits[0] == 7.0 and waits[1] < 1.0 and 4 <= waits[2] <= 5 and waits[3] == 0.5
    server.moods = [(429, {"Retry-After": "7200"})]
    with pytest.raises(JudgeDown, match="asks to wait 7,200 s"):
        found.ask(ASK, 9)


def test_what_the_caller_must_mend_is_said_at_once(server):
    found, waits = judge(server)
    for status, says in ((401, "key-env"), (404, "--judge"), (400, "mood")):
        server.moods = [(status, {})]
        with pytest.raises(ValueError, match=says):
            found.ask(ASK, 9)
    assert waits == []


def test_no_redirect_takes_the_key_along(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    with serving(lambda m: "stolen") as elsewhere:
        found, _ = judge(server)
        for status in (301, 302, 307, 308):
            server.moods = [(status, {"Location": f"{elsewhere.base}/chat/completions"})]
            with pytest.raises(ValueError, match="refuses"):
                found.ask(ASK, 9)
        assert elsewhere.asked == []


def test_an_empty_completion_is_an_answer(server):
    found, _ = judge(server)
    server.moods = ["null"]
    assert found.ask(ASK, 9) == Answer("", 2, 0)


def test_a_proxy_is_not_asked_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert judge(server)[0].ask(ASK, 9).text == "WHAT?"


@pytest.mark.parametrize("base", ["127.0.0.1:8000", "ftp://host/v1", "http:///v1", ""])
def test_an_address_that_is_none_is_refused(base):
    with pytest.raises(ValueError, match="no address"):
        Endpoint(base)


def test_nobody_there_is_said():
    with pytest.raises(JudgeDown, match="gives no answers"):
        Endpoint("http://127.0.0.1:9/v1", attempts=1, timeout=1.0)


def test_what_was_answered_once_is_never_asked_again(tmp_path):
    asked = []
    inner = Scripted(lambda m, n: asked.append(m) or f"answer {len(asked)}")
    first = Replay(inner, tmp_path / "answers.jsonl")
    assert [first.text(ASK, 9), first.text(ASK, 9), first.text(ASK, 8)] == ["answer 1", "answer 1", "answer 2"]
    again = Replay(Scripted(lambda m, n: "new"), tmp_path / "answers.jsonl")
    assert [again.text(ASK, 9), again.text(ASK, 7)] == ["answer 1", "new"] and (ASK, 9) in again and (ASK, 1) not in again
    assert again.replayed == 1 and len(Lines(tmp_path / "answers.jsonl").read()) == 3
    other = Replay(Scripted(lambda m, n: "other", name="another judge"), tmp_path / "answers.jsonl")
    assert other.text(ASK, 9) == "other"
    other.close()
    assert other.text(ASK, 9) == "other"
    with pytest.raises(JudgeDown):
        other.text(ASK, 99)


@pytest.mark.parametrize(("wait", "kept"), [(5.0, 1), (0.0, 0)])
def test_a_question_that_is_out_at_the_end_is_waited_for_and_else_given_up(tmp_path, wait, kept):
    begun, go = threading.Event(), threading.Event()

    def slow(messages, max_tokens):
        begun.set()
        go.wait(5)
        return "late"

    replay = Replay(Scripted(slow), tmp_path / "a.jsonl")
    thread = threading.Thread(target=lambda: replay.text(ASK, 9))
    thread.start()
    begun.wait(5)
    if wait:
        threading.Timer(0.1, go.set).start()
    replay.close(wait)
    go.set()
    thread.join()
    assert len(Lines(tmp_path / "a.jsonl").read()) == kept


def test_a_torn_line_is_cut_off_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "x.jsonl"
    Lines(path).append({"a": 1})
    with path.open("ab") as file:
        file.write(b'{"a": 2, "te')
    assert Lines(path).read() == [{"a": 1}]
    again = Lines(path)
    again.append({"a": 3})
    again.append({"a": "line\nend \u2028 é"})
    assert Lines(path).read() == [{"a": 1}, {"a": 3}, {"a": "line\nend \u2028 é"}]
    path.write_text('{"a": 1}\nnot json\n')
    with pytest.raises(ValueError, match="line 2 is damaged"):
        Lines(path).read()
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="no JSON object"):
        Lines(path).read()


def test_lines_from_many_threads_are_all_whole(tmp_path):
    lines = Lines(tmp_path / "x.jsonl")
    threads = [threading.Thread(target=lambda i=i: [lines.append({"i": i, "k": k}) for k in range(20)]) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len({json.dumps(x) for x in lines.read()}) == 160


def test_work_ahead_comes_in_order_and_fails_at_its_turn():
    def slow(i):
        time.sleep(0.02 * (5 - i))
        if i == 3:
            raise ValueError("three")
        return i

    assert (
        list(ahead(lambda i: i * i, range(20), 4)) == [i * i for i in range(20)] == list(ahead(lambda i: i * i, range(20), 1))
    )
    found = ahead(slow, range(5), 5)
    assert [next(found), next(found), next(found)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)


def test_a_base_model_is_no_judge_and_a_chat_model_is(toy):
    with pytest.raises(ValueError, match="no chat template"):
        Local(toy)
    toy.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}:"
    try:
        found = Local(toy)
        answer = found.ask(ASK, 5)
        assert isinstance(found, Judge) and answer.text == toy.generate(toy.chat_tokens(ASK), max_new_tokens=5)
        assert answer.prompt_tokens == len(toy.chat_tokens(ASK)) and answer.answer_tokens <= 5
    finally:
        toy.tokenizer.chat_template = None


def test_a_scripted_judge_is_named_by_its_place():
    assert Scripted.named("json:dumps").name == "scripted:json:dumps"
    for wrong in ("json", "json:nope", "no_such_module:f", ":", "json:__doc__"):
        with pytest.raises(ValueError, match=r"PACKAGE\.MODULE:FUNCTION"):
            Scripted.named(wrong)
