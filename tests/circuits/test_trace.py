"""Graphs of random transcoders on random models in float64: what must hold of any graph."""

import pytest
import torch
from planted import LAYERS, PROMPT, D, S, clt, transcoder, transcoders

from diascope.circuits import (
    DirectionTarget,
    Kind,
    LatentTarget,
    TokenTarget,
    TopLogits,
    TraceConfig,
    influences,
    prune,
    scores,
    trace,
)  # fmt: skip
from diascope.circuits.attribute import Sweep
from diascope.circuits.graph import Graph, between
from diascope.circuits.nodes import nodes_of
from diascope.circuits.replacement import Dictionaries
from diascope.circuits.targets import rows_of
from diascope.models.frozen import frozen_pass
from diascope.models.toy import toy_model

WHOLE = TraceConfig(least=0, edge_least=0, tolerance=1e-5)
GPT2 = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 128}
ARCHITECTURES = {"gemma3_text": {}, "llama": {}, "olmo2": {}, "gpt2": GPT2, "gpt_neox": {}, "cohere": {}, "phi3": {}}


@pytest.fixture(scope="module")
def model():
    """The toy in float64; its norms still compute in float32, as the real model's do."""
    m = toy_model()
    m.module.double()
    return m


@pytest.fixture(scope="module")
def graph(model):
    return trace(model, transcoders(skip=True), PROMPT, config=WHOLE)


def dense(g):
    A = torch.zeros(len(g), len(g), dtype=torch.float64)
    A[g.target, g.source] = g.edge.double()
    return A


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["plain", "skip", "clt", "skip clt", "neurons"])
def test_every_row_closes(architecture, kind):
    m = toy_model(architecture, **ARCHITECTURES[architecture])
    m.module.double()
    made = {
        "plain": transcoders(),
        "skip": transcoders(skip=True),
        "clt": clt(),
        "skip clt": clt(skip=True),
        "neurons": "neurons",
    }
    g = trace(m, made[kind], PROMPT, config=TraceConfig(least=0, edge_least=0, tolerance=1))
    exact = architecture in ("gpt2", "gpt_neox")  # torch's LayerNorm; the others' norms round to float32
    # a neuron's slope is activation over pre-activation, which is rough where both are near zero
    assert g.closure() < (1e-11 if exact else 2e-4 if kind == "neurons" else 4e-6)
    median = (g.residual[g.row].abs() / g.total[g.row]).median()
    assert median < (1e-14 if exact else 1e-7)
    reach = (g.influence > 0) & (
        (g.kind == Kind.LATENT) | (g.kind == Kind.TARGET)
    )  # the last layer's reach it at the last token alone
    assert (g.rest[g.row] == 0).all() and g.row.tolist() == reach.nonzero().squeeze(1).tolist()


def test_no_edge_from_a_later_layer_or_position(graph):
    g, target = graph, graph.target
    assert (g.layer[g.source] <= g.layer[target]).all()
    same = g.layer[g.source] == g.layer[target]
    assert (g.kind[g.source[same]] == Kind.BIAS).all()
    placed = g.position[g.source] >= 0
    assert (g.position[g.source] <= g.position[target])[placed].all()


def test_adding_a_nodes_vector_once_more_moves_every_target_by_its_edge(model):
    """Forward through the frozen model, the other way round than the sweep."""
    frozen = frozen_pass(model, PROMPT)
    replacement = Dictionaries(frozen, clt(skip=True))
    rows = rows_of(TopLogits(), frozen, replacement)
    nodes = nodes_of(frozen, replacement, len(rows.names))
    g = trace(model, clt(skip=True), PROMPT, config=WHOLE)
    latents = replacement.latents
    for latent in (0, 7, len(latents) // 2):
        wrote = replacement.written(torch.tensor([latent]))
        x, reads = torch.zeros_like(frozen.residuals[:1]), {}
        for l, block in enumerate(frozen.blocks):
            h = block.attention.push(block.before.push(x))
            x = x + block.after.push(h)
            reads[l] = block.norm.push(x)
            x = x + (reads[l] @ replacement.skip(l)) * frozen.ordinary[:, None]
            if l in wrote:
                x[0, latents.position[latent]] += wrote[l][0]
        ids = torch.arange(len(latents))
        C = replacement.covectors(ids)
        moved = torch.stack([C[i] @ reads[int(latents.layer[i])][0, latents.position[i]] for i in ids.tolist()])
        node = int(nodes.latent_column[latent])
        reach = torch.isin(nodes.latent_column, g.row)  # others lead to no target and have no rows
        found = between(g, [node], nodes.latent_column.tolist())[:, 0]
        torch.testing.assert_close(found[reach], moved.to(found)[reach], rtol=1e-5, atol=1e-7)
        assert int((found != 0).sum()) > 20
        out = between(g, [node], g.targets().tolist())[:, 0]
        torch.testing.assert_close(out, (rows.covectors @ x[0, -1]).to(out), rtol=1e-5, atol=1e-7)


def test_targets_sum_to_the_models_own_logits(model):
    logits = model.logits(torch.tensor([PROMPT]))[0, -1]
    g = trace(model, transcoders(), PROMPT, target=TopLogits(share=0.5), config=WHOLE)
    wanted = logits[g.index[g.targets()]] - logits.mean()
    torch.testing.assert_close(g.value[g.targets()], wanted.float(), rtol=1e-5, atol=1e-6)
    p = logits.softmax(-1)[g.index[g.targets()]]
    torch.testing.assert_close(g.weight[g.targets()], (p / p.sum()).float(), rtol=1e-5, atol=1e-7)
    two = trace(model, transcoders(), PROMPT, target=TokenTarget(40, against=50), config=WHOLE)
    torch.testing.assert_close(two.value[-1], (logits[40] - logits[50]).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", ["phi", "cohere", "gptj", "gemma2"])
def test_targets_know_the_unembeddings_bias_and_scale(architecture):
    m = toy_model(architecture, **(GPT2 | {"rotary_dim": 4} if architecture == "gptj" else {}))
    m.module.double()
    if (bias := m.parts.unembedding.bias) is not None:
        bias.data.normal_(generator=torch.Generator().manual_seed(0))
    if architecture == "gemma2":
        m.parts.config.final_logit_softcapping = None  # the target is what stands before the cap
    logits = m.logits(torch.tensor([PROMPT]))[0, -1]
    g = trace(m, transcoders(), PROMPT, target=TopLogits(share=0.5), config=WHOLE)
    torch.testing.assert_close(
        g.value[g.targets()], (logits[g.index[g.targets()]] - logits.mean()).float(), rtol=1e-4, atol=1e-5
    )
    two = trace(m, transcoders(), PROMPT, target=TokenTarget(40, against=50), config=WHOLE)
    torch.testing.assert_close(two.value[-1], (logits[40] - logits[50]).float(), rtol=1e-4, atol=1e-5)


def test_other_targets(model, graph):
    latent = int(((graph.kind == Kind.LATENT) & (graph.layer == 2)).nonzero()[-1])
    position, index = int(graph.position[latent]), int(graph.index[latent])
    alone = trace(model, transcoders(skip=True), PROMPT, target=LatentTarget(2, index, position), config=WHOLE)
    into, edges = graph.incoming(latent)
    seen, others = alone.incoming(int(alone.targets()[0]))
    assert (into == seen).all() and alone.value[-1] == graph.value[latent]
    torch.testing.assert_close(edges, others)
    u = torch.randn(D, generator=torch.Generator().manual_seed(1))
    probe = trace(model, transcoders(), PROMPT, target=DirectionTarget("L1.resid_post", u, 5), config=WHOLE)
    x = model.capture(torch.tensor([PROMPT]), "L1.resid_post")["L1.resid_post"][0, 5]
    torch.testing.assert_close(probe.value[-1], (x @ u.double()).float())
    assert int(probe.layer[probe.source].max()) <= 1


def test_chunks_change_nothing(model, graph):
    other = trace(model, transcoders(skip=True), PROMPT, config=TraceConfig(least=0, edge_least=0, tolerance=1e-5, chunk=3))
    assert (other.source == graph.source).all() and (other.row == graph.row).all()
    torch.testing.assert_close(other.edge, graph.edge, rtol=1e-9, atol=1e-12)


def test_a_window_keeps_every_edge_inside_it(model, graph):
    g = trace(model, transcoders(skip=True), PROMPT, config=TraceConfig(least=0, edge_least=0, tolerance=1e-5, window=5))
    first = len(PROMPT) - 5

    def edges(graph):
        columns = zip(graph.kind.tolist(), graph.layer.tolist(), graph.position.tolist(), graph.index.tolist())
        key = [(k, l, p, i) for k, l, p, i in columns]
        pairs = zip(graph.target.tolist(), graph.source.tolist(), graph.edge.tolist())
        return {(key[t], key[s]): e for t, s, e in pairs if key[t][2] >= first and key[s][2] >= first}

    mine, whole = edges(g), edges(graph)
    assert mine.keys() == whole.keys() and len(mine) > 1000
    assert max(abs(mine[k] - whole[k]) for k in mine) < 1e-6
    assert bool((g.edge[g.kind[g.source] == Kind.EARLIER] != 0).any()) and g.position[g.position >= 0].min() == first


def test_a_skip_of_zero_is_no_skip(model):
    plain = trace(model, transcoders(), PROMPT, config=WHOLE)
    zero = [transcoder(l, skip=True, W_skip=torch.zeros(D, D)) for l in range(LAYERS)]
    skipped = trace(model, zero, PROMPT, config=WHOLE)
    torch.testing.assert_close(dense(skipped), dense(plain))


def test_a_clt_that_writes_its_own_layer_alone_is_transcoders(model):
    plain = transcoders()
    one = trace(model, clt(like=plain), PROMPT, config=WHOLE)
    torch.testing.assert_close(dense(one), dense(trace(model, plain, PROMPT, config=WHOLE)))


def test_transcoders_that_write_nothing_leave_everything_to_errors(model):
    silent = [transcoder(l, W_dec=torch.zeros(S, D), b_dec=torch.zeros(D)) for l in range(LAYERS)]
    g = trace(model, silent, PROMPT, config=WHOLE)
    assert not bool((g.kind[g.source] == Kind.LATENT).any())
    assert scores(g).replacement < 0.9 and g.closure() < 1e-5


def test_layers_without_a_transcoder_are_errors(model):
    g = trace(model, transcoders()[1:3], PROMPT, config=WHOLE)
    assert set(g.layer[g.kind == Kind.LATENT].tolist()) == {1, 2} and g.closure() < 1e-5


def test_influence_is_the_inverse(graph):
    A = dense(graph).abs()
    N = A / A.sum(1, keepdim=True).clamp_min(1e-30)
    wanted = torch.linalg.solve(torch.eye(len(graph), dtype=torch.float64) - N.t(), graph.weight.double())
    torch.testing.assert_close(influences(graph).double(), wanted, rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(graph.influence, influences(graph), rtol=1e-4, atol=1e-8)


def test_what_is_left_out_is_counted(model, graph):
    some = trace(model, transcoders(skip=True), PROMPT, config=TraceConfig(least=2e-3, edge_least=1e-3))
    assert 0 < len(some.row) < len(graph.row) and len(some.edge) < len(graph.edge)
    kept = torch.zeros(len(some), dtype=some.edge.dtype).index_add_(0, some.target, some.edge)
    miss = some.value - kept - some.rest
    assert (miss[some.row].abs() <= 2e-6 * some.total[some.row] + 1e-6).all()
    assert bool((some.rest[some.row] != 0).any()) and 0 < scores(some).open < 0.5
    assert len(some) == len(graph)  # the same nodes, fewer expanded


def test_pruning_keeps_the_shares_that_it_was_asked_for(graph):
    small = prune(graph, node_share=0.8, edge_share=0.95)
    counts = graph.kind != Kind.TARGET
    kept = float(small.influence[small.kind != Kind.TARGET].sum() / graph.influence[counts].sum())
    assert 0.7 < kept < 1  # what leads nowhere after pruning goes too
    assert len(small) < len(graph) and set(small.kind.tolist()) >= {Kind.TOKEN, Kind.TARGET}
    leads = set(small.source.tolist())
    assert all(n in leads for n in (small.kind == Kind.LATENT).nonzero().squeeze(1).tolist())
    whole = prune(graph, node_share=1.0, edge_share=1.0)
    assert scores(whole).replacement == pytest.approx(scores(graph).replacement, abs=1e-6)
    with pytest.raises(ValueError, match="node_share is a share"):
        prune(graph, node_share=1.5)


def test_a_saved_graph_comes_back_and_damage_is_named(graph, tmp_path):
    folder = graph.save(tmp_path / "g")
    again = Graph.load(folder)
    assert again.about == graph.about and (again.edge == graph.edge).all() and (again.source == graph.source).all()
    data = bytearray((folder / "graph.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "graph.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"graph\.safetensors"):
        Graph.load(folder)


def test_an_interrupted_trace_goes_on(model, graph, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(done, total, note):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        trace(model, transcoders(skip=True), PROMPT, config=WHOLE, progress=stop, parts=tmp_path)
    kept = {p.name for p in tmp_path.rglob("*.safetensors")}
    assert kept == {"3.safetensors", "2.safetensors"}
    whole, done = Sweep.of_latents, []

    def seen(self, ids):
        done.append(int(self.replacement.latents.layer[ids[0]]))
        return whole(self, ids)

    monkeypatch.setattr(Sweep, "of_latents", seen)
    again = trace(model, transcoders(skip=True), PROMPT, config=WHOLE, parts=tmp_path)
    assert set(done) == {1, 0}
    assert (
        (again.source == graph.source).all() and (again.edge == graph.edge).all() and (again.influence == graph.influence).all()
    )


def test_parts_of_another_trace_are_not_taken(model, tmp_path):
    u = torch.randn(2, D, generator=torch.Generator().manual_seed(2))
    first = DirectionTarget("L3.resid_post", u[0])
    trace(model, transcoders(), PROMPT, target=first, parts=tmp_path)
    for target in (DirectionTarget("L3.resid_post", u[1]), DirectionTarget("L3.resid_post", u[0], position=8)):
        beside = trace(model, transcoders(), PROMPT, target=target, parts=tmp_path)
        alone = trace(model, transcoders(), PROMPT, target=target)
        assert (beside.influence == alone.influence).all()


def test_a_special_token_inside_is_error_and_the_first_is_not(model):
    inside = [*PROMPT[:6], 2, *PROMPT[6:]]
    g = trace(model, transcoders(), inside, config=WHOLE)
    assert set(g.position[g.kind == Kind.EXCLUDED].tolist()) == {0, 6}
    assert g.closure() < 1e-5 and scores(g).replacement < scores(trace(model, transcoders(), PROMPT, config=WHOLE)).replacement


def test_top_k_transcoders_close_too(model):
    from diascope.dictionaries import Dictionary, DictionaryConfig, TopK

    def topk(layer):
        d = transcoder(layer)
        config = DictionaryConfig(**{**d.config.__dict__, "activation": TopK(6)})
        return Dictionary(config, d.tensors()).double()

    g = trace(model, [topk(l) for l in range(LAYERS)], PROMPT, config=WHOLE)
    assert int((g.kind == Kind.LATENT).sum()) == 6 * LAYERS * (len(PROMPT) - 1) and g.closure() < 1e-5


def test_a_conversation_leaves_its_templates_opening_out():
    m = toy_model()
    m.tokenizer.chat_template = "{{ bos_token }}chat:{% for m in messages %}{{ m.content }}{% endfor %}"
    g = trace(m, [transcoder(l).float() for l in range(LAYERS)], [{"role": "user", "content": "hello"}], config=TraceConfig())
    assert "".join(g.tokens).endswith("chat:hello") and g.kind[g.position == 3].tolist().count(int(Kind.EXCLUDED)) == LAYERS


def test_half_precision_is_refused_with_the_way_out():
    m = toy_model()
    m.module.bfloat16()
    with pytest.raises(ValueError, match="dtype='float32'"):
        frozen_pass(m, PROMPT)


@pytest.mark.parametrize(
    ("dictionaries", "options", "message"),
    [
        (lambda: [*transcoders(), transcoder(1)], {}, "two dictionaries read L1.mlp_in"),
        (lambda: "mlp", {}, 'or "neurons", not'),
        (lambda: [], {}, "at least one transcoder"),
        (transcoders, {"config": TraceConfig(least=1.0)}, "least is a share"),
        (transcoders, {"config": TraceConfig(window=-1)}, "window and chunk"),
        (transcoders, {"target": TokenTarget("two words here")}, "a target is one"),
        (transcoders, {"target": TokenTarget(10**6)}, "has token ids 0 to"),
        (transcoders, {"target": TokenTarget(40, against=40)}, "are one"),
        (transcoders, {"target": LatentTarget(1, 63, 99)}, "position 99 is not among"),
        (transcoders, {"target": LatentTarget(1, 10**6, 3)}, "is not active at position 3"),
        (transcoders, {"target": DirectionTarget("L1.mlp_in", torch.ones(D))}, "a direction is read at resid_post"),
        (transcoders, {"target": DirectionTarget("L1.resid_post", torch.ones(5))}, "the model's width is 32"),
    ],
)
def test_bad_input_says_what_to_do(model, dictionaries, options, message):
    with pytest.raises(ValueError, match=message):
        trace(model, dictionaries(), PROMPT, **options)


def test_an_sae_is_no_transcoder(model, make_dictionary):
    with pytest.raises(ValueError, match="a graph is made of transcoders"):
        trace(model, make_dictionary().double(), PROMPT)


def test_an_architecture_that_the_map_does_not_describe_is_refused():
    with pytest.raises(ValueError, match="cannot be traced"):
        frozen_pass(toy_model("granite", residual_multiplier=0.3), PROMPT)


def test_a_row_that_does_not_close_is_refused(model):
    with pytest.raises(RuntimeError, match="does not close"):
        trace(model, transcoders(), PROMPT, config=TraceConfig(tolerance=1e-12))


def test_patterns_frozen_and_all_else_live_is_the_model_itself(model):
    frozen = frozen_pass(model, PROMPT)
    torch.testing.assert_close(frozen.replay({}), model.hidden(torch.tensor([PROMPT])), rtol=1e-5, atol=1e-5)
