"""Cards and reports as pages: nothing of a card is lost or let through as markup, and drawings say what the numbers say."""

import itertools
import random
import re
from html.parser import HTMLParser

import pytest

from diascope.evals.report import card_html, report_html
from diascope.evals.report.across import shorter
from diascope.evals.report.bars import axis, bar
from diascope.evals.report.labels import LETTER
from diascope.evals.report.plot import Point, front, pareto, scale, ticks
from diascope.page.numbers import Number, number, shown

VOID = {"meta", "br", "line", "rect", "path", "circle"}
NASTY = "<script>alert(1)</script> & \"a\" 'b' " + "x" * 120


def estimate(value, rel=0.1):
    return {"value": value, "low": value - abs(value) * rel, "high": value + abs(value) * rel, "n": 4000, "documents": 40}


def make_card(l0=60.0, fvu=0.14, ce=0.2, site="L9.resid_post", kind="sae", **more):
    def row(f, c):
        return {"fvu": estimate(f), "delta_ce": estimate(c), "ce": estimate(3 + c), "kl": estimate(c)}

    metrics = {
        "clean": {"ce": estimate(3.0)},
        "dictionary": row(fvu, ce) | {"l0": estimate(l0), "dead": estimate(0.041), "dense": 0.0},
        "mean": row(1.0, 9.0) | {"recovered": 0.0},
        "pca": row(2 * fvu, 3 * ce),
        "token_pca": row(1.2 * fvu, 1.5 * ce),
    }
    facts = {
        "model": "toy", "kind": kind, "sites_in": [site], "sites_out": [site], "tokens": 4000, "predictions": 1000, "documents": 40,
        "text": "a text", "data": "00ff", "seed": 0,
    }  # fmt: skip
    return {"schema": "diascope-card-1", "metrics": metrics, "facts": facts, **more}


SUITE = {
    "probing": {
        "config": {"type": "Probing", "ks": [1, 5]},
        "run": {"tasks": 24},
        "result": {"auroc k1": estimate(0.71), "auroc k5": 0.8123},
        "controls": {"random dictionary": {"auroc k1": estimate(0.55)}, "dense": {"auroc all dimensions": 0.9712}},
        "details": {"tasks": {"one_task": {"k1": 0.66, "k5": 0.7}}},
    },
    "absorption": {"config": {}, "run": {"reason": "18 letters pass and 20 are needed"}, "result": {"absorption": None}, "controls": {}},
}  # fmt: skip


ATTRIBUTES = {"lang", "charset", "name", "content", "class", "scope", "title", "data-value", "x", "y", "text-anchor", "style"}
SHAPES = set(
    "viewbox role aria-label aria-hidden preserveaspectratio x1 x2 y1 y2 cx cy r d fill stroke width height vector-effect".split()
)


class Read(HTMLParser):
    """Tags in order, text, and whether every tag is closed by its own end."""

    def __init__(self, markup):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(markup)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def words_of(markup):
    return " ".join(" ".join(Read(markup).text).split())


def test_a_card_shows_every_number_of_every_row_with_its_interval():
    parts = {"position": {p: {"fvu": estimate(v)} for p, v in (("1-15", 0.31), ("256-1023", 0.21), ("64-255", 0.17))}}
    card = make_card(suite=SUITE, by=parts, latent_scaling={"a": {"own": 17}})
    text = words_of(card_html("mine", card))
    entries = [v for row in card["metrics"].values() for v in row.values()]
    entries += [v for e in SUITE.values() for r in (e["result"], *e["controls"].values()) for v in r.values() if v is not None]
    for entry in entries:
        n = number(entry)
        assert shown(n.value) in text
        if n.half is not None:
            assert f"{shown(n.low)} to {shown(n.high)}" in text
    for name in (
        "per-token PCA",
        "fixed PCA",
        "mean vector",
        "random dictionary",
        "auroc k5",
        "18 letters pass",
        "one task",
        "0.66",
    ):
        assert name in text or name.replace(" ", "_") in text, name
    assert text.index("64-255") < text.index("256-1023")
    assert "4,000 tokens" in text and "40 documents" in text and "Sparse autoencoder at L9.resid_post of toy" in text


@pytest.mark.parametrize("make", [card_html, lambda name, card: report_html({name: card, "other": make_card()})])
def test_strings_of_a_card_are_text(make):
    card = make_card(site=NASTY, kind=NASTY, **{NASTY: {NASTY: [NASTY, {NASTY: NASTY}]}})
    card["suite"] = {
        NASTY: {"config": {NASTY: NASTY}, "run": {"reason": NASTY}, "result": {NASTY: 1.0}, "controls": {NASTY: {NASTY: 2.0}}}
    }
    card["metrics"]["dictionary"][NASTY] = 0.5
    for key in ("model", "text", "data", "seed"):
        card["facts"][key] = NASTY
    markup = make(NASTY, card)
    read = Read(markup)
    assert read.tags.count("script") == (0 if make is card_html else 1)
    assert {name for tag, name, _ in read.attributes if tag not in ("svg", "line", "rect", "path", "circle")} <= ATTRIBUTES
    assert all(name in ATTRIBUTES | SHAPES for _, name, _ in read.attributes)
    assert NASTY in "".join(read.text)


def test_pages_need_nothing_from_elsewhere():
    for markup in (card_html("a", make_card(suite=SUITE)), report_html({"a": make_card(), "b": make_card(30)})):
        assert not re.search(r"https?:|url\(|@import|\bsrc=|\bhref=", markup)
        assert markup.startswith("<!doctype html>") and "prefers-color-scheme: dark" in markup


def test_many_sites_are_said_in_few_words():
    card = make_card(kind="clt")
    card["facts"] |= {f"sites_{w}": [f"L{i}.mlp_{w}" for i in range(18)] for w in ("in", "out")}
    text = words_of(card_html("mine", card))
    assert "Cross-layer transcoder from L0.mlp_in, L1.mlp_in, …, L17.mlp_in (18 sites) to L0.mlp_out" in text


def test_what_is_missing_is_left_out():
    empty = {"metrics": {"dictionary": {"l0": {"value": None, "low": None, "high": None}, "fvu": None}}, "facts": {}}
    one_document = make_card()
    one_document["metrics"]["dictionary"]["delta_ce"] = {"value": -0.004, "low": None, "high": None, "n": 9, "documents": 1}
    for card in (empty, one_document):
        assert "None" not in words_of(card_html("x", card)) and "nan" not in card_html("x", card)
    text = words_of(report_html({"empty": empty, "one": one_document, "full": make_card(30)}))
    assert "1 without FVU or L0 is not drawn" in text and "−0.004" in text
    with pytest.raises(ValueError, match="no metrics"):
        card_html("x", {})
    with pytest.raises(ValueError, match="no metrics"):
        report_html({"x": {"facts": {}}})
    with pytest.raises(ValueError, match="no card"):
        report_html({})


def test_a_report_orders_by_target_and_l0_and_marks_the_best_of_each_target():
    cards = {
        "far": make_card(90, 0.10, 0.5), "else": make_card(10, 0.01, 0.1, site="L3.resid_post"), "near": make_card(20, 0.30, 0.2),
        "alone": make_card(15, 0.5, 0.9, site="L5.resid_post"),
    }  # fmt: skip
    table = report_html(cards).partition("<tbody>")[2].partition("</tbody>")[0]
    rows = dict(re.findall(r'<tr><th scope="row" title="(.*?)">.*?</th>(.*?)</tr>', table))
    assert list(rows) == ["near", "far", "else", "alone"]
    best = {name: re.findall(r'class="num best" data-value="(.*?)"', row) for name, row in rows.items()}
    assert best["far"][0] == "0.1" and best["near"][0] == "0.2" and not best["else"] and not best["alone"]


def test_a_front_is_what_nothing_beats():
    r = random.Random(0)
    for n in range(1, 30):
        points = [Point(str(i), 0, Number(r.randint(1, 8)), Number(r.randint(1, 8))) for i in range(n)]
        xy = [(p.x.value, p.y.value) for p in points]
        undominated = {a for a in xy if not any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in xy)}
        found = [xy[i] for i in front(range(n), points)]
        assert set(found) == undominated and found == sorted(found) and len(found) == len(undominated)


def boxes(svg):
    found = re.findall(r'<text class="label" x="([\d.-]+)" y="([\d.-]+)">(.*?)</text>', svg)
    return [(float(x), float(y) - 10.5, float(x) + LETTER * len(name), float(y) + 3.5) for x, y, name in found]


@pytest.mark.parametrize("spread", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("width", [350.0, 680.0])
def test_labels_do_not_overlap_and_stay_inside(spread, width):
    r = random.Random(1)
    points = [
        Point(f"a rather long name {i:02d}", i % 2, Number(60 * (1 + spread * r.random())), Number(0.1 * (1 + spread * r.random())),
              {"token_pca": 0.13})
        for i in range(12)
    ]  # fmt: skip
    svg = pareto(points, "FVU", width=width, letters=24 if width > 500 else 14, place="wide")
    found = boxes(svg)
    assert not [1 for a, b in itertools.combinations(found, 2) if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]
    assert all(a[0] >= 0 and a[2] <= width and a[1] >= 0 for a in found)
    assert len(found) == 12 or width < 500
    assert svg.count('<circle class="point"') == 12 and svg.count('class="control"') == 12


def test_scales_and_ticks():
    heights = [float(y) for y in re.findall(r'class="control" cx="[\d.]+" cy="([\d.]+)"', pareto(
        [Point("a", 0, Number(20), Number(0.1), {"token_pca": 0.3}), Point("b", 0, Number(60), Number(0.1), {"token_pca": 9.0})],
        "FVU", width=680, letters=10, place="wide",
    ))]  # fmt: skip
    assert heights[0] > heights[1] == 14.0  # near controls lie on the axis, a hopeless one at its edge
    for low, high, log in ((1.0, 240.0, True), (0.1, 0.13, True), (-0.01, 0.4, False), (3.0, 3.0, False), (5.0, 5.0, True)):
        to, marks = scale([low, high], 0.0, 100.0, log=log)
        assert 0 < to(low) <= to(high) < 100 and to(-1e9) == 0 and to(1e9) == 100
        assert marks == sorted(marks) and all(0 <= to(v) <= 100 for v in marks) and 1 <= len(marks) <= 12
    assert ticks(1, 100, log=True) == [1, 2, 5, 10, 20, 50, 100]


def test_an_axis_is_made_for_the_dictionary_and_what_is_near_it():
    rows = {"dictionary": Number(0.2, 0.1, 0.3), "pca": Number(0.6), "mean": Number(9.0)}
    assert axis(rows) == (0.0, 0.6)
    assert "<path" in bar(Number(0.61), 0.0, 0.6) and "<path" not in bar(rows["pca"], 0.0, 0.6)
    assert axis({"a": Number(-0.2, -0.3, -0.1), "dictionary": Number(0.1)}) == (-0.3, 0.1)
    assert axis({"dictionary": Number(0.0)}) == (0.0, 1.0)


def test_numbers_are_short_and_what_is_none_is_no_number():
    assert [shown(v) for v in (12345.6, 59.83, 0.1371, -0.004, 0.0, 3.2e-5)] == [
        "12,346",
        "59.8",
        "0.137",
        "−0.004",
        "0.000",
        "3.2e−05",
    ]
    assert [number(v) for v in (None, float("nan"), "0.5", True, {"value": None}, [], {})] == [None] * 7


def test_shorter_names_stay_different():
    names = [f"scope/layer_9_width_{w}k_l0_{k}/params" for w in (16, 65) for k in (10, 100)]
    assert list(shorter(names).values()) == ["16k_l0_10", "16k_l0_100", "65k_l0_10", "65k_l0_100"]
    for some in (["a"], ["a/b", "a/b/c"], ["x-1", "x-1-1"], ["same", "other"]):
        short = shorter(some)
        assert len(set(short.values())) == len(some) and all(short.values())


@pytest.mark.page
def test_pages_fit_a_phone_and_a_desk(browser):
    cards = {f"{NASTY} {i}": make_card(20 * 2**i, 0.3 / 2**i, 0.4 / 2**i, suite=SUITE) for i in range(3)}
    pages = {"card": card_html(NASTY, cards[f"{NASTY} 0"]), "report": report_html(cards)}
    for (name, markup), width in itertools.product(pages.items(), (360, 1600)):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.set_content(markup)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
        if name == "report":
            page.click("table.sortable thead button >> text=FVU")
            rows = page.locator("table.sortable").first.locator("tbody tr")
            values = [float(v) for v in rows.evaluate_all("rows => rows.map(r => r.cells[2].dataset.value)")]
            assert values == sorted(values) and len(values) == 3
        page.close()
