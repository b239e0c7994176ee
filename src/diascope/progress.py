"""Progress in the terminal: one bar a stage with rate and time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

QUIET = 10.0  # seconds between lines when output is not a terminal


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        if not unit or not task.speed:
            return Text("")
        speed = f"  {task.speed:,.0f} {unit}/s" if task.speed >= 1 else ""
        return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f} {unit}{speed}", style="cyan")


class Bars:
    """`stage(title, unit)` gives a callback (done, total, note); use as a context manager around the work."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (
            TextColumn("{task.description:<9}", style="bold"),
            BarColumn(24),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self._progress = Progress(*columns, console=console, speed_estimate_period=30, disable=not console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def stage(self, title: str, unit: str) -> Callable[..., None]:
        """A callback for one stage; `total` 0 shows a line without a bar."""

        def update(done: int, total: int, note: str = "") -> None:
            if note.startswith("health:"):
                self.console.print(f"[yellow]{escape(note)}[/yellow]")
                return
            if self.console.is_terminal:
                if title not in self._tasks:
                    self._tasks[title] = self._progress.add_task(title, unit=unit, note="", total=None)
                self._progress.update(self._tasks[title], completed=done, total=total or None, note=note[:60])
            else:
                self._line(title, unit, done, total, note)

        return update

    def _line(self, title: str, unit: str, done: int, total: int, note: str) -> None:
        now = time.monotonic()
        began = self._began.setdefault(title, now)
        finished = total and done >= total
        if now - self._said.get(title, -QUIET) < QUIET and not finished:
            return
        self._said[title] = now
        if not total or total == 1:
            if not note:
                return
            self.console.print(f"{title}: {note}", highlight=False, markup=False)
            return
        rate = done / (now - began) if now > began else 0.0
        left = f", {max(0.0, (total - done) / rate):.0f} s left" if rate and not finished else f", {now - began:.0f} s"
        speed = f" at {rate:,.0f} {unit}/s" if unit and rate >= 1 else ""
        self.console.print(
            f"{title}: {done:,}/{total:,}{' ' + unit if unit else ''}{speed}{left}  {note}".rstrip(),
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
