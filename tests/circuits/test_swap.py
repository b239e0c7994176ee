"""Swaps: what is held takes the other prompt's place exactly, and what the graph predicts of it comes true where it must."""

from dataclasses import replace

import pytest
import torch
from planted import LAYERS, PROMPT, D, clt, exact_gpt2, transcoders

from diascope.circuits import Graph, Place, TokenTarget, TraceConfig, prune, swap, trace
from diascope.circuits.effects import MODES, latent_ids, predicted
from diascope.circuits.held import Held, foreseen, hold
from diascope.circuits.replacement import Dictionaries
from diascope.circuits.swap import values
from diascope.dictionaries import Dictionary, TopK
from diascope.edits import Edit
from diascope.models.frozen import frozen_pass
from diascope.models.toy import toy_model
from diascope.sites import Site

WHOLE = TraceConfig(least=0, edge_least=0, tolerance=1e-5)
OTHER = [2, *range(60, 72)]


@pytest.fixture(scope="module")
def model():
    m = toy_model()
    m.module.double()
    return m


@pytest.fixture(scope="module")
def exact():
    return exact_gpt2()


def held_of(model, made, places, other=OTHER):
    here, there = (Dictionaries(frozen_pass(model, p), made) for p in (PROMPT, other))
    at = {p: p for p in range(len(PROMPT))}
    return here, there, values(here, there, places, at)


def patched(model, layers, vectors, positions=slice(None)):
    """By hand: the final norm's output with what MLPs write at some layers and positions replaced."""

    def put(layer):
        def function(_, y):
            y = y.clone()
            y[0, positions] = vectors[layer][positions].to(y)
            return y

        return Edit(s := Site(layer, "mlp_out"), s, function, special=True)

    with model.edit(*map(put, layers)):
        return model.hidden(torch.tensor([PROMPT]))[0]


@pytest.mark.parametrize(
    ("places", "layers", "positions"),
    [
        ([Place(2)], [2], slice(None)),
        ([Place(1), Place(2)], [1, 2], slice(None)),  # what layer 2 reads is no longer what it was
        ([Place(None, 5)], range(LAYERS), slice(5, 6)),
        ([Place(1, -2, "latents"), Place(1, -2, "error")], [1], slice(-2, -1)),
    ],
)
def test_everything_of_a_site_from_the_other_prompt_is_its_activations_patched(model, places, layers, positions):
    here, there, held = held_of(model, transcoders(), places)
    wanted = patched(model, layers, there.frozen.mlp_out, positions)
    assert float((wanted - here.frozen.last).abs().max()) > 0.01
    torch.testing.assert_close(hold(here, held, "free"), wanted, rtol=1e-5, atol=1e-6)


def test_everything_of_a_cross_layer_transcoder_is_every_mlp_patched(model):
    here, there, held = held_of(model, [clt()], [Place(None)])
    wanted = patched(model, range(LAYERS), there.frozen.mlp_out)
    torch.testing.assert_close(hold(here, held, "free"), wanted, rtol=1e-5, atol=1e-6)
    one = held_of(model, [clt()], [Place(1)])[2]  # its latents write on at later layers, which live on
    other = held_of(model, transcoders(), [Place(1)])
    assert not torch.allclose(hold(here, one, "free"), hold(other[0], other[2], "free"), atol=1e-4)


def test_a_skip_answers_to_what_it_reads(model):
    made = transcoders(skip=True)
    here, there, held = held_of(model, made, [Place(2)])
    W, rows = made[2].skips[0], here.frozen.ordinary[:, None]
    y = there.frozen.mlp_out[2] + rows * ((here.frozen.mlp_in[2] - there.frozen.mlp_in[2]) @ W)
    torch.testing.assert_close(hold(here, held, "free"), patched(model, [2], {2: y}), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("made", [lambda: transcoders(skip=True), lambda: [clt(skip=True)]])
def test_a_prompt_swapped_with_itself_changes_nothing(model, made, mode):
    here, _, held = held_of(model, made(), [Place(None)], other=PROMPT)
    torch.testing.assert_close(hold(here, held, mode), here.frozen.last, rtol=1e-5, atol=1e-5)
    assert float(foreseen(here, held, torch.arange(len(here.latents))).abs().max()) < 1e-9


def test_a_latent_takes_the_value_that_the_neuron_has_there(exact):
    """By hand: the transcoders are the MLPs, so a latent is a neuron and a hook can set it."""
    model, made = exact
    here, there = (Dictionaries(frozen_pass(model, p), made) for p in (PROMPT, OTHER))
    found, q = there.latents, 4
    index = int(found.index[(found.layer == 1) & (found.position == q)][2])
    value = float(found.activation[(found.layer == 1) & (found.position == q) & (found.index == index)])
    held = values(here, there, [Place(1, 7, index)], {7: q})

    def put(module, args, output):
        output = output.clone()
        output[:, 7, index] = value
        return output

    handle = model.parts.blocks[1].mlp.act.register_forward_hook(put)
    wanted = model.hidden(torch.tensor([PROMPT]))[0]
    handle.remove()
    torch.testing.assert_close(hold(here, held, "free"), wanted, rtol=1e-9, atol=1e-9)


def test_predictions_are_the_graphs(model):
    """A latent held at nothing: direct is minus its edge, total minus all its paths."""
    for made in (transcoders(skip=True), [clt(skip=True)]):
        g = trace(model, made, PROMPT, target=TokenTarget(40), config=WHOLE)
        here = Dictionaries(frozen_pass(model, PROMPT), made)
        ids, (direct, total) = latent_ids(g, here), predicted(g)
        U = model.unembedding.double()
        c = U[40] - U.mean(0)
        answer = ids[g.row][ids[g.row] >= 0]
        nodes = ((ids >= 0) & (g.influence > 1e-3)).nonzero().squeeze(1)[::7].tolist()
        assert len(nodes) > 5
        for n in nodes:
            p, i = (torch.tensor([int(column[n])]) for column in (g.position, g.index))
            nothing = Held(p, i, torch.zeros(1, dtype=torch.float64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, D))
            held = {int(g.layer[n]): nothing}
            assert float(foreseen(here, held)[-1] @ c) == pytest.approx(float(direct[n]), rel=1e-4, abs=1e-6)
            assert float(foreseen(here, held, answer)[-1] @ c) == pytest.approx(float(total[n]), rel=1e-3, abs=1e-6)


def test_without_error_small_changes_do_what_the_paths_say(exact):
    """Latents of three layers held together, some in the way of others, which then must not answer."""
    model, made = exact
    here = Dictionaries(frozen_pass(model, PROMPT), made)
    found, step = here.latents, 1e-5  # so small that no latent switches on or off
    none = torch.zeros(0, dtype=torch.int64)
    held = {}
    for layer in (0, 1, 3):
        ids = torch.arange(len(found))[found.of_layer(layer)][::9]
        now = found.activation[ids] * (1 - step)
        held[layer] = Held(found.position[ids], found.index[ids], now, none, torch.zeros(0, D, dtype=torch.float64))
    change = hold(here, held, "norms frozen") - here.frozen.last
    everyone = torch.arange(len(found))
    torch.testing.assert_close(change / step, foreseen(here, held, everyone) / step, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(foreseen(here, held) / step, foreseen(here, held, everyone) / step, atol=1e-2)


@pytest.mark.parametrize("made", [lambda: transcoders(skip=True), lambda: [clt()]])
def test_with_everything_held_the_frozen_model_does_what_the_direct_edges_say(model, made):
    """No MLP answers then, so that nothing is left that the linear model leaves out."""
    here, _, held = held_of(model, made(), [Place(None)])
    change = hold(here, held, "norms frozen") - here.frozen.last
    assert float(change.abs().max()) > 0.1
    torch.testing.assert_close(change, foreseen(here, held), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(foreseen(here, held, torch.arange(len(here.latents))), foreseen(here, held))


def test_latents_chosen_over_several_layers_together_cannot_be_held(model):
    d = clt()
    top = Dictionary(replace(d.config, activation=TopK(40)), d.tensors()).double()
    here, _, held = held_of(model, [top], [Place(1)])
    with pytest.raises(ValueError, match="which one layer cannot know"):
        hold(here, held, "free")


def test_a_swap_is_kept_with_the_graph(model, tmp_path):
    made = transcoders()
    g = trace(model, made, PROMPT, config=WHOLE)
    nodes = [int(g.row[0]), Place(None, -1)]
    found = swap(g, model, made, OTHER, nodes, positions={-1: 5, 3: 4})
    (told,) = found.about["swaps"]
    assert told["token_ids"] == OTHER and told["nodes"][1] == "@-1" and told["positions"] == [(-1, 5), (3, 4)]
    assert [t["name"] for t in told["targets"]] == g.about["targets"]
    first = told["targets"][0]
    logits = [model.logits(torch.tensor([p]))[0, -1].double() for p in (PROMPT, OTHER)]
    a, b = (v[g.index[g.targets()[0]]] - v.mean() for v in logits)
    assert first["whole"] == pytest.approx(float(b - a), rel=1e-4)
    assert {"direct", "total", *MODES} <= set(first) and first["free"] != 0
    twice = swap(found, model, made, OTHER, [Place(1, 4, "error")])
    assert len(twice.about["swaps"]) == 2 and twice.about["swaps"][1]["errors"] == 1
    again = Graph.load(twice.save(tmp_path / "g"))
    assert again.about["swaps"][1]["nodes"] == ["L1/error@4"]
    everything = swap(g, model, made, OTHER, [Place(l, what="all") for l in range(LAYERS)]).about["swaps"][0]
    assert everything["errors"] == LAYERS * len(PROMPT)


@pytest.mark.parametrize(
    ("nodes", "other", "options", "message"),
    [
        ([], OTHER, {}, "choose at least one node"),
        ([0], OTHER, {}, "only latents and errors can be swapped, and node 0 is the token"),
        ([Place(9)], OTHER, {}, "L9 is of no layer"),
        ([Place(1, 99)], OTHER, {}, "L1@99 is at no position"),
        ([Place(1, 3, 64)], OTHER, {}, "there is no latent L1/64@3: layer 1 has latents 0 to 63"),
        ([Place(1, 9)], OTHER[:6], {}, "position 9 is not in the other prompt, which has positions 0 to 5"),
        ([Place(1, 9)], OTHER, {"positions": {9: 40}}, "the other prompt has positions 0 to 12, not 40"),
        ([Place(1, 9)], OTHER, {"positions": {9: 0}}, "one is a special token"),
    ],
)
def test_what_cannot_be_swapped_says_so(model, nodes, other, options, message):
    made = transcoders()
    g = trace(model, made, PROMPT)
    with pytest.raises(ValueError, match=message):
        swap(g, model, made, other, nodes, **options)


def test_neurons_and_pruned_graphs_are_not_swapped(model):
    with pytest.raises(ValueError, match="trace with dictionaries"):
        swap(trace(model, "neurons", PROMPT), model, "neurons", OTHER, [Place(1)])  # type: ignore[arg-type]
    g = trace(model, transcoders(), PROMPT)
    with pytest.raises(ValueError, match="before it is pruned"):
        swap(prune(g), model, transcoders(), OTHER, [Place(1)])
