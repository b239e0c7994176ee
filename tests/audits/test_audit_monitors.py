"""Monitors: a frozen threshold, a file that cannot be changed unseen, and scores during generation that are those of one pass."""

import json

import numpy as np
import pytest
from planted_behaviour import PLANTED, planted_cases, planted_model

from diascope.audits import Target
from diascope.audits.monitor import Monitor, make_monitor, threshold


@pytest.fixture(scope="module")
def target():
    return Target(planted_model(), batch=64)


@pytest.fixture(scope="module")
def monitor(target):
    return make_monitor(target, PLANTED)


def test_the_threshold_is_the_lowest_that_few_negatives_pass():
    negative = np.arange(100.0)
    assert threshold(negative, np.concatenate([negative, [200.0]]), 0.05) == pytest.approx(94.5)
    assert threshold(negative, np.concatenate([negative, [200.0]]), 0.0) == pytest.approx((99 + 200) / 2)
    assert threshold(negative, negative, 0.0) == 99.0  # nothing lies above
    for share in (0.0, 0.01, 0.05, 0.3):
        assert (negative > threshold(negative, negative, share)).mean() <= share


def test_a_monitor_finds_what_it_was_made_for(monitor):
    assert monitor.rates["test"]["found"]["value"] == 1.0 and monitor.rates["test"]["false_alarms"]["value"] == 0.0
    assert monitor.rates["test"]["found"]["n"] == 12 and monitor.rates["validation"]["found"]["n"] == 8
    assert monitor.cases_sha256 == planted_cases().hash


def test_a_file_is_read_back_and_one_that_was_changed_is_refused(monitor, tmp_path):
    path = tmp_path / "m.json"
    monitor.save(path)
    assert Monitor.load(path) == monitor
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "threshold": data["threshold"] + 1}))
    with pytest.raises(ValueError, match="was changed since it was written"):
        Monitor.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="is no monitor"):
        Monitor.load(path)


def test_watching_gives_the_scores_of_one_pass_over_prompt_and_answer(target, monitor):
    seen = list(monitor.watch(target.model, "abqdefg", max_new_tokens=5))
    tokens = [s.token for s in seen]
    given = sum(s.given for s in seen)
    assert tokens[:given] == target.model.chat_tokens([{"role": "user", "content": "abqdefg"}]) and len(seen) - given <= 5
    assert len(seen) > given
    np.testing.assert_allclose([s.score for s in seen], monitor.tokens(target.model, tokens), atol=1e-3)
    assert [s.flagged for s in seen] == [s.score > monitor.threshold for s in seen]
    written = target.generate(target.prompts([planted_cases().cases[0]]), max_new_tokens=4)
    again = list(monitor.watch(target.model, list(planted_cases().cases[0].messages), max_new_tokens=4))
    assert target.model.tokenizer.decode([s.token for s in again if not s.given]) == written[0]


def test_another_model_is_refused(monitor):
    with pytest.raises(ValueError, match="make one on this model"):
        next(monitor.watch(planted_model(strength=1.0), "ab"))


def test_a_span_that_cases_lack_is_said(target):
    with pytest.raises(ValueError, match="has no span 'tool'"):
        make_monitor(target, PLANTED, place="span:tool")
