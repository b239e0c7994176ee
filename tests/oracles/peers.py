"""Have another library load a folder that diascope wrote, and compare what it computes: the oracle behind tests/dictionaries/peers.

    python peers.py CASES OUT.json

CASES is a folder of <library>/<name>/ with the dictionary, and <library>/<name>.npz beside it: x, latents and y_hat as diascope
gives them (`python tests/oracles/write_cases.py CASES` in diascope's own environment). Needs an environment with
sae-lens==6.54.12, eai-sparsify==1.3.3, circuit-tracer==0.5.0, dictionary-learning==0.1.0 (the last two with --no-deps), llamascopium==2.0.0b34.
Prints one line a case: largest absolute difference over largest value, of latents and of outputs.
"""

import json
import os
import sys
import types
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch


def saelens(folder, x):
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    return sae.encode(x), sae(x)


def sparsify(folder, x):
    from sparsify import SparseCoder

    coder = SparseCoder.load_from_disk(folder)
    top = coder.encode(x)
    latents = torch.zeros(len(x), coder.num_latents).scatter(1, top.top_indices, top.top_acts)
    return latents, coder(x).sae_out


def circuit_tracer(folder, x):
    if (folder / "W_enc_0.safetensors").exists():
        from circuit_tracer.transcoder.cross_layer_transcoder import load_clt

        clt = load_clt(str(folder), dtype=torch.float32, lazy_decoder=False)
        n = clt.n_layers
        wide = x.view(len(x), n, -1).transpose(0, 1).contiguous()
        latents, output = clt.encode(wide), clt(wide)
        return latents.transpose(0, 1).reshape(len(x), -1), output.transpose(0, 1).reshape(len(x), -1)
    from circuit_tracer.transcoder.single_layer_transcoder import load_relu_transcoder

    (file,) = folder.glob("layer_*.safetensors")
    t = load_relu_transcoder(str(file), 0, dtype=torch.float32, lazy_encoder=False, lazy_decoder=False)
    return t.encode(x), t(x)


def dictionary_learning(folder, x):
    # its package imports nnsight for training; loading a dictionary needs none of it
    for name in ("nnsight", "zstandard", "umap", "circuitsvis", "circuitsvis.activations", "nnsight.intervention"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["nnsight"].LanguageModel = object
    from dictionary_learning.utils import load_dictionary

    d, _ = load_dictionary(str(folder), "cpu")
    return d.encode(x), d(x)


def llamascopium(folder, x):
    from llamascopium.models.sparse_dictionary import SparseDictionary

    config = json.loads((folder / "config.json").read_text())
    if config["sae_type"] == "clt":
        from llamascopium.models.clt import CrossLayerTranscoder

        clt = CrossLayerTranscoder.from_local(str(folder))
        latents = clt.encode(x.view(len(x), clt.cfg.n_layers, -1))
        return latents.reshape(len(x), -1), clt.decode(latents, batch_first=True).reshape(len(x), -1)
    from llamascopium.models.sae import SparseAutoEncoder

    sae = SparseAutoEncoder.from_local(str(folder))
    assert isinstance(sae, SparseDictionary)
    latents = sae.encode(x)
    return latents, sae.decode(latents)


LIBRARIES = {
    "saelens": saelens,
    "sparsify": sparsify,
    "circuit-tracer": circuit_tracer,
    "dictionary-learning": dictionary_learning,
    "llamascopium": llamascopium,
}


def main() -> None:
    cases, found = Path(sys.argv[1]), {}
    for library, run in LIBRARIES.items():
        for folder in sorted(p for p in (cases / library).iterdir() if p.is_dir()):
            ours = {k: torch.from_numpy(v) for k, v in np.load(folder.with_suffix(".npz")).items()}
            with torch.no_grad():
                latents, y_hat = run(folder, ours["x"])
            error = [
                float((a - b).abs().max() / b.abs().max()) for a, b in ((latents, ours["latents"]), (y_hat, ours["y_hat"]))
            ]
            found[f"{library} {folder.name}"] = error
            print(f"{library:20s} {folder.name:30s} latents {error[0]:.1e}  output {error[1]:.1e}")
    Path(sys.argv[2]).write_text(json.dumps(found, indent=1))


main()
