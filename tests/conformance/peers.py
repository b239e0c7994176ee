"""The same checks on other libraries as released; prints the table as markdown.

    python peers.py > table.md

Needs an environment with sae-lens==6.54.12, eai-sparsify==1.3.3 and, with --no-deps, dictionary-learning==0.1.0
(tests/oracles/peers.py has the same one). Run it in this folder, so that checks.py is found.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from checks import markdown, table

D, S, K = 16, 64, 4


def graded(roles: dict[str, Tensor], loss: Tensor) -> dict[str, Tensor]:
    """Gradients of `loss` by role; zeros where none arrives."""
    for p in roles.values():
        p.grad = None
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in roles.items()}


class SAELens:
    """TopK, BatchTopK, JumpReLU and standard training SAEs."""

    exact = True

    def __init__(self, kind: str, seed: int) -> None:
        from sae_lens.saes import batchtopk_sae, jumprelu_sae, standard_sae, topk_sae

        module = {"topk": topk_sae, "batchtopk": batchtopk_sae, "jumprelu": jumprelu_sae, "standard": standard_sae}[kind]
        prefix = {"topk": "TopK", "batchtopk": "BatchTopK", "jumprelu": "JumpReLU", "standard": "Standard"}[kind]
        config, cls = (getattr(module, f"{prefix}TrainingSAE{end}") for end in ("Config", ""))
        extra = {"topk": {"k": K}, "batchtopk": {"k": K}, "jumprelu": {"jumprelu_bandwidth": 0.5, "l0_coefficient": 0.05}}
        torch.manual_seed(seed)
        self.sae = cls(config(d_in=D, d_sae=S, dtype="float64", device="cpu", **extra.get(kind, {})))
        self.kind, self.unit_decoder = kind, False
        self.coefficients = {"jumprelu": {"l0": 0.05}, "standard": {"l1": 0.05}}.get(kind, {})
        with torch.no_grad():
            self.sae.b_enc += 0.01
            if kind == "jumprelu":
                self.sae.log_threshold.fill_(-0.9) if hasattr(self.sae, "log_threshold") else self.sae.threshold.fill_(0.4)

    def params(self) -> dict[str, Tensor]:
        # W_enc one row a latent: a view of theirs, so that writing reaches it
        return {"W_enc": self.sae.W_enc.data.t(), "b_enc": self.sae.b_enc.data, "W_dec": self.sae.W_dec.data, "b_dec": self.sae.b_dec.data} | (
            {"threshold": self.sae.threshold.data} if self.kind == "jumprelu" else {})  # fmt: skip

    def encode(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            found = self.sae.encode(x)
        return found.to_dense() if found.is_sparse else found

    def active(self, x: Tensor) -> Tensor:
        return self.encode(x) > 0

    def _loss(self, x: Tensor, dead: Tensor | None) -> Tensor:
        from sae_lens.saes.sae import TrainStepInput

        step = TrainStepInput(x, self.coefficients, dead, n_training_steps=100, is_logging_step=False)
        return self.sae.training_forward_pass(step).loss

    def gradients(self, x: Tensor, dead: Tensor | None) -> dict[str, Tensor]:
        roles = {"W_enc": self.sae.W_enc, "b_enc": self.sae.b_enc, "W_dec": self.sae.W_dec, "b_dec": self.sae.b_dec}
        if self.kind == "jumprelu":
            roles["threshold"] = getattr(self.sae, "log_threshold", self.sae.threshold)
        g = graded(roles, self._loss(x, dead))
        return g | {"W_enc": g["W_enc"].t()}

    def loss(self, x: Tensor) -> float:
        with torch.no_grad():
            return float(self._loss(x, None))

    def step(self, x: Tensor) -> None:
        raise NotImplementedError


class Sparsify:
    """sparsify's SparseCoder with its fused encoder."""

    exact, unit_decoder = True, True

    def __init__(self, seed: int) -> None:
        from sparsify import SparseCoder
        from sparsify.config import SparseCoderConfig

        torch.manual_seed(seed)
        self.coder = SparseCoder(D, SparseCoderConfig(num_latents=S, k=K), dtype=torch.float64)
        with torch.no_grad():
            self.coder.encoder.bias += 0.01
        self.optimiser = torch.optim.Adam(self.coder.parameters(), lr=1e-3)

    def params(self) -> dict[str, Tensor]:
        c = self.coder
        return {"W_enc": c.encoder.weight.data, "b_enc": c.encoder.bias.data, "W_dec": c.W_dec.data, "b_dec": c.b_dec.data}

    def encode(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            top = self.coder.encode(x)
        return torch.zeros(len(x), S, dtype=x.dtype).scatter(1, top.top_indices, top.top_acts)

    def active(self, x: Tensor) -> Tensor:
        return self.encode(x) > 0

    def gradients(self, x: Tensor, dead: Tensor | None) -> dict[str, Tensor]:
        c, out = self.coder, self.coder(x, dead_mask=dead)
        roles = {"W_enc": c.encoder.weight, "b_enc": c.encoder.bias, "W_dec": c.W_dec, "b_dec": c.b_dec}
        return graded(roles, out.fvu + out.auxk_loss / 32)

    def loss(self, x: Tensor) -> float:
        with torch.no_grad():
            return float(self.coder(x).fvu)

    def step(self, x: Tensor) -> None:
        self.optimiser.zero_grad()
        self.coder(x).fvu.backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimiser.step()
        self.coder.set_decoder_norm_to_unit_norm()


class DictionaryLearning:
    """dictionary_learning's TopK and BatchTopK trainers."""

    exact, unit_decoder = False, True  # losses are cast to float32 inside

    def __init__(self, kind: str, seed: int) -> None:
        for name in ("nnsight", "zstandard", "umap", "circuitsvis", "circuitsvis.activations", "wandb"):
            sys.modules.setdefault(name, types.ModuleType(name))
        sys.modules["nnsight"].LanguageModel = object
        from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
        from dictionary_learning.trainers.top_k import TopKTrainer

        cls = TopKTrainer if kind == "topk" else BatchTopKTrainer
        self.t = cls(
            steps=1000, activation_dim=D, dict_size=S, k=K, layer=0, lm_name="m", seed=seed, device="cpu", warmup_steps=0
        )
        self.ae = self.t.ae
        with torch.no_grad():
            self.ae.encoder.bias += 0.01

    def params(self) -> dict[str, Tensor]:
        a = self.ae
        return {
            "W_enc": a.encoder.weight.data,
            "b_enc": a.encoder.bias.data,
            "W_dec": a.decoder.weight.data.t(),
            "b_dec": a.b_dec.data,
        }

    def encode(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.ae.encode(x)

    def active(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.ae.encode(x, use_threshold=False) > 0

    def gradients(self, x: Tensor, dead: Tensor | None) -> dict[str, Tensor]:
        self.t.num_tokens_since_fired = torch.zeros(S, dtype=torch.long)
        if dead is not None:
            self.t.num_tokens_since_fired[dead] = 10**9
        a = self.ae
        roles = {"W_enc": a.encoder.weight, "b_enc": a.encoder.bias, "W_dec": a.decoder.weight, "b_dec": a.b_dec}
        g = graded(roles, self.t.loss(x, step=0))
        return g | {"W_dec": g["W_dec"].t()}

    def loss(self, x: Tensor) -> float:
        self.t.num_tokens_since_fired = torch.zeros(S, dtype=torch.long)
        with torch.no_grad():
            return float(self.t.loss(x, step=0))

    def step(self, x: Tensor) -> None:
        self.t.update(1, x)


MAKERS = {
    "SAELens TopK": lambda seed: SAELens("topk", seed),
    "SAELens BatchTopK": lambda seed: SAELens("batchtopk", seed),
    "SAELens JumpReLU": lambda seed: SAELens("jumprelu", seed),
    "SAELens standard": lambda seed: SAELens("standard", seed),
    "sparsify TopK": lambda seed: Sparsify(seed),
    "dictionary_learning TopK": lambda seed: DictionaryLearning("topk", seed),
    "dictionary_learning BatchTopK": lambda seed: DictionaryLearning("batchtopk", seed),
}

if __name__ == "__main__":
    print(markdown(table(MAKERS)))
