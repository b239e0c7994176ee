"""Train one peer library's SAE, as released, on rows in a file. Runs in an environment of its own; called by peers.py.

    python peers_train.py JOB.json...

JOB.json: library, kind, train, calibration and eval (.npy of rows [n, d]), latents, k, lr, seed, batch, steps, out, and for
kinds with a sparsity penalty (relu, gated, jumprelu) its coefficient; device (default: cpu); and `save`, a second .npz for the
weights of a dictionary whose latents are relu(x W_enc + b_enc). Needs
sae-lens==6.54.12, eai-sparsify==1.3.3 and, with --no-deps, dictionary-learning==0.1.0. Written to `out` (.npz): squared error of
every evaluation row, raw and with each dimension divided by its deviation, for the evaluation and the calibration rows; L0; seconds of
training.

Each library's own trainer does the training, with its own normalisation, auxiliary loss and schedules (warm-up over the first 5 %
of the steps, decay over the last 30 %, where it has them). A latent counts as dead after a quarter of the run, in every library:
their usual 10 million rows would leave the auxiliary loss out of a run this short. Except with TopK, one number is then set on
the calibration rows so that L0 is k, for every library alike: BatchTopK's bar, and what is added to every threshold or gate of
the others. Own moving averages over a few hundred steps give other L0s, and FVU at another L0 says nothing.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

Acts = Callable[[Tensor], tuple[Tensor, Tensor]]  # x -> how far each latent is above its threshold; its value where it is on
Trained = tuple[Acts, Callable[[Tensor], Tensor]]  # and f -> y_hat
PREFIXES = (16, 4, 1)  # Matryoshka: a sixteenth, a quarter, all


class Batches:
    """Fresh copies of the batches, pass after pass: some trainers scale them in place."""

    def __init__(self, rows: Tensor, job: dict) -> None:
        self.rows, self.job = rows, job
        g = torch.Generator().manual_seed(job["seed"])
        per = len(rows) // job["batch"]
        passes = -(-job["steps"] // per) + 2  # a few more than needed: some estimate norms on the first
        self.order = [torch.randperm(len(rows), generator=g)[: per * job["batch"]].view(per, -1) for _ in range(passes)]

    def __iter__(self) -> Iterator[Tensor]:
        for order in self.order:
            for index in order:
                yield self.rows[index.to(self.rows.device)].clone()


def plain(pre: Tensor) -> tuple[Tensor, Tensor]:
    """Latents without thresholds of their own."""
    return pre, torch.relu(pre)


def sae_lens(rows: Tensor, job: dict) -> Trained:
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes import batchtopk_sae, gated_sae, jumprelu_sae, matryoshka_batchtopk_sae, standard_sae, topk_sae
    from sae_lens.training.sae_trainer import SAETrainer

    warm_up, k = job["steps"] // 5, {"k": job["k"]}
    l1 = {"l1_coefficient": job.get("coefficient"), "l1_warm_up_steps": warm_up}
    l0 = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": job["k"], "l0_coefficient": job.get("coefficient"),
          "l0_warm_up_steps": warm_up}  # fmt: skip
    module, name, extra = {
        "topk": (topk_sae, "TopK", k),
        "batchtopk": (batchtopk_sae, "BatchTopK", k),
        "matryoshka": (
            matryoshka_batchtopk_sae,
            "MatryoshkaBatchTopK",
            k | {"matryoshka_widths": [job["latents"] // p for p in PREFIXES]},
        ),
        "relu": (standard_sae, "Standard", l1),
        "gated": (gated_sae, "Gated", l1),
        "jumprelu": (jumprelu_sae, "JumpReLU", l0),
    }[job["kind"]]
    torch.manual_seed(job["seed"])
    config = getattr(module, f"{name}TrainingSAEConfig")(
        d_in=rows.shape[1], d_sae=job["latents"], normalize_activations="expected_average_only_in", device=job["device"],
        dtype="float32", **extra,
    )  # fmt: skip
    sae = getattr(module, f"{name}TrainingSAE")(config)
    trainer = SAETrainerConfig(
        total_training_samples=job["steps"] * job["batch"], train_batch_size_samples=job["batch"], lr=job["lr"],
        lr_scheduler_name="constant", lr_end=job["lr"] / 10, lr_warm_up_steps=job["steps"] // 20, lr_decay_steps=int(0.3 * job["steps"]), device=job["device"],
        autocast=job.get("autocast", False), logger=LoggingConfig(log_to_wandb=False), dead_feature_window=job["steps"] // 4, n_batches_for_norm_estimate=20,
    )  # fmt: skip
    sae = SAETrainer(trainer, sae, iter(Batches(rows, job))).fit()
    length = (
        sae.W_dec.norm(dim=1)
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)
        else torch.ones(job["latents"], device=job["device"])
    )

    def acts(x: Tensor) -> tuple[Tensor, Tensor]:  # where rows are rescaled, latents are compared after the row's length
        product = (x - sae.b_dec * sae.cfg.apply_b_dec_to_input) @ sae.W_enc
        if job["kind"] == "gated":
            return product + sae.b_gate, torch.relu(product * sae.r_mag.exp() + sae.b_mag)
        if job["kind"] == "jumprelu":
            return product + sae.b_enc - sae.threshold, torch.relu(product + sae.b_enc)
        return plain((product + sae.b_enc) * length)

    return acts, lambda f: (f / length) @ sae.W_dec + sae.b_dec


def dictionary_learning(rows: Tensor, job: dict) -> Trained:
    for name in ("nnsight", "zstandard", "umap", "circuitsvis", "circuitsvis.activations", "wandb"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["nnsight"].LanguageModel = object  # type: ignore[attr-defined]
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, gdm, jumprelu, matryoshka_batch_top_k, standard, top_k
    from dictionary_learning.training import trainSAE

    shares, soon = [1 / p for p in PREFIXES], job["steps"] // 5
    k = {"k": job["k"], "threshold_start_step": soon}
    groups = {"group_fractions": [shares[0], *(b - a for a, b in itertools.pairwise(shares))]}
    l1 = {"l1_penalty": job.get("coefficient"), "sparsity_warmup_steps": soon}
    l0 = {"sparsity_penalty": job.get("coefficient"), "target_l0": float(job["k"]), "sparsity_warmup_steps": soon}
    trainer, ae, extra = {
        "topk": (top_k.TopKTrainer, top_k.AutoEncoderTopK, k),
        "batchtopk": (batch_top_k.BatchTopKTrainer, batch_top_k.BatchTopKSAE, k),
        "matryoshka": (
            matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer, matryoshka_batch_top_k.MatryoshkaBatchTopKSAE, k | groups,
        ),
        "relu": (standard.StandardTrainer, dictionary.AutoEncoder, l1),
        "gated": (gdm.GatedSAETrainer, dictionary.GatedAutoEncoder, l1),
        "jumprelu": (jumprelu.JumpReluTrainer, dictionary.JumpReluAutoEncoder, l0),
    }[job["kind"]]  # fmt: skip
    config = {
        "trainer": trainer, "steps": job["steps"], "activation_dim": rows.shape[1], "dict_size": job["latents"], **extra,
        "layer": 0, "lm_name": "x", "lr": job["lr"], "warmup_steps": job["steps"] // 20, "decay_start": int(0.7 * job["steps"]),
        "seed": job["seed"], "device": job["device"],
    }  # fmt: skip
    torch.manual_seed(job["seed"])

    def made(**settings: object) -> object:  # the number of rows without firing is fixed inside, at 10 million
        made_one = trainer(**settings)
        made_one.dead_feature_threshold = job["steps"] * job["batch"] // 4
        return made_one

    config["trainer"] = made
    with tempfile.TemporaryDirectory() as folder:
        trainSAE(
            Batches(rows, job),
            [config],
            job["steps"],
            save_dir=folder,
            normalize_activations=True,
            device=job["device"],
            autocast_dtype=getattr(torch, job.get("autocast_dtype", "float32")),
        )
        found = ae.from_pretrained(str(Path(folder) / "trainer_0" / "ae.pt"), device=job["device"])

    def acts(x: Tensor) -> tuple[Tensor, Tensor]:
        if job["kind"] == "matryoshka":
            return plain((x - found.b_dec) @ found.W_enc + found.b_enc)
        if job["kind"] == "relu":
            return plain(found.encoder(x - found.bias))
        if job["kind"] == "gated":
            product = found.encoder(x - found.decoder_bias)
            return product + found.gate_bias, torch.relu(product * found.r_mag.exp() + found.mag_bias)
        if job["kind"] == "jumprelu":
            pre = (x - found.b_dec * found.apply_b_dec_to_input) @ found.W_enc + found.b_enc
            return pre - found.threshold, torch.relu(pre)
        return plain(found.encoder(x - found.b_dec))

    return acts, found.decode


class Lookup(nn.Module):
    """What sparsify's Trainer takes for a model: token i has row i as its vector."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Embedding.from_pretrained(rows)
        self.device, self.config, self.dummy_inputs = rows.device, None, {"x": torch.zeros(1, 1, dtype=torch.int64)}

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x)


def sparsify(rows: Tensor, job: dict) -> Trained:
    from datasets import Dataset
    from sparsify.config import SparseCoderConfig, TrainConfig
    from sparsify.trainer import Trainer

    order = torch.cat([o.flatten() for o in Batches(rows, job).order])[: job["steps"] * job["batch"]]
    data = Dataset.from_dict({"input_ids": order[:, None].tolist()}).with_format("torch")
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            SparseCoderConfig(num_latents=job["latents"], k=job["k"]), batch_size=job["batch"], optimizer=job["kind"].split("-")[1],
            lr=job["lr"], lr_warmup_steps=job["steps"] // 20, auxk_alpha=1 / 32, dead_feature_threshold=job["steps"] * job["batch"] // 4, hookpoints=["rows"], init_seeds=[job["seed"]],
            log_to_wandb=False, save_dir=folder, run_name="run",
        )  # fmt: skip
        trainer = Trainer(config, data, Lookup(rows))  # type: ignore[arg-type]
        trainer.fit()
    coder = trainer.saes["rows"]
    for optimiser in trainer.optimizers:  # the schedule-free one trains other weights than it means to give
        getattr(optimiser, "eval", lambda: None)()
    return lambda x: plain(coder.encoder(x - coder.b_dec)), lambda f: f @ coder.W_dec + coder.b_dec


def judged(trained: Trained, job: dict, calibration: Tensor, x: Tensor) -> dict[str, np.ndarray]:
    acts, decode = trained
    own, bar = {}, torch.zeros(())
    if job["kind"].startswith("topk"):

        def chosen(x: Tensor) -> Tensor:
            top = acts(x)[1].topk(job["k"], dim=1)
            return torch.zeros(len(x), job["latents"], device=x.device).scatter(1, top.indices, top.values)
    else:
        near = torch.cat([margin[value > 0] for margin, value in map(acts, calibration.split(1024))])
        own = {"own_l0": np.array(float((near > 0).sum() / len(calibration)))}
        bar = near.topk(min(job["k"] * len(calibration), len(near)), sorted=False).values.min()

        def chosen(x: Tensor) -> Tensor:
            margin, value = acts(x)
            return value * (margin >= bar)

    if "save" in job:
        eye, none = torch.eye(x.shape[1], device=x.device), torch.zeros(1, x.shape[1], device=x.device)
        bias, codes = acts(none)[0], torch.eye(job["latents"], device=x.device).split(1024)
        b_dec = decode(torch.zeros(1, job["latents"], device=x.device))
        W_dec = torch.cat([decode(part) for part in codes]) - b_dec
        weights = {"W_enc": acts(eye)[0] - bias, "b_enc": bias[0], "W_dec": W_dec, "b_dec": b_dec[0], "threshold": bar}
        np.savez(job["save"], **{name: w.cpu().numpy() for name, w in weights.items()})
    deviation, out = x.std(0), dict(own)
    for name, rows in (("eval", x), ("calibration", calibration)):
        parts = [chosen(part) for part in rows.split(1024)]
        error = torch.cat([part - decode(f) for part, f in zip(rows.split(1024), parts)]).double()
        out |= {name: error.square().sum(1), f"{name}_standardised": (error / deviation).square().sum(1)}
        out[f"{name}_l0"] = torch.cat([(f > 0).sum(1) for f in parts]).double().mean()
    return {name: v.cpu().numpy() if isinstance(v, Tensor) else v for name, v in out.items()}


def main() -> None:
    libraries = {"sae_lens": sae_lens, "dictionary_learning": dictionary_learning, "sparsify": sparsify}
    for path in sys.argv[1:]:
        job = {"device": "cpu"} | json.loads(Path(path).read_text())
        rows, calibration, x = (torch.from_numpy(np.load(job[k])).to(job["device"]) for k in ("train", "calibration", "eval"))
        began = time.perf_counter()
        trained = libraries[job["library"]](rows, job)
        if rows.is_cuda:
            torch.cuda.synchronize()
        seconds = np.array(time.perf_counter() - began)
        with torch.no_grad():
            np.savez(job["out"], **judged(trained, job, calibration, x), seconds=seconds)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
