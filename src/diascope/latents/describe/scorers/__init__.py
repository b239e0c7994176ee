"""Scores of descriptions. Every score says what chance gives, how many judgements it rests on, and how many answers were unreadable.

With a judge        detection, fuzzing, simulation (of a description); intruder (of the latent itself)
Without             overlap (TF-IDF), embedding (MiniLM), surprisal (the subject's own losses), output (what steering promotes)
Of the latent alone lookup (how far the token alone predicts the activation), purity (do its documents share a label)
"""
