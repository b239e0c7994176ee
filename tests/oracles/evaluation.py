"""SAELens' own evaluation and SAEBench's schema against ours, on the same dictionary, tokens and model: the oracle behind docs/oracles.md.

    .venv/bin/python tests/oracles/evaluation.py ours WORK [DICTIONARY]     # in diascope's environment
    PEER/bin/python tests/oracles/evaluation.py theirs WORK                 # in an environment with sae-lens==6.54.12
                                            # [and, with --no-deps, sae-bench==0.6.0 and sae-probes==0.4.2; tabulate]

1. `ours` takes texts of at least T - 1 tokens, one a row: BOS and T - 1 ordinary tokens. So both libraries leave out the same tokens
   (BOS), no row holds two documents, and every position they count is one that we count. It writes tokens, the dictionary in
   SAELens' layout, the model's folder, our numbers, and the card in SAEBench's schema. Without DICTIONARY it takes a toy model and
   a random dictionary.
2. `theirs` loads the model with SAELens' Hugging Face wrapper and the dictionary with its own loader, runs `run_evals`, and prints
   both numbers with their relative difference. Where the definitions differ, both definitions are computed by `ours`.
3. It also runs SAEBench's core evaluation, and reads our JSON with SAEBench's own pydantic classes. (The suite's entries in it are
   made up: what is tested is their form.)
"""

from __future__ import annotations

import json
import os
import sys
import types
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import numpy as np
import torch

T, ROWS, BATCH = 128, 16, 4
AGREE = 1e-5  # relative
LOOSE = {"kl_div_with_ablation": 3.0}  # times that: a float32 softmax over 262,144 words sums to 1 + 1e-5
SUITE = {
    "probing": {
        "config": {"ks": [1, 2], "seed": 0}, "run": {}, "result": {"auroc k1": 0.6, "auroc k2": 0.7},
        "controls": {"dense": {"auroc all dimensions": 0.9}}, "details": {"tasks": {"a": {"k1": 0.6, "k2": 0.7, "dense": 0.9}}},
    },
    "absorption": {
        "config": {"letters": 20, "seed": 0}, "run": {}, "result": {"absorption": 0.1, "full absorption": 0.05, "main latents": 1.0},
        "controls": {}, "details": {"a": {"main": [1], "absorption": 0.1}},
    },
}  # fmt: skip


# -- ours
def ours(work: Path, path: str | None) -> None:
    import diascope
    from diascope.dictionaries import save_dictionary
    from diascope.evals import rows_of
    from diascope.evals.saebench import measured, write_saebench
    from diascope.evals.text import EvalText

    work.mkdir(parents=True, exist_ok=True)
    model, d, documents = real(path) if path else toy(work)
    folder = getattr(model.module.config, "_name_or_path", "")
    sequences, training = rows_of_length(model, documents)
    card = diascope.evaluate(
        model, {"oracle": d}, sequences, training_rows=rows_of(model, training), ce_tokens=10**9, text="oracle"
    )["oracle"].card()
    x = d.inputs(EvalText(model, sequences).capture(list(d.sites)))
    own = card["metrics"]["dictionary"]
    found = {k: own[k]["value"] for k in ("l0", "ce", "kl")} | {"ce_clean": card["metrics"]["clean"]["ce"]["value"]}
    found |= {"explained_variance": 1 - own["fvu"]["value"]} | measured(d, x, x) | by_their_definitions(model, d, sequences)
    density = torch.bincount(d.encode(x).index, minlength=d.d_sae).double() / len(x)
    save_dictionary(d, work / "saelens", format="saelens", overwrite=True)
    write_saebench(work / "saebench", "oracle", card | {"suite": SUITE}, measured(d, x, x))
    np.savez(work / "arrays.npz", tokens=sequences.tokens, density=density.numpy())
    facts = {"model": str(Path(folder).resolve()), "layer": d.site_in.layer, "latents": d.d_sae, "name": model.name}
    (work / "ours.json").write_text(json.dumps({"facts": facts, "metrics": found}, indent=1))
    against_float64(model, d, sequences)
    print(f"wrote {work}: {len(x):,} tokens, L0 {found['l0']:.2f}, explained variance {found['explained_variance']:.4f}")


def real(path: str):
    import diascope
    from diascope.tokens import open_corpus

    model = diascope.load_model("gemma-3-270m")
    return model, diascope.load_dictionary(path), open_corpus("wikipedia-passages").documents


def toy(work: Path):
    """A random model of four layers and a random dictionary, in the place that SAELens can load the model from."""
    import diascope
    from diascope.dictionaries import Dictionary, DictionaryConfig
    from diascope.models.toy import byte_tokenizer, toy_module
    from diascope.tokens import Document

    folder = work / "toy"
    toy_module(max_position_embeddings=256, sliding_window=256).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    g, d, S = torch.Generator().manual_seed(0), 32, 128
    tensors = {
        "W_enc": torch.randn(d, S, generator=g) / d**0.5,
        "W_dec": torch.nn.functional.normalize(torch.randn(S, d, generator=g), dim=1),
        "b_enc": torch.randn(S, generator=g) * 0.1,
        "b_dec": torch.randn(d, generator=g),
        "threshold": torch.rand(S, generator=g),
    }
    config = DictionaryConfig.single("toy", "L2.resid_post", "L2.resid_post", d, d, S, l0_target=20.0)
    r = np.random.default_rng(0)
    documents = [Document(f"d{i}", "".join(map(chr, r.integers(97, 123, 400)))) for i in range(2 * ROWS + 2)]
    return diascope.load_model(str(folder)), Dictionary(config, tensors), documents


def rows_of_length(model, documents):
    """(evaluation, training) sequences: one document a row, BOS and T - 1 ordinary tokens."""
    from diascope.tokens import Sequences

    rows = []
    for document in documents:
        ids = model.tokenize(document.text)[:T]
        if len(ids) == T and model.ordinary(torch.tensor(ids[1:])).all():
            rows.append(ids)
        if len(rows) == 2 * ROWS:
            break
    assert len(rows) == 2 * ROWS, f"{len(rows)} documents have {T} tokens"

    def packed(some):
        position = np.tile(np.arange(T, dtype=np.int32), (ROWS, 1))
        document = np.tile(np.arange(ROWS, dtype=np.int32)[:, None], (1, T))
        return Sequences(np.array(some, np.int32), position, document, tuple(f"d{i}" for i in range(ROWS)))

    return packed(rows[:ROWS]), packed(rows[ROWS:])


def by_their_definitions(model, d, sequences) -> dict[str, float]:
    """CE and KL as SAELens defines them: KL also at the last position, and an ablation that is zero everywhere, also at BOS."""
    from diascope.edits import Edit
    from diascope.evals.text import EvalText

    plain = EvalText(model, sequences)
    zero = Edit(d.site_in, d.site_out, lambda _, y: torch.zeros_like(y))
    runs = {"clean": ([], plain.rows), "sae": ([d.splice()], plain.rows), "zero": ([zero], torch.ones_like(plain.rows))}

    def losses(predicts):
        """Losses at `predicts`; of the last position only KL means something, since no token follows."""
        hidden = {}
        for name, (edits, rows) in runs.items():
            text = EvalText(model, sequences, rows=rows)
            text.predicts = predicts
            with model.edit(*edits):
                hidden[name] = text.hidden()
        return text.losses(hidden.pop("clean"), hidden)

    usual, with_last = losses(plain.predicts), losses(plain.rows)
    found = {f"kl_{k}_with_last": float(with_last[k].kl.double().mean()) for k in ("sae", "zero")}
    return found | {"ce_zero": float(usual["zero"].ce.double().mean())}


def against_float64(model, d, sequences) -> None:
    """Print how far losses summed in float32 are from float64 on the same logits, ours and log_softmax (nats, means over predictions)."""
    from torch.nn.functional import kl_div, log_softmax

    from diascope.evals.text import EvalText

    text = EvalText(model, sequences.part(0, 2))
    with torch.no_grad():
        hidden = [text.hidden()]
        with model.edit(d.splice()):
            hidden.append(text.hidden())
        own = text.losses(hidden[0], {"sae": hidden[1]})["sae"]
        logits = [model.scaled_logits(h @ model.unembedding.float().t()) for h in hidden]
        found = {}
        for kind in (torch.float64, torch.float32):
            clean, spliced = (log_softmax(v.to(kind), -1) for v in logits)
            ce = -spliced.gather(-1, text.targets[:, None]).double().mean()
            found[kind] = float(ce), float(kl_div(spliced, clean.exp(), reduction="none").sum(-1).double().mean())
    exact = found[torch.float64]
    for name, pair in (
        ("ours", (float(own.ce.double().mean()), float(own.kl.double().mean()))),
        ("log_softmax", found[torch.float32]),
    ):
        print(
            f"{name}: CE {pair[0] - exact[0]:+.1e}, KL {pair[1] - exact[1]:+.1e} nats from float64, {len(own.ce)} predictions"
        )


# -- theirs
PAIRS = (  # (where SAELens and SAEBench have it, their name, ours)
    ("reconstruction_quality", "explained_variance", "explained_variance"),
    ("reconstruction_quality", "mse", "mse"),
    ("reconstruction_quality", "cossim", "cossim"),
    ("sparsity", "l0", "l0"),
    ("sparsity", "l1", "l1"),
    ("shrinkage", "l2_norm_in", "l2_norm_in"),
    ("shrinkage", "l2_norm_out", "l2_norm_out"),
    ("shrinkage", "l2_ratio", "l2_ratio"),
    ("model_performance_preservation", "ce_loss_without_sae", "ce_clean"),
    ("model_performance_preservation", "ce_loss_with_sae", "ce"),
    ("model_performance_preservation", "ce_loss_with_ablation", "ce_zero"),
    ("model_behavior_preservation", "kl_div_with_sae", "kl_sae_with_last"),
    ("model_behavior_preservation", "kl_div_with_ablation", "kl_zero_with_last"),
)


class Store:
    """What `run_evals` asks of an activation store: batches of tokens, in order."""

    store_batch_size_prompts = BATCH

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens, self.context_size, self.at = tokens, tokens.shape[1], 0

    def reset_input_dataset(self) -> None:
        self.at = 0

    def get_batch_tokens(self, n: int) -> torch.Tensor:
        self.at += n
        return self.tokens[self.at - n : self.at]


def theirs(work: Path) -> int:
    from sae_lens import SAE
    from sae_lens.evals import get_eval_everything_config, run_evals
    from sae_lens.load_model import load_model
    from sae_lens.training.activation_scaler import ActivationScaler

    written, arrays = json.loads((work / "ours.json").read_text()), np.load(work / "arrays.npz")
    facts, found = written["facts"], written["metrics"]
    hook = f"model.layers.{facts['layer']}"
    kwargs = {"dtype": torch.float32, "local_files_only": True}
    model = load_model("AutoModelForCausalLM", facts["model"], "cpu", kwargs, hook_names=[hook])
    sae = SAE.load_from_disk(work / "saelens")
    sae.cfg.metadata.hook_name = hook
    store = Store(torch.from_numpy(arrays["tokens"]).long())
    config = get_eval_everything_config(BATCH, ROWS // BATCH, ROWS // BATCH)
    metrics, latents = run_evals(sae, store, model, ActivationScaler(), config)
    worst = compared("SAELens", metrics, found, PAIRS)
    density, own = np.array(latents["feature_density"]), arrays["density"]
    differ = int((np.round(density * ROWS * (T - 1)) != np.round(own * ROWS * (T - 1))).sum())
    error = float(np.abs(density - own).max() / density.max())
    print(f"| `feature_density`, largest difference | {density.max():.8g} | {own.max():.8g} | {error:.1e} |")
    print(
        f"{differ} of {len(own):,} latents fire on another number of tokens; worst relative difference {max(worst, error):.1e}\n"
    )
    store.at = 0
    saebench(work / "saebench", sae, store, model, found)
    return int(max(worst, error) > AGREE)


def compared(library: str, metrics: dict, found: dict, pairs) -> float:
    """Print both numbers of each pair; the largest relative difference, in units of what is allowed for each (LOOSE)."""
    print(f"| | {library} | diascope | relative difference |\n|---|---|---|---|")
    worst = 0.0
    for group, name, own in pairs:
        a, b = metrics[group][name], found[own]
        error = abs(a - b) / max(abs(a), 1e-30)
        worst = max(worst, error / LOOSE.get(name, 1.0))
        print(f"| `{name}` | {a:.8g} | {b:.8g} | {error:.1e} |")
    return worst


def saebench(folder: Path, sae, store: Store, model, found: dict) -> None:
    """SAEBench's own core evaluation, whose flaws docs/oracles.md names, and its own classes on what we write."""
    sys.modules.setdefault("xgboost", types.ModuleType("xgboost"))  # sae-probes imports it for probes that are not asked here
    try:
        from pydantic import TypeAdapter
        from sae_bench.evals.absorption.eval_output import AbsorptionEvalOutput
        from sae_bench.evals.core import main as core
        from sae_bench.evals.core.eval_output import CoreEvalOutput
        from sae_bench.evals.sparse_probing_sae_probes.eval_output import SparseProbingSaeProbesEvalOutput
    except ImportError as error:
        print(f"SAEBench was not asked: {error}")
        return
    hook = sae.cfg.metadata.hook_name  # it looks for these in the config itself, where SAELens had them before
    sae.cfg.hook_name, sae.cfg.hook_head_index, sae.cfg.hook_layer = hook, None, int(hook.rpartition(".")[2])
    n = ROWS // BATCH
    config = core.CoreEvalConfig(
        batch_size_prompts=BATCH, n_eval_reconstruction_batches=n, n_eval_sparsity_variance_batches=n, compute_kl=True,
        compute_ce_loss=True, compute_l2_norms=True, compute_sparsity_metrics=True, compute_variance_metrics=True,
        compute_featurewise_density_statistics=True, exclude_special_tokens_from_reconstruction=True,
    )  # fmt: skip
    t = model.tokenizer
    metrics, _ = core.run_evals(sae, store, model, config, ignore_tokens={t.pad_token_id, t.eos_token_id, t.bos_token_id})
    compared("SAEBench", metrics, found, PAIRS)
    classes = {
        "core": CoreEvalOutput,
        "absorption_first_letter": AbsorptionEvalOutput,
        "sparse_probing_sae_probes": SparseProbingSaeProbesEvalOutput,
    }
    for file in sorted(folder.glob("*.json")):
        read = TypeAdapter(classes[file.stem]).validate_json(file.read_text())
        print(f"SAEBench reads {file.name}: {type(read).__name__}, eval_id {read.eval_id}")


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        ours(Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    else:
        sys.exit(theirs(Path(sys.argv[2])))
