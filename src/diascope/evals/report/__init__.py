"""Cards and reports that people read: one self-contained HTML file each, from the JSON of evaluation cards.

    card_html("sae", card)                 one dictionary beside its controls, its suite, definitions, facts
    report_html({"a": card, "b": card})    a table across dictionaries and two Pareto plots, then every card

A card is what `Evaluation.card()` gives or `card.json` holds. Nothing is fetched and nothing needs a script: drawings are inline
SVG, colours follow the reader's light or dark, and every string is escaped.
"""

from diascope.evals.report.across import report_html
from diascope.evals.report.card import card_html

__all__ = ["card_html", "report_html"]
