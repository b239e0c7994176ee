"""The planner's arithmetic: the release's published table, memory that matches the tensors, axes that fit, and calibration."""

import dataclasses

import pytest

from diascope.dictionaries import Causal
from diascope.models.toy import toy_model
from diascope.recipes.demo import demo
from diascope.recipes.planning import GEMMA_3, H100, calibrate, document_rows, fit, plan, shape_of
from diascope.recipes.planning.fit import devices
from diascope.recipes.planning.release import line
from diascope.recipes.planning.stages import parameters
from diascope.recipes.recipe import RunRecipe
from diascope.recipes.suite import suite, suite_cpu
from diascope.training import MemberRecipe, TrainingRecipe
from diascope.training.member import Member

TABLE = {  # docs/scale.md's, as the field knows it: GFLOP a token, elements a token, thousand tokens/s and bf16 GB/s of an H100 at 40 %
    "gemma-3-270m": (0.23, 52_992, 1_700, 182),
    "gemma-3-1b": (1.44, 116_480, 275, 64),
    "gemma-3-4b": (6.56, 330_752, 60, 40),
    "gemma-3-12b": (21.9, 749_568, 18, 27),
    "gemma-3-27b": (51.7, 1_253_888, 7.6, 19),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_the_release_comes_out(name):
    gflop, elements, rate, written = TABLE[name]
    found = line(GEMMA_3[name], H100, 8e9)
    assert found.gflop == pytest.approx(gflop, rel=0.01) and found.elements == elements
    assert found.tokens_per_second == pytest.approx(1e3 * rate, rel=0.02)
    assert found.gigabytes_per_second == pytest.approx(written, rel=0.02)


def test_mixing_is_planned_for_the_texts_own_documents(tmp_path):
    """Three documents of 1, 1 and 2 shares: a row's own document has (1 + 1 + 4) / 4 of a share beside it in the mean."""
    text = tmp_path / "t.txt"
    text.write_text("\n\n".join(("a" * 100, "b" * 100, "c" * 200)))
    recipe = dataclasses.replace(demo(10_000), corpus=str(text))
    rows = document_rows(recipe)
    assert rows == pytest.approx(10_000 * 0.985 * 6 / 16)
    found = plan(recipe, GEMMA_3["gemma-3-270m"], H100, document=rows)
    assert found.companions == pytest.approx((recipe.training.batch - 1) * (rows - 1) / (9_850 - 1))


def test_the_release_as_a_whole():
    lines = [line(s, H100, 8e9) for s in GEMMA_3.values()]
    assert 4 * sum(x.elements for x in lines) == pytest.approx(10.0e6, rel=0.01)  # bytes a token in float32
    assert sum(x.harvest_hours for x in lines) == pytest.approx(460, rel=0.01)
    dense = sum(x.dense_hours for x in lines) * 8.1e12 / (2 * sum(x.parameters for x in lines))
    assert dense == pytest.approx(137e3, rel=0.01)  # for the 8.1 T parameters that were published


def test_parameters_are_those_of_the_member():
    shape = shape_of(toy_model().parts.config, "toy")
    reads, writes = ("L1.mlp_in", "L2.mlp_in"), ("L1.mlp_out", "L2.mlp_out")
    for m in (
        MemberRecipe("a", "L1.attn_out", "L1.attn_out", d_sae=64, matryoshka=None, l0_target=60.0),
        MemberRecipe("b", reads, writes, Causal(), 64, matryoshka=None, skip=True, l0_target=60.0),
    ):
        widths = [tuple(shape.width(s) for s in sites) for sites in (m.reads, m.writes)]
        member = Member(m, TrainingRecipe((m,)), *widths, 0)
        assert parameters(m, shape) == pytest.approx(sum(p.numel() for p in member.params.values()), abs=64)


def test_a_shape_read_from_a_config_is_the_known_one():
    config = toy_model(
        hidden_size=640, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=1, head_dim=256, intermediate_size=2048,
        sliding_window=512,
    ).parts.config  # fmt: skip
    known = dataclasses.replace(GEMMA_3["gemma-3-270m"], name="x", layers=6, vocabulary=260)
    assert shape_of(config, "x") == known


@pytest.mark.parametrize(("text", "n", "memory"), [("8x80GB", 8, 80e9), (" 2 x 24 GiB", 2, 24 * 2**30), ("1x1.5TB", 1, 1.5e12)])
def test_devices_are_read(text, n, memory):
    assert devices(text) == (n, memory)


@pytest.mark.parametrize("text", ["8", "0x80GB", "8x", "x80GB", "8x0GB"])
def test_what_names_no_devices_is_refused(text):
    with pytest.raises(ValueError, match="such as 8x80GB"):
        devices(text)


def test_axes_use_members_first_then_latents_then_data():
    small = fit(suite_cpu(), GEMMA_3["gemma-3-270m"], 8, 80e9)
    assert (small.dict, small.latent, small.data) == (8, 1, 1)
    one = fit(demo(), GEMMA_3["gemma-3-270m"], 8, 80e9)
    assert (one.dict, one.latent, one.data) == (2, 1, 4)
    member = MemberRecipe("wide", "L30.resid_post", "L30.resid_post", d_sae=2**20, matryoshka=None, l0_target=60.0)
    wide = RunRecipe(TrainingRecipe((member,)), model="gemma-3-12b")
    found = fit(wide, GEMMA_3["gemma-3-12b"], 8, 80e9)
    assert found.dict == 1 and found.latent > 1 and found.dict * found.latent * found.data == 8 and found.memory < 80e9
    with pytest.raises(ValueError, match=r"in .* groups one after another"):
        fit(suite("gemma-3-12b", 48), GEMMA_3["gemma-3-12b"], 8, 80e9)
    with pytest.raises(ValueError, match="alone takes"):
        fit(wide, GEMMA_3["gemma-3-27b"], 8, 40e9)


def test_live_rows_cost_operations_and_no_disk():
    stored, live = (
        plan(dataclasses.replace(demo(), store=s, row_bytes=1e8), GEMMA_3["gemma-3-270m"], H100) for s in ("spool", "live")
    )
    assert stored.disk > 0 == live.disk and live.stages[0].flops == pytest.approx(2 * stored.stages[0].flops)
    assert stored.keep[0] in ("store", "recompute")


def test_calibration_gives_measured_seconds_to_every_stage():
    model = toy_model()
    member = MemberRecipe("sae", "L1.resid_post", "L1.resid_post", d_sae=64, matryoshka=None, l0_target=60.0)
    recipe = RunRecipe(
        TrainingRecipe((member,), batch=64), model="toy", tokens=4096, context=64, eval_tokens=256, ce_tokens=256
    )
    machine = calibrate(recipe, model, seconds=1.0)
    found = plan(recipe, shape_of(model.parts.config, "toy"), machine)
    assert [s.name for s in found.stages] == ["harvest", "training", "evaluation", "index"]
    assert all(s.seconds > 0 for s in found.stages) and found.memory > 1e8
