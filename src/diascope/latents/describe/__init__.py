"""Descriptions of latents: made from examples and from output effects, scored so that the scores can be trusted.

windows.gather(...)     training and test windows of chosen latents, from disjoint documents; negatives checked not to fire
template.template(...)  the description that needs no judge, which any other must beat
explain                 a judge's description, from examples or from output effects
scorers/                one family a file; chance levels are exact
run.describe(...)       the whole line: estimate, descriptions, scores, controls, report; it goes on where it stopped
shelf                   descriptions in an index, with full-text search (needs no torch)
"""
