"""An intervention on the circuits page: its place in the queue, its stages, and taking it back. And what was tried at tracing."""

import threading
from dataclasses import replace

import pytest
from graph_workspace import opened_with, traced, write_workspace
from steer_workspace import served

from diascope.explorer.circuits import graphs_in
from diascope.latents.store import Index

pytestmark = pytest.mark.page
TRIED = {"says": "ablating its heaviest supernode (2 latents) moves ' Rome' by -3.43, more than 95 % of 100 matched controls do (0.36)", "latents": [[0, 1, 2], [0, 1, 3]], "names": ["L0 latent 2", "L0 latent 3"], "influence": 0.07, "predicted": -2.4, "effect": -3.43, "control_95": 0.36, "controls": 100, "beats": 1.0, "exceeds": True, "passed_over": 1}  # fmt: skip
TARGET = {
    "name": " Rome",
    "direct": -5.6,
    "total": -3.9,
    "norms frozen": -6.0,
    "patterns frozen": -5.5,
    "free": -6.01,
    "whole": -6.1,
}
SWAP = {"token_ids": [2], "tokens": ["<bos>", "France"], "nodes": ["@4"], "positions": [], "latents": 12, "errors": 3, "targets": [TARGET], "before": [[" Rome", 0.4]], "after": [[" Paris", 0.5]], "there": [[" Paris", 0.9]]}  # fmt: skip


@pytest.fixture(scope="module")
def explorer(tmp_path_factory, toy):
    """A server of a graph that says that a supernode and a swap were tried, and its host."""
    opened = opened_with(toy)
    row = {"edit": "ablate", "mode": "free", "guess": "total", "n": 8} | dict.fromkeys(("spearman", "spearman_low", "spearman_high", "sign", "sign_low", "sign_high"), 0.5)  # fmt: skip
    told = {
        "verification": {"latents": 8, "pool": 9, "least": 0.0, "rows": [row], "says": "ok", "supernode": TRIED},
        "swaps": [SWAP],
    }
    graph = traced(opened)
    folder = write_workspace(tmp_path_factory.mktemp("intervene"), replace(graph, about=graph.about | told), opened)
    with served(Index(folder / "index"), opened, graphs=graphs_in(folder / "graphs")) as found:
        yield found


@pytest.fixture
def page(explore, explorer):
    page = explore(explorer[0], "#/circuits/capital")
    page.locator("g.node").first.wait_for()
    return page


def test_a_waiting_intervention_tells_its_place_and_is_taken_back(page, explorer):
    _, host = explorer
    busy, free = threading.Event(), threading.Event()
    host.start(lambda opened, emit: (busy.set(), free.wait(20)) and None, title="hold")
    assert busy.wait(10)
    page.locator("g.node[data-key^='l0_']").first.click(force=True)
    run, note = page.get_by_role("button", name="Run", exact=True), page.locator(".intervene [role=status]")
    run.click()
    page.get_by_text("Waiting for 1 other request…").wait_for()
    page.locator(".intervene").get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled.").wait_for()
    run.click()
    page.get_by_text("Waiting for 1 other request…").wait_for()
    assert note.count() == 1
    free.set()
    page.locator(".outcome").wait_for()
    assert [job.state for job in host.jobs()] == ["done", "cancelled", "done"]


def test_what_was_tried_when_tracing_is_shown(page):
    tried, swap = page.locator(".tried"), page.locator(".swap")
    assert tried.locator("summary").inner_text() == f"A{TRIED['says'][1:]}."
    tried.locator("summary").click()
    assert tried.locator("td.num").all_inner_texts() == ["−3.43", "−2.40", "+0.360"]
    assert "1 heavier supernode has no controls" in tried.inner_text() and "L0 latent 2, L0 latent 3" in tried.inner_text()
    swap.locator("summary").click()
    assert "@4 (12 latents and 3 errors held)" in swap.locator("summary").inner_text()
    assert swap.locator("td.num").all_inner_texts()[:2] == ["−6.01", "−3.90"] and swap.locator("ol").nth(
        1
    ).inner_text().startswith("·Paris")
