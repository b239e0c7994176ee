"""Prompts and text on which an edit of a behaviour should change nothing: for the damage gate. Written by us, CC0."""

from __future__ import annotations

from diascope.audits.cases import Case

_PROMPTS = (
    "Name three vegetables that grow in a cold garden.",
    "How long should I boil an egg?",
    "Explain what a library card is for.",
    "What is the difference between a lake and a river?",
    "Give me a title for a story about a lighthouse.",
    "Which season comes after winter?",
    "Describe the smell of fresh bread.",
    "How do bees make honey?",
    "What do I need to paint a wooden fence?",
    "Tell me about the moon in two sentences.",
    "Suggest a name for a small grey cat.",
    "Why do leaves turn yellow?",
    "How can I keep my bicycle chain clean?",
    "Write one line about the sea.",
    "What does a baker do in the morning?",
    "List four things to pack for a picnic.",
)

TEXTS = (
    "The ferry left the harbour a little after seven. On the upper deck two children counted the gulls that followed the ship, and "
    "their father read the weather report aloud: wind from the west, light showers in the afternoon, clear skies at night.",
    "To repot a plant, choose a pot that is slightly larger than the old one. Put some gravel at the bottom, so that water can run "
    "off, and fill it half with soil. Loosen the roots with your fingers before you set the plant in, and water it well.",
    "The town hall was built of red brick more than a century ago. Its clock has stopped twice since then, once in a very cold winter "
    "and once when a pigeon built a nest behind the hands. The mayor at the time decided to wait until the young birds had flown.",
    "A map shows a large piece of land on a small piece of paper. The scale says how many steps on the ground one inch of the map "
    "stands for. Blue lines are rivers, green areas are woods, and the thin brown lines join places of the same height.",
    "In the evening the market closes and the farmers load what is left into their vans. Carrots and potatoes keep for weeks, but "
    "berries and salad have to be sold, given away or eaten the same day, and so the last hour is the cheapest.",
    "Sound needs something to travel through. In air it covers about a third of a kilometre each second, in water more than four "
    "times as much, and in steel even more. In empty space there is nothing to carry it, and so there it is silent.",
)

_QUESTIONS = (
    ("What colour is the sky on a clear day?", "blue", "green"),
    ("How many legs does a dog have?", "four", "nine"),
    ("Is ice hot or cold?", "cold", "hot"),
    ("Which animal says meow?", "cat", "horse"),
    ("Do fish live in water or in trees?", "water", "trees"),
    ("What is the opposite of up?", "down", "round"),
    ("Which is larger, an elephant or a mouse?", "elephant", "mouse"),
    ("What do we drink, milk or sand?", "milk", "sand"),
    ("What comes after Monday?", "Tuesday", "Friday"),
    ("Is snow white or black?", "white", "black"),
    ("What do birds use to fly?", "wings", "shoes"),
    ("Where does the sun rise?", "east", "west"),
    ("Which is a fruit, an apple or a hammer?", "apple", "hammer"),
    ("How many days has a week?", "seven", "twenty"),
    ("Is a stone hard or soft?", "hard", "soft"),
    ("What do we read, books or soup?", "books", "soup"),
)


def prompts() -> list[Case]:
    """Ordinary requests."""
    return [Case(f"neutral-{i}", ({"role": "user", "content": p},), "neutral", str(i)) for i, p in enumerate(_PROMPTS)]


def questions() -> list[Case]:
    """Easy questions with a right and a wrong word."""
    return [
        Case(
            f"question-{i}", ({"role": "user", "content": f"{q} Answer with one word."},), "question", str(i),
            choices=(right.capitalize(), wrong.capitalize()), answer=right.capitalize(),
        )
        for i, (q, right, wrong) in enumerate(_QUESTIONS)
    ]  # fmt: skip
