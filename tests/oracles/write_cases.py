"""Write one small dictionary of every kind that each library can hold, with what diascope computes, for peers.py to compare.

python tests/oracles/write_cases.py CASES
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "dictionaries"))
from test_formats import HELD, NOT, make

from diascope.dictionaries import save_dictionary

for library in ("saelens", "sparsify", "circuit-tracer", "dictionary-learning", "llamascopium"):
    kinds, activations = HELD[library]
    for kind in sorted(kinds):
        for activation in sorted(activations):
            if (library, kind, activation) not in NOT:
                d = make(kind, activation)
                folder = save_dictionary(
                    d, Path(sys.argv[1]) / library / f"{kind}-{activation}", format=library, overwrite=True
                )
                x = torch.randn(64, d.config.d_in, generator=torch.Generator().manual_seed(1))
                arrays = {"x": x, "latents": d.encode(x).dense(), "y_hat": d(x)}
                np.savez(folder.with_suffix(".npz"), **{k: v.numpy() for k, v in arrays.items()})
