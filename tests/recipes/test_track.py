import sys
import types

import pytest

from diascope.recipes.track import tracker


def test_lines_reach_the_tracker_by_member(monkeypatch):
    seen = []
    fake = types.SimpleNamespace(
        init=lambda **k: seen.append(k["project"]), log=lambda values, step: seen.append((step, values))
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker("wandb", project="p", config={})({"step": 3, "member": "sae", "fvu": 0.5, "trouble": ["x"]})
    assert seen == ["p", (3, {"sae/fvu": 0.5})]


def test_a_missing_or_unknown_tracker_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ValueError, match="pip install trackio"):
        tracker("trackio", project="p", config={})
    with pytest.raises(ValueError, match="unknown"):
        tracker("os", project="p", config={})
