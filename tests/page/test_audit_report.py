"""The report of an audit: every number of audit.json is in it, nothing is fetched, nothing that was written becomes markup."""

import copy
import html
import re
from html.parser import HTMLParser

import pytest

from audits_made import CAUSAL, audit_data, estimate
from diascope.audits.record import FORMAT
from diascope.audits.verdict import VERDICTS
from diascope.page.audit import read, report_html, report_parts
from diascope.page.audit.document import MEANINGS
from diascope.page.audit.marks import SIGNS, Axis, Row, rows
from diascope.page.numbers import shown

HOSTILE = "</style></p>\"'><script>alert(1)</script><img src=x onerror=alert(2)> &amp; \ud83d ${x} 漢字"


class Tags(HTMLParser):
    """Elements of a page, checking that each that is opened is closed."""

    VOID = {"meta", "link", "br", "img", "line", "rect", "path", "input"}  # noqa: RUF012

    def __init__(self, markup):
        super().__init__()
        self.open, self.found, self.said = [], [], []
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.said.append(data)


def estimates(data, path=()):
    """Every {value, n, ...} of an audit with where it stands."""
    if isinstance(data, dict):
        if {"value", "low", "high"} <= set(data) and data["value"] is not None:
            yield path, data
        for key, value in data.items():
            yield from estimates(value, (*path, key))
    elif isinstance(data, list):
        for k, value in enumerate(data):
            yield from estimates(value, (*path, k))


def test_every_estimate_is_shown_with_interval_n_split_and_seed():
    audit = audit_data()
    page = Tags(report_html(audit))
    tips = [a["data-tip"] for _, a in page.found if "data-tip" in a]
    told = list(estimates(audit["results"]))
    assert len(told) > 20
    for path, e in told:
        wanted = [f"{shown(e['low'])} to {shown(e['high'])}", f"n {e['n']}"] + [
            f"{k} {e[k]}" for k in ("split", "seed") if k in e
        ]
        assert any(all(w in t for w in wanted) for t in tips), (path, wanted)
    tipped = [a for _, a in page.found if "data-tip" in a]
    assert all(a.get("tabindex") == "0" for a in tipped)  # reached by keyboard too
    assert "@media print { .n[data-tip]::after" in report_html(audit)


def test_the_verdicts_the_hashes_and_what_was_not_tested_are_said():
    audit = audit_data()
    audit["facts"]["dictionary"] = None
    said = " ".join(Tags(report_html(audit)).said)
    for key in ("model", "model_sha256", "config_hash"):
        assert str(audit["facts"][key]) in said
    assert "unvalidated at this size" in said and "no dictionary was given" in said
    assert "causes were not tried, since the behaviour was not shown: quiet" in said
    assert "No verdict says that a model is honest, faithful or safe" in said
    for r in audit["results"]:
        assert r["verdict"] in said and r["why"] in said
        assert all(f["claim"] in said and f["why"] in said for f in r["findings"])


def test_what_failed_is_told_and_what_held_is_not():
    audit = audit_data()
    part = lambda name: report_html(audit).split(f"{name} <span")[1].split("What failed</h3>")[1].split("<details>")[0]  # noqa: E731
    assert "Nothing that was tried" in part("loud")
    trial = audit["results"][0]["findings"][2]["numbers"]["trials"][CAUSAL]
    trial["passed"], trial["p"], trial["p_family"]["covariance"] = False, 0.4, 0.4
    assert "controls that do as much: covariance" in part("loud") and "cases: length alone" in part("quiet")


def test_what_a_dictionary_does_not_read_and_what_it_loses_are_said():
    audit = audit_data()
    said = lambda: " ".join(Tags(report_html(audit)).said)  # noqa: E731
    assert "of what differs between cases at last" in said() and "0.750" in said()
    assert "Left out: last-1, special tokens" in said() and "It passes." in said() and "it loses what differs" not in said()
    (found,) = (f for f in audit["results"][0]["findings"] if f["name"] == "sparse")
    found["numbers"]["fidelity"] |= {"within": {"last": 1.5}, "left_out": []}
    assert "it loses what differs between cases there" in said() and "Left out" not in said()


def test_the_map_frames_the_chosen_cell_with_the_test_value_beside_it():
    page = report_html(audit_data())
    (line,) = [x for x in re.findall(r"<tr>.*?</tr>", page) if "chosen" in x and 'class="test"' in x and "←" in x][:1]
    assert '<th scope="row">L1</th>' in line and html.unescape(re.sub(r"<[^>]+>", " ", line)).split()[-1] == "0.875"
    cells = re.findall(r"<td[^>]*--a:([\d.]+)", line)
    assert cells == ["0.80", "0.50"]  # 2 AUROC - 1


def test_rows_stand_where_their_numbers_are():
    drawn = rows(
        [Row("a", {"value": 0.75, "low": 0.5, "high": 1.0}), Row("b", ribbon={"0.025": 0.25, "0.975": 0.5, "max": 0.6})],
        Axis(0.0, 1.0),
    )
    assert 'class="whisker" x1="50.00" x2="100.00"' in drawn and 'class="whisker point" x1="75.00"' in drawn
    assert '<rect class="ribbon" x="25.00" y="3" width="25.00"' in drawn and 'class="tick" x1="60.00"' in drawn
    assert rows([Row("nothing", None)], Axis(0.0, 1.0)) == ""


def poisoned(data):
    """The same audit with every string of its results and facts hostile, and every key of its free parts."""
    if isinstance(data, dict):
        return {k: poisoned(v) for k, v in data.items()} | {HOSTILE: HOSTILE}
    if isinstance(data, list):
        return [poisoned(v) for v in data]
    return HOSTILE if isinstance(data, str) else data


def test_a_hostile_audit_stays_text():
    audit = audit_data()
    bad = poisoned({"facts": audit["facts"], "results": audit["results"]}) | {"format": FORMAT}
    for r, kept in zip(bad["results"], audit["results"], strict=True):
        for f, name in zip(r["findings"], kept["findings"], strict=True):
            f["name"] = name["name"]  # so that every part is drawn
    clean, page = Tags(report_html(audit)), Tags(report_html(bad))
    kinds = {tag for tag, _ in clean.found}
    assert {tag for tag, _ in page.found} <= kinds | {"dl", "dt", "dd"} and "script" not in kinds
    assert not any(name.startswith("on") for _, a in page.found for name in a)
    assert sum("<script>alert(1)</script>" in s for s in page.said) > 20
    report_html(bad).encode()  # half a character does not stop the file from being written


def test_nothing_is_fetched_and_no_script_is_needed():
    markup = report_html(audit_data())
    assert (
        "<script" not in markup
        and "http" not in re.sub(r"http-equiv", "", markup)
        and "url(" not in markup
        and "@import" not in markup
    )
    page = Tags(markup)
    assert all(a.get("href", "#").startswith(("#", "data:,")) for _, a in page.found)
    assert any("default-src 'none'" in str(a.get("content")) for t, a in page.found if t == "meta")


def test_parts_that_are_missing_are_left_out_and_unknown_ones_are_kept():
    audit = audit_data()
    for r in audit["results"]:
        r["numbers"]["later"] = {"value": 7.125}
    assert "7.125" in report_html(audit)
    for keep in ("protocol", "verdict"):
        Tags(report_html({"format": FORMAT, "facts": {}, "results": [{keep: "x"}]}))
    whole = audit_data()

    def thinned(data, drop):
        if isinstance(data, dict):
            return {k: thinned(v, drop) for k, v in data.items() if k != drop}
        return [thinned(v, drop) for v in data] if isinstance(data, list) else data

    def keys(data):
        if isinstance(data, dict):
            return set(data) | {k for v in data.values() for k in keys(v)}
        return {k for v in data for k in keys(v)} if isinstance(data, list) else set()

    for drop in keys(whole["results"]):  # an audit of another program
        Tags(report_html(whole | {"results": thinned(whole["results"], drop)}))


@pytest.mark.parametrize(
    "bad", [{}, {"format": "diascope-audit-9"}, [], {"format": FORMAT, "facts": {}}, {"format": FORMAT, "results": []}]
)
def test_what_is_no_audit_is_refused(bad):
    with pytest.raises(ValueError, match="audit"):
        report_html(bad)


def test_names_are_the_records():
    assert read.FORMAT == FORMAT and tuple(SIGNS) and set(SIGNS) == set(MEANINGS) == set(VERDICTS)
    assert len(set(SIGNS.values())) == len(SIGNS)


def test_parts_link_latents_and_carry_their_style():
    style, markup = report_parts(audit_data(), link=lambda j: f"#/s/sae/{j}")
    assert ":root" not in style and ":host" in style
    assert ("a", {"href": "#/s/sae/5"}) in Tags(markup).found
    assert all(not a["href"].startswith("#/s") for t, a in Tags(report_html(audit_data())).found if t == "a")


def test_kept_texts_and_transcripts_are_shown_as_written():
    audit = audit_data()
    audit["results"][0]["texts"] = [
        {
            "id": "3a",
            "label": "marked",
            "split": "test",
            "tokens": ["Do", "\n", "<b>it"],
            "values": [0.5, -1.0, None],
            "answer": HOSTILE,
            "shows": True,
        }
    ]
    audit["results"][0]["transcripts"] = [
        {"name": "mail", "tokens": 30, "watched": ["tool_result"], "told": ["no tools are said"], "changes": [2], "suspect": 2, "scores": [],
         "spans": [{"kind": "user", "message": 0, "tokens": [0, 9], "score": 0.25, "flagged": False, "text": "hello"},
                   {"kind": "tool_result", "message": 1, "tokens": [9, 30], "score": 0.5, "flagged": True, "text": HOSTILE}],
         "sentences": [{"span": 0, "tokens": [0, 9], "score": 0.25, "flagged": False, "text": "hello"},
                       {"span": 1, "tokens": [9, 20], "score": -0.5, "flagged": False},
                       {"span": 1, "tokens": [20, 30], "score": 1.0, "flagged": True, "text": HOSTILE}]}
    ]  # fmt: skip
    markup = report_html(audit)
    page = Tags(markup)
    marks = [a for t, a in page.found if t == "mark"]
    assert [(m["style"], m.get("class"), m["title"]) for m in marks] == [
        ("--a:0.50", None, "+0.500"),
        ("--a:1.00", "below", "−1.000"),
    ]
    assert "<b>it" in "".join(page.said) and [a["class"] for t, a in page.found if t == "li" and "class" in a] == [
        "user",
        "tool_result",
    ]
    assert [markup.count(m) for m in ("▲ change", "⚑ flagged", "★ highest")] == [1, 1, 1] and "shows it" in markup
    assert "tokens 9 to 20<" in markup and markup.count("&lt;img src=x") >= 2
    assert [a["class"] for t, a in page.found if "level" in a.get("class", "")] == ["level", "level below", "level"]
    for span in (transcript := audit["results"][0]["transcripts"][0])["spans"]:
        del span["text"]
    limited = report_html({**audit, "results": [{**audit["results"][0], "transcripts": [{**transcript, "threshold": 0.5}]}]})
    assert limited.count("the words were not kept") == 1  # said once, and not on every line
    assert [a["style"] for t, a in Tags(limited).found if "limit" in a.get("class", "")] == [
        "--w:25%;--t:50%",
        "--w:100%;--t:50%",
    ]


@pytest.mark.page
def test_it_is_read_in_a_browser_without_scripts_in_light_dark_and_narrow(browser, tmp_path):
    (tmp_path / "report.html").write_text(report_html(audit_data()), encoding="utf-8")
    address = f"file://{tmp_path / 'report.html'}"
    for width, scheme in ((1600, "light"), (380, "dark")):
        window = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        context, trouble = browser.new_context(java_script_enabled=False, **window), []
        page = context.new_page()
        page.on("console", lambda m, to=trouble: to.append(m.text))
        page.goto(address)
        assert page.locator("body").bounding_box()["width"] <= width
        assert page.get_by_role("heading", name="Verdicts").count() == 1
        page.locator(".forest .n").first.focus()
        assert trouble == []
        context.close()
    page = browser.new_page(viewport={"width": 380, "height": 900})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    number = page.locator(".forest .n[data-tip]").first
    number.focus()
    tip, position = (f"e => getComputedStyle(e, '::after').{what}" for what in ("content", "position"))
    assert "95 % interval" in number.evaluate(tip) and number.evaluate(position) == "fixed"
    page.locator("h1").click()
    page.emulate_media(media="print")
    assert "95 % interval" in number.evaluate(tip) and number.evaluate(position) == "static"
    assert page.locator("details").last.locator("dl").first.evaluate("e => e.getBoundingClientRect().height") > 0
    page.close()


def test_findings_of_other_shapes_have_a_dose_response_or_their_estimates():
    audit = audit_data()
    doses = {k: estimate(v, 0.1) for k, v in (("wrong_sign", -0.5), ("half", 0.75), ("effect", 1.5), ("twice", 2.5))}
    controls = {"random": {"k": 67, "mean": 0.0, "max": 0.625}}
    steering = {
        "name": "steering",
        "claim": "a push",
        "verdict": "causal",
        "why": "so",
        "numbers": doses | {"p": 0.015, "controls": controls},
    }
    hints = {
        "name": "hints",
        "claim": "said",
        "verdict": "detects",
        "why": "so",
        "numbers": {"by": {"kind": estimate(0.3125, 0.0625)}},
    }
    audit["results"][1]["findings"] += [steering, hints]
    audit["results"][1]["numbers"]["early"] = {"area": estimate(0.4375, 0.03125)}
    part = report_html(audit).split('id="protocol-1"')[1]
    names = re.findall(r'<span class="name[^"]*">([^<]+)</span>', part)
    assert names[names.index("−1 × the dose") :][:5] == [
        "−1 × the dose",
        "½ × the dose",
        "1 × the dose",
        "2 × the dose",
        "controls: random",
    ]
    assert (
        "mean and largest of 67 controls" in part and "by, kind" in part and "early, area" in part and "0.250 to 0.375" in part
    )


def test_data_is_not_changed():
    audit = audit_data()
    before = copy.deepcopy(audit)
    report_html(audit)
    assert audit == before
