"""A dictionary for the planted toy model: every coordinate of the residual stream, either sign."""

import torch
from planted_behaviour import DECOY, W

from diascope.dictionaries import Dictionary, DictionaryConfig


def axes(latents=(W, DECOY)):
    """A latent for each sign of each coordinate; the first ones are `latents`."""
    rows = [*latents, *[i for i in range(32) if i not in latents]]
    W_enc = torch.cat([torch.eye(32)[rows], -torch.eye(32)[rows]]).T
    config = DictionaryConfig.single("planted", "L1.resid_post", "L1.resid_post", 32, 32, 64)
    zeros = {"b_enc": torch.zeros(64), "b_dec": torch.zeros(32), "threshold": torch.zeros(64)}
    return Dictionary(config, {"W_enc": W_enc, "W_dec": W_enc.T.clone(), **zeros})
