"""Parity with Hugging Face's own hidden states on every architecture that we say we read."""

import pytest
import torch

from diascope.edits import Edit
from diascope.models import load_model
from diascope.models.model import Model
from diascope.models.toy import byte_tokenizer, toy_model, toy_module
from diascope.sites import Site

ARCHITECTURES = ["gemma2", "gemma3_text", "llama", "qwen2", "qwen3", "qwen3_moe", "gpt2", "gpt_neox", "olmo2"]
EXTRA = {"qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}}
TOKENS = torch.tensor([[2, 70, 81, 92, 33, 104, 75], [2, 60, 61, 62, 63, 64, 65]])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return toy_model(request.param, **EXTRA.get(request.param, {}))


def test_residuals_are_hugging_faces_hidden_states(model):
    with torch.no_grad():
        theirs = model.module(TOKENS, output_hidden_states=True)
    L = model.n_layers
    seen = model.capture(TOKENS, [f"L{i}.resid_post" for i in range(L)])
    for i in range(L - 1):
        assert torch.equal(seen[f"L{i}.resid_post"], theirs.hidden_states[i + 1])
    assert torch.allclose(model.hidden(TOKENS), theirs.hidden_states[-1], atol=1e-6)  # there it is post-norm
    assert torch.allclose(model.logits(TOKENS), theirs.logits, atol=1e-5)


def test_branches_add_up_to_the_residual(model):
    """attn_write and mlp_out are what the branches add: what comes in plus both is the block's output."""
    kinds = ("resid_pre", "resid_post", "mlp_in", "mlp_out", "attn_out", "attn_write")
    seen = model.capture(TOKENS, [Site(1, k) for k in kinds])
    for kind in kinds:
        assert seen[Site(1, kind)].shape == (*TOKENS.shape, model.width(Site(1, kind)))
    whole = seen["L1.resid_pre"] + seen["L1.attn_write"] + seen["L1.mlp_out"]
    assert torch.allclose(whole, seen["L1.resid_post"], atol=1e-5)
    assert torch.equal(seen["L1.resid_pre"], model.capture(TOKENS, "L0.resid_post")["L0.resid_post"])
    without = Edit(Site(1, "mlp_out"), Site(1, "mlp_out"), lambda _, y: torch.zeros_like(y), special=True)
    with model.edit(without):
        bare = model.capture(TOKENS, "L1.resid_post")["L1.resid_post"]
    assert torch.allclose(bare + seen["L1.mlp_out"], seen["L1.resid_post"], atol=1e-5)


def test_splicing_the_identity_changes_no_logit(model):
    clean = model.logits(TOKENS)
    for kind in ("resid_post", "mlp_out", "attn_out", "mlp_in"):
        site = Site(2, kind)
        with model.edit(Edit(site, site, lambda _, y: y)):
            assert torch.equal(model.logits(TOKENS), clean)
        with model.edit(Edit(site, site, lambda _, y: y * 1.5)):
            assert not torch.allclose(model.logits(TOKENS), clean)
    assert torch.equal(model.logits(TOKENS), clean)  # the hooks are gone


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_and_batch_size_leave_activations_unchanged(model, side):
    texts = ["a longer sentence here", "short"]
    both = model.capture(texts, "L2.resid_post", padding_side=side)
    for i, text in enumerate(texts):
        alone = model.capture(text, "L2.resid_post")["L2.resid_post"][0]
        assert torch.allclose(both["L2.resid_post"][i][both.attention[i]], alone, atol=1e-5)


def test_packed_documents_do_not_see_one_another(model):
    a, b = model.tokenize("first text"), model.tokenize("and another")
    packed = torch.tensor([a + b])
    positions = torch.tensor([[*range(len(a)), *range(len(b))]])
    together = model.capture(packed, "L2.resid_post", positions=positions)["L2.resid_post"][0]
    apart = torch.cat([model.capture(t, "L2.resid_post")["L2.resid_post"][0] for t in ("first text", "and another")])
    assert torch.allclose(together, apart, atol=1e-5)


def test_resuming_at_a_layer_gives_the_same_hidden_states(model):
    kept = model.block_output(TOKENS, 1)
    assert torch.equal(model.hidden(TOKENS, resume=(2, kept)), model.hidden(TOKENS))
    steer = Edit(Site(2, "resid_post"), Site(2, "resid_post"), lambda _, y: y + 1)
    with model.edit(steer):
        assert torch.equal(model.hidden(TOKENS, resume=(2, kept)), model.hidden(TOKENS))


def test_a_decode_step_resumes_at_a_layer(model):
    """The same next hidden state as from the first block on, with an edit above, also where the window slides."""
    ones = torch.ones_like(TOKENS, dtype=torch.bool)
    past = lambda: model.decode_step(TOKENS[:, :-2], ones[:, :-2], None)[1]  # noqa: E731
    kept = model.step_output(TOKENS[:, -2:], ones, past(), 0)
    steer = Edit(Site(1, "resid_post"), Site(1, "resid_post"), lambda _, y: y + 1, special=True)
    ran = []
    handle = model.parts.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    for edits in ((), (steer,)):
        with model.edit(*edits):
            whole, _ = model.decode_step(TOKENS[:, -2:], ones, past())
            resumed, _ = model.decode_step(TOKENS[:, -2:], ones, past(), resume=(1, kept))
        assert torch.equal(whole, resumed)
    handle.remove()
    assert model.resumes
    with model.edit(steer):
        assert not model.resumes


def test_gemma_3_sites_are_the_releases_hook_points():
    """mlp_in includes the norm's gain, mlp_out the post-norm's: checked against the modules by name."""
    model = toy_model("gemma3_text")
    block = model.module.model.layers[1]
    seen = {}
    hooks = [
        block.pre_feedforward_layernorm.register_forward_hook(lambda m, a, o: seen.update(mlp_in=o)),
        block.post_feedforward_layernorm.register_forward_hook(lambda m, a, o: seen.update(mlp_out=o)),
        block.self_attn.o_proj.register_forward_pre_hook(lambda m, a: seen.update(attn_out=a[0])),
    ]
    with torch.no_grad():
        model.module(TOKENS)
    for hook in hooks:
        hook.remove()
    ours = model.capture(TOKENS, [Site(1, k) for k in seen])
    for kind, theirs in seen.items():
        assert torch.equal(ours[Site(1, kind)], theirs), kind
    norm = block.pre_feedforward_layernorm
    gain_free = seen["mlp_in"] / (1 + norm.weight)
    assert not torch.allclose(ours["L1.mlp_in"], gain_free, atol=1e-2)  # the gain is far from one in this toy


def test_gemma_3_under_language_model():
    inner = toy_module("gemma3_text")

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = inner.config
            self.model = torch.nn.Module()
            self.model.language_model = inner.model
            self.lm_head = inner.lm_head

        def get_output_embeddings(self):
            return self.lm_head

    outer = Model(Outer(), byte_tokenizer(), "outer")
    plain = toy_model("gemma3_text")
    assert torch.equal(outer.capture(TOKENS, "L1.mlp_in")["L1.mlp_in"], plain.capture(TOKENS, "L1.mlp_in")["L1.mlp_in"])


def test_peft_models_are_read_with_their_adapters():
    import peft

    plain = toy_model("llama")
    lora = peft.get_peft_model(toy_module("llama"), peft.LoraConfig(target_modules=["o_proj"], init_lora_weights=False))
    model = load_model(lora, byte_tokenizer())
    assert model.width("L1.attn_out") == plain.width("L1.attn_out")
    with torch.no_grad():
        theirs = lora(TOKENS, output_hidden_states=True).hidden_states[2]
    ours = model.capture(TOKENS, "L1.resid_post")["L1.resid_post"]
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, plain.capture(TOKENS, "L1.resid_post")["L1.resid_post"])


def test_bfloat16_stays_close(toy):
    low = Model(toy_module().to(torch.bfloat16), byte_tokenizer(), "bf16")
    a, b = (m.capture(TOKENS, "L2.resid_post")["L2.resid_post"].float() for m in (toy, low))
    assert 0 < float((a - b).norm() / a.norm()) < 0.03


def test_the_unembedding_and_deeper_blocks_do_not_run_when_nobody_reads_them(toy):
    ran = []
    hooks = [toy.parts.blocks[3].register_forward_hook(lambda *_: ran.append("block 3"))]
    hooks.append(toy.parts.unembedding.register_forward_hook(lambda *_: ran.append("unembedding")))
    toy.capture(TOKENS, ["L2.resid_post", "L1.mlp_out"])
    for hook in hooks:
        hook.remove()
    assert ran == []


def test_exactly_one_bos():
    toy = toy_model()  # its own: the template would stay on the shared one
    assert toy.tokenize("hi")[0] == 2 and toy.tokenize("<bos>hi") == toy.tokenize("hi")
    toy.tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    ids = toy.chat_tokens([{"role": "user", "content": "hi"}])
    assert ids.count(2) == 1 and ids[0] == 2


def test_special_positions_are_neither_rows_nor_edited(toy):
    seen = toy.capture(["abc", "a"], "L1.resid_post")
    assert seen.mask.tolist() == [[False, True, True, True], [False, True, False, False]]
    site = Site(1, "resid_post")
    with toy.edit(Edit(site, site, lambda _, y: torch.zeros_like(y))):
        edited = toy.capture("abc", site)
    assert torch.equal(edited[site][0, 0], seen["L1.resid_post"][0, 0])
    assert (edited[site][0, 1:] == 0).all()


def test_edits_act_on_every_decode_step(toy):
    site = Site(2, "resid_post")
    push = torch.randn(32, generator=torch.Generator().manual_seed(0)) * 50
    edit = Edit(site, site, lambda _, y: y + push)
    plain = toy.generate("abc", max_new_tokens=6)
    steered = toy.generate("abc", max_new_tokens=6, edits=[edit])
    assert edit.applied == [3, 1, 1, 1, 1, 1] and steered != plain
    assert toy.generate("abc", max_new_tokens=6) == plain
    with torch.no_grad():  # our cached greedy loop against Hugging Face's
        ids = torch.tensor([toy.tokenize("abc")])
        theirs = toy.module.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    assert toy.tokenizer.decode(theirs) == plain


@pytest.mark.parametrize(
    ("name", "says"),
    [("./nowhere", "no model folder"), ("gone.gguf", "no file"), ("/a/b/c", "no model folder")],
)
def test_missing_models_are_named(name, says):
    with pytest.raises(ValueError, match=says):
        load_model(name)


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match="pickled"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="no tokenizer"):
        load_model(tmp_path)


def test_a_saved_model_loads_from_its_folder(toy, tmp_path):
    toy.module.save_pretrained(tmp_path)
    toy.tokenizer.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert torch.equal(again.logits(TOKENS), toy.logits(TOKENS))


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="layers are 0 to 3"):
        toy_model().capture("a", "L9.resid_post")
    with pytest.raises(ValueError, match="no config"):
        Model(torch.nn.Linear(2, 2), byte_tokenizer(), "x")
    with pytest.raises(ValueError, match="float16"):
        load_model("gemma-3-270m", dtype="float16")


def test_a_site_that_is_missing_leaves_no_hook_behind(toy):
    with pytest.raises(ValueError, match="L99"):
        toy.capture("abc", ["L1.resid_post", "L99.resid_post"])
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in toy.module.modules())


def test_skipping_blocks_puts_an_instances_own_forward_back():
    model = toy_model()
    block = model.parts.blocks[0]
    own = block.forward
    block.forward = lambda *a, **k: own(*a, **k)  # as accelerate does for device maps
    mine = block.forward
    model.hidden(TOKENS, resume=(2, model.block_output(TOKENS, 1)))
    assert block.forward is mine


def test_generate_takes_one_prompt_and_counts_afresh(toy):
    with pytest.raises(ValueError, match="one prompt"):
        toy.generate(["a", "b"])
    site = Site(2, "resid_post")
    edit = Edit(site, site, lambda _, y: y)
    for _ in range(2):
        toy.generate("abc", max_new_tokens=2, edits=[edit])
    assert len(edit.applied) == 2


def test_an_edit_cannot_read_what_comes_later(toy):
    with pytest.raises(ValueError, match="computed after"):
        Edit(Site(1, "mlp_out"), Site(1, "mlp_in"), lambda x, y: y)


def test_weights_that_are_missing_are_not_made_up(toy, tmp_path):
    from safetensors.torch import load_file, save_file

    toy.module.save_pretrained(tmp_path)
    toy.tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(n for n in weights if n.endswith("layers.2.input_layernorm.weight"))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack 1 tensors"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.capture([[9999]], "L1.resid_post"), "token ids 0 to"),
        (lambda m: m.capture([[-1]], "L1.resid_post"), "token ids 0 to"),
        (lambda m: m.capture(torch.zeros(1, 0, dtype=torch.long), "L1.resid_post"), "got none"),
        (lambda m: m.capture("a", "other:L1.resid_post"), "a site of 'other'"),
        (lambda m: m.capture("\ud800", "L1.resid_post"), "surrogate"),
        (lambda m: m.capture("a", "L1.resid_post", padding_side="middle"), "left or right"),
        (lambda m: m.generate("a", temperature=float("nan")), "temperature"),
    ],
)
def test_wrong_calls_say_what_is_wrong(toy, call, says):
    with pytest.raises(ValueError, match=says):
        call(toy)
