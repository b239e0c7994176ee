"""Attention in graphs: scores that are the model's, pairs that sum to them, and heads that carry edges."""

import pytest
import torch
from planted import PROMPT, transcoders

from diascope.circuits import TraceConfig, trace
from diascope.circuits.attribute import Start, Sweep
from diascope.circuits.graph import between
from diascope.circuits.nodes import nodes_of
from diascope.circuits.qk import attention_pairs, head_loadings
from diascope.circuits.replacement import Dictionaries
from diascope.circuits.targets import TopLogits, rows_of
from diascope.models.frozen import frozen_pass
from diascope.models.scores import score, scores_of
from diascope.models.toy import toy_model

WHOLE = TraceConfig(least=0, edge_least=0, tolerance=1e-5)


def swept(architecture="gemma3_text", *, skip=True):
    model = toy_model(architecture)
    model.module.double()
    frozen = frozen_pass(model, PROMPT)
    replacement = Dictionaries(frozen, transcoders(skip=skip))
    rows = rows_of(TopLogits(), frozen, replacement)
    return model, frozen, rows, Sweep(frozen, replacement, nodes_of(frozen, replacement, len(rows.names)))


@pytest.mark.parametrize("architecture", ["gemma3_text", "gemma2", "llama", "qwen2", "qwen3", "mistral", "olmo2"])
def test_the_softmax_of_the_scores_is_the_models_pattern(architecture):
    _, frozen, _, _ = swept(architecture)
    for layer in range(4):
        assert scores_of(frozen, layer).distance < 1e-5


def test_pairs_of_sources_sum_to_the_score():
    _, frozen, _, sweep = swept()
    layer, head, query, key = 2, 1, 9, 4
    s = scores_of(frozen, layer)
    found = attention_pairs(sweep, layer, head, query, key, most=50)
    raw = [score(s, frozen.blocks[layer], frozen.residuals[layer], head, query, k) for k in range(query + 1)]
    assert found.score == pytest.approx(raw[key], rel=1e-5)
    assert found.centred == pytest.approx(raw[key] - sum(raw) / len(raw), rel=1e-4, abs=1e-6)
    assert sum(found.amount) + found.rest == pytest.approx(found.centred, rel=1e-6)
    assert abs(found.amount[0]) >= abs(found.amount[-1]) > 0
    whole = attention_pairs(sweep, layer, head, query, key, most=10**7, keep=10**6)
    assert whole.rest == pytest.approx(0, abs=1e-6) and whole.amount[0] == pytest.approx(found.amount[0])


@pytest.mark.parametrize("architecture", ["gemma3_text", "cohere", "gpt_neox", "olmo2"])
def test_heads_carry_what_an_edge_does_not_bypass(architecture):
    """Source: one token. Target: the first logit. In each layer, heads and bypass make the edge; without a head, its part is gone."""
    model, frozen, rows, sweep = swept(architecture)
    g = trace(model, transcoders(skip=True), PROMPT, config=WHOLE)
    start = Start(rows.covectors[:1], torch.tensor([rows.position]), rows.layer, False)
    p = 3
    x = torch.zeros_like(frozen.residuals[0])
    x[p] = frozen.residuals[0, p]
    loading = head_loadings(sweep, {-1: x}, start)
    edge = float(between(g, [p], [int(g.targets()[0])])[0, 0])
    assert loading.shape == (4, 4) and bool((loading != 0).any())
    for layer in range(4):
        without = sweep.edges(start, heads={layer: torch.zeros(4, dtype=torch.float64)})[0, p]
        assert edge - float(without) == pytest.approx(float(loading[layer].sum()), rel=1e-4, abs=1e-6)
    one = sweep.edges(start, heads={1: torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)})[0, p]
    assert edge - float(one) == pytest.approx(float(loading[1, 2]), rel=1e-4, abs=1e-6)


def test_bad_heads_and_positions_are_named():
    _, _, _, sweep = swept()
    with pytest.raises(ValueError, match="heads 0 to 3, not 7"):
        attention_pairs(sweep, 1, 7, 5, 2)
    with pytest.raises(ValueError, match="may not look at"):
        attention_pairs(sweep, 1, 0, 2, 5)
    model = toy_model("gpt2", n_embd=32, n_layer=4, n_head=4, n_positions=128)
    with pytest.raises(ValueError, match="rotary"):
        scores_of(frozen_pass(model, PROMPT), 0)
    with pytest.raises(ValueError, match="turns only"):
        scores_of(frozen_pass(toy_model("stablelm"), PROMPT), 0)
