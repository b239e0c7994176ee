"""Does a model's vector of an entity say whether the model knows it, when the model answers either way?

Plain text for base models: each case is an example and a line that asks for one attribute of an entity ("... is in the country of").
Four types of entity: countries (capital), chemical elements (symbol), books (author), animals (young); cities (country) are
added from GeoNames by the package, where it is there. entities.py says which entities count as known and how it goes on.
"""

from __future__ import annotations

from diascope import rng
from diascope.audits.cases import Case, CaseSet
from diascope.audits.entities import carry_out
from diascope.audits.experiment import Experiment

COUNTRIES = {
    "France": "Paris", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens",
    "Austria": "Vienna", "Portugal": "Lisbon", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw", "Hungary": "Budapest",
    "Cuba": "Havana", "Peru": "Lima", "Kenya": "Nairobi", "Iran": "Tehran", "Iraq": "Baghdad", "Turkey": "Ankara", "Thailand": "Bangkok",
    "Nepal": "Kathmandu", "Mongolia": "Ulaanbaatar", "Latvia": "Riga", "Estonia": "Tallinn", "Croatia": "Zagreb", "Bulgaria": "Sofia",
    "Romania": "Bucharest", "Uganda": "Kampala", "Ghana": "Accra", "Senegal": "Dakar", "Angola": "Luanda", "Malawi": "Lilongwe", "Benin": "Porto",
    "Togo": "Lom", "Bhutan": "Thimphu", "Fiji": "Suva", "Tonga": "Nuku", "Samoa": "Apia", "Oman": "Muscat", "Jordan": "Amman", "Laos": "Vientiane",
    "Burundi": "Gitega", "Eritrea": "Asmara", "Lesotho": "Maseru", "Suriname": "Paramaribo", "Guyana": "Georgetown", "Moldova": "Chi",
}  # fmt: skip
ELEMENTS = {
    "hydrogen": "H", "oxygen": "O", "carbon": "C", "nitrogen": "N", "sodium": "Na", "gold": "Au", "silver": "Ag", "iron": "Fe", "copper": "Cu",
    "helium": "He", "neon": "Ne", "calcium": "Ca", "potassium": "K", "lead": "Pb", "tin": "Sn", "mercury": "Hg", "zinc": "Zn", "iodine": "I",
    "sulfur": "S", "phosphorus": "P", "argon": "Ar", "krypton": "Kr", "xenon": "Xe", "radon": "Rn", "tungsten": "W", "antimony": "Sb",
    "yttrium": "Y", "niobium": "Nb", "hafnium": "Hf", "osmium": "Os", "thulium": "Tm", "terbium": "Tb", "erbium": "Er", "gallium": "Ga",
    "rhenium": "Re", "lutetium": "Lu", "promethium": "Pm", "protactinium": "Pa", "dysprosium": "Dy", "ruthenium": "Ru",
}  # fmt: skip
BOOKS = {
    "Hamlet": "William Shakespeare", "Oliver Twist": "Charles Dickens", "War and Peace": "Leo Tolstoy", "The Trial": "Franz Kafka",
    "Pride and Prejudice": "Jane Austen", "Moby-Dick": "Herman Melville", "Ulysses": "James Joyce", "The Odyssey": "Homer", "Faust": "Johann Wolfgang",
    "Don Quixote": "Miguel de Cervantes", "Candide": "Voltaire", "Dracula": "Bram Stoker", "Frankenstein": "Mary Shelley", "Emma": "Jane Austen",
    "The Divine Comedy": "Dante", "Les Miserables": "Victor Hugo", "Animal Farm": "George Orwell", "Brave New World": "Aldous Huxley",
    "The Idiot": "Fyodor Dostoevsky", "Middlemarch": "George Eliot", "Walden": "Henry David Thoreau", "Leviathan": "Thomas Hobbes",
    "Persuasion": "Jane Austen", "Kim": "Rudyard Kipling", "Nostromo": "Joseph Conrad", "Buddenbrooks": "Thomas Mann", "Hunger": "Knut Hamsun",
    "Effi Briest": "Theodor Fontane", "Oblomov": "Ivan Goncharov", "Germinal": "Emile Zola", "Orlando": "Virginia Woolf", "Silas Marner": "George Eliot",
    "The Leopard": "Giuseppe Tomasi", "Barchester Towers": "Anthony Trollope", "Cranford": "Elizabeth Gaskell", "The Egoist": "George Meredith",
}  # fmt: skip
ANIMALS = {
    "cat": "kitten", "dog": "puppy", "cow": "calf", "horse": "foal", "sheep": "lamb", "goat": "kid", "pig": "piglet", "duck": "duckling",
    "hen": "chick", "bear": "cub", "lion": "cub", "frog": "tadpole", "deer": "fawn", "kangaroo": "joey", "swan": "cygnet", "goose": "gosling",
    "owl": "owlet", "eagle": "eaglet", "whale": "calf", "elephant": "calf", "seal": "pup", "wolf": "pup", "hare": "leveret", "salmon": "fry",
    "eel": "elver", "pigeon": "squab", "turkey": "poult", "rabbit": "kit", "fox": "kit", "otter": "pup", "camel": "calf", "zebra": "foal",
}  # fmt: skip
TYPES = (  # (type, prompt, attributes)
    ("country", "The capital of Italy is Rome. The capital of China is Beijing. The capital of {e} is", COUNTRIES),
    ("element", "The symbol of lithium is Li. The symbol of uranium is U. The symbol of {e} is", ELEMENTS),
    ("book", "Macbeth was written by William Shakespeare. Anna Karenina was written by Leo Tolstoy. {e} was written by", BOOKS),
    ("animal", "A young tiger is called a cub. A young donkey is called a foal. A young {e} is called a", ANIMALS),
)


def cases(seed: int = 0) -> CaseSet:
    """One case an entity, its type as the source; the seed shuffles their order."""
    found = [case(kind, prompt, e, answer) for kind, prompt, answers in TYPES for e, answer in answers.items()]
    order = rng.generator(seed, "hallucination").permutation(len(found))
    return CaseSet("hallucination", tuple(found[i] for i in order), "CC0-1.0", "written for diascope", seed)


def case(kind: str, prompt: str, entity: str, answer: str) -> Case:
    """The line that asks for an entity's attribute."""
    message = {"role": "user", "content": prompt.format(e=entity)}
    return Case(f"{kind}-{entity}", (message,), "asked", f"{kind}-{entity}", kind, answer=answer, spans={"entity": entity})


HALLUCINATION = Experiment(
    name="hallucination",
    asks="Do its vectors tell entities that it knows from those about which it makes something up?",
    cases=cases,
    sides=("asked",),
    carry_out=carry_out,
    least=0.1,
    plain=True,
    limits=(
        "known means: the first attempt names the right attribute in one form that we expect; one attribute stands for an entity",
        "no abstention: a base model cannot say that it does not know, so no edit is tried and nothing here is causal",
    ),
)
