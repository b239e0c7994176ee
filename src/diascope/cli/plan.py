"""The verb that says what a run takes before it runs: plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from diascope.cli.terminal import out
from diascope.config import within

RECIPES = ("demo", "suite_cpu", "suite", "gemma_scope_2", "release")


@dataclass
class Plan:
    """Say what a recipe takes before it runs: memory, disk, bytes read and written, hours, cost, mixing, and axes for devices."""

    recipe: Annotated[str, tyro.conf.Positional] = "demo"
    """demo, suite_cpu, suite, gemma_scope_2 (its SAE at 65 % of the layers), release (all of Gemma Scope 2), or a workspace."""
    model: str = ""
    """gemma-3-270m, -1b, -4b, -12b, -27b, or any model that loads; empty takes the recipe's."""
    tokens: int = 0
    """Tokens harvested; 0 takes the recipe's."""
    machine: str = "here"
    """here (measured in about ten seconds, loads the model) or h100 (40 % of 989 TFLOP/s, 80 GB)."""
    price: float = -1.0
    """Money per device and hour; -1 takes the machine's (here: 0, h100: 2.5)."""
    storage_price: float = -1.0
    """Money per GB and month of keeping rows; -1 takes 0.023, an object store's."""
    fit: str = ""
    """Devices, such as 8x80GB: also propose how many to give to different dictionaries, to one's latents, and to data."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> None:
        from diascope.recipes.planning import H100, document_rows, fit, plan
        from diascope.recipes.planning.fit import devices

        if self.machine not in ("here", "h100"):
            raise ValueError(f"--machine is here or h100, not {self.machine!r}")
        if self.recipe == "release":
            self._release(H100)
            return
        given = devices(self.fit) if self.fit else None
        recipe, shape, machine = self._opened()
        if self.price >= 0 or self.storage_price >= 0:
            price = self.price if self.price >= 0 else machine.price
            machine = machine.costing(price, self.storage_price if self.storage_price >= 0 else None)
        here = self.machine == "here" and not recipe.corpus.startswith("hf:")  # its text is looked at too
        found = plan(recipe, shape, machine, **({"document": document_rows(recipe)} if here else {}))
        mesh = fit(recipe, shape, *given) if given else None
        if self.json:
            from dataclasses import asdict

            out.print_json(data={**asdict(found), "mesh": asdict(mesh) if mesh else None})
            return
        from diascope.tables import plan_table

        out.print(plan_table(found))
        if mesh:
            out.print(f"{self.fit}: {mesh}", markup=False)

    def _opened(self) -> tuple[Any, Any, Any]:
        """The recipe, the model's shape, and the machine."""
        from diascope.recipes.planning import GEMMA_3, H100, calibrate, shape_of
        from diascope.recipes.run import opened_model, quiet

        found = self._workspace()
        name = self.model or (found.model if found else "gemma-3-270m")
        if self.machine == "h100" and name in GEMMA_3:
            return self._recipe(found, GEMMA_3[name]), GEMMA_3[name], H100
        with out.status(f"loading {name}"):
            model = opened_model(name, found.dtype if found else "auto", quiet)
        shape = shape_of(model.parts.config, name)
        recipe = self._recipe(found, shape)
        if self.machine == "h100":
            return recipe, shape, H100
        with out.status("measuring this machine (about ten seconds)"):
            return recipe, shape, calibrate(recipe, model)

    def _workspace(self) -> Any:
        """The recipe of a workspace; None where a recipe is named. What is wrong is said before a model is loaded."""
        from diascope.config import from_data
        from diascope.recipes.recipe import RunRecipe
        from diascope.storage.files import read_json, reading

        if self.tokens:
            within("tokens", self.tokens, 512, 2**60, "tokens, at least one sequence")
        if self.recipe in RECIPES:
            return None
        path = Path(self.recipe) / "recipe.json"
        if not path.is_file():
            raise ValueError(f"{self.recipe!r} is no recipe ({', '.join(RECIPES)}) and no workspace with a recipe.json")
        with reading(path, "plan by the name of a recipe"):
            return from_data(RunRecipe, read_json(path)["recipe"])

    def _recipe(self, found: Any, shape: Any) -> Any:
        """The recipe in question, for a model of `shape`."""
        from diascope.recipes.demo import demo
        from diascope.recipes.gemma_scope_2 import gemma_scope_2
        from diascope.recipes.suite import suite, suite_cpu

        name, layers = shape.name, shape.layers
        if found:
            return replace(found, model=name, tokens=self.tokens or found.tokens)
        if self.recipe == "demo":
            return replace(demo(self.tokens or 250_000), model=name)
        if self.recipe == "suite_cpu":
            return suite_cpu(name, layers, tokens=self.tokens or 100_000)
        if self.recipe == "suite":
            return suite(name, layers, tokens=self.tokens or 10**9)
        site = f"L{round(layers * 0.65)}.resid_post"
        return gemma_scope_2((site,), model=name, n_layers=layers, tokens=self.tokens or 10**9)

    def _release(self, machine: Any) -> None:
        from dataclasses import asdict

        from diascope.recipes.planning import GEMMA_3
        from diascope.recipes.planning.release import line
        from diascope.tables import release_table

        tokens = float(self.tokens or 8_000_000_000)
        lines = [line(s, machine, tokens) for s in GEMMA_3.values()]
        if self.json:
            out.print_json(data=[asdict(found) for found in lines])
            return
        out.print(release_table(lines, tokens))
