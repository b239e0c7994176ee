"""One latent of an index as Neuronpedia's rows: Neuron, Activation and Explanation, by the names of its database's columns.

A row is a dict that JSON takes. `Feature` (schema of the site: apps/webapp/prisma/schema.prisma) has no word for our level,
threshold and mean; `Activation` says a value for every token shown, ours has 255 steps of the latent's largest. The strongest
examples have binMin -1 and binContains -1, as SAEDashboard marks them; an interval has its bounds and share.
"""

from __future__ import annotations

from typing import Any

from diascope.latents.exchange.ids import Names
from diascope.latents.store import Example, Index, Source

CREATOR = "clkht01d40000jv08hvalcvly"  # whom Neuronpedia's importer and SAEDashboard write where nobody is named
STRONGEST = -1.0  # binMin and binContains of the strongest examples
STEPS = 255


def neuron(index: Index, source: Source, latent: int, names: Names, creator: str = CREATOR) -> dict[str, Any]:
    """The row of `latent`, with the columns that the site's own export has. IndexError outside the source."""
    record = source.record(latent)
    heights, centres = bars(record.histogram, largest(source, latent))
    return {
        "modelId": names.model,
        "layer": names.source,
        "index": str(latent),
        "maxActApprox": largest(source, latent),
        "creatorId": creator,
        "frac_nonzero": float(source.columns["density"][latent]),
        "freq_hist_data_bar_heights": heights,
        "freq_hist_data_bar_values": centres,
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "neuron_alignment_indices": [],
        "neuron_alignment_l1": [],
        "neuron_alignment_values": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "decoder_weights_dist": [],
        "neg_str": [index.text(token) for token, _ in record.bottom],
        "neg_values": [value for _, value in record.bottom],
        "pos_str": [index.text(token) for token, _ in record.top],
        "pos_values": [value for _, value in record.top],
        "sourceSetName": names.set,
        "topkCosSimIndices": [j for j, _ in record.neighbours],
        "topkCosSimValues": [cosine for _, cosine in record.neighbours],
        "vector": [],
        "vectorLabel": None,
        "hookName": None,
        "vectorDefaultSteerStrength": largest(source, latent),
        "hasVector": False,
    }


def activations(index: Index, source: Source, latent: int, names: Names, creator: str = CREATOR) -> list[dict[str, Any]]:
    """The rows of all examples of `latent`, group after group."""
    out, most = [], largest(source, latent)
    for group in source.record(latent).groups:
        strongest = group.label == "top"
        bounds = (STRONGEST, group.high, STRONGEST) if strongest else (group.low, group.high, group.share)
        for example in group.examples:
            tokens, values = spelled(index, example, most)
            peak = max(range(len(values)), key=values.__getitem__)
            out.append(
                {
                    "id": f"{names.model}/{names.source}/{latent}/{len(out)}",
                    "modelId": names.model,
                    "layer": names.source,
                    "index": str(latent),
                    "creatorId": creator,
                    "dataSource": None,
                    "tokens": tokens,
                    "maxValue": values[peak],
                    "minValue": min(values),
                    "values": values,
                    "maxValueTokenIndex": peak,
                    "dfaValues": [],
                    "dfaMaxValue": None,
                    "dfaTargetIndex": None,
                    "binContains": bounds[2],
                    "binMin": bounds[0],
                    "binMax": bounds[1],
                    "qualifyingTokenIndex": example.peak,
                }
            )
    return out


def explanations(source: Source, latent: int, names: Names, creator: str = CREATOR) -> list[dict[str, Any]]:
    """The rows of all descriptions of `latent`, the one to be shown first; who wrote one stands in `notes`."""
    return [
        {
            "id": f"{names.model}/{names.source}/{latent}/said-{number}",
            "modelId": names.model,
            "layer": names.source,
            "index": str(latent),
            "authorId": creator,
            "description": said.text,
            "embedding": None,
            "typeName": None,  # theirs refer to tables of the site, which has no such entry
            "explanationModelName": None,
            "notes": said.by,
            "umap_x": 0,
            "umap_y": 0,
            "umap_cluster": 0,
            "umap_log_feature_sparsity": 0,
        }
        for number, said in enumerate(source.descriptions(latent))
    ]


def largest(source: Source, latent: int) -> float:
    """The latent's largest activation; 0 where it never fired, or where the index does not say."""
    column = source.columns.get("max_activation")
    return 0.0 if column is None else float(column[latent])


def spelled(index: Index, example: Example, most: float) -> tuple[list[str], list[float]]:
    """An example's tokens as text, and the activation at each, 0 where it does not fire."""
    tokens = [index.text(t) for t in index.tokens[example.sequence, example.first : example.first + example.length]]
    values = [0.0] * example.length
    for offset, level in example.fired:
        values[offset] = level / STEPS * most
    return tokens, values


def bars(histogram: list[int], most: float) -> tuple[list[int], list[float]]:
    """(heights, centres) of a histogram over (0, most] in equal bins."""
    n = len(histogram)
    return list(histogram), [(i + 0.5) * most / n for i in range(n)]
