"""Estimates from a stated speed: what they come to, and that they are called estimates."""

import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from lilliput.base.errors import MachineError
from lilliput.cli import app
from lilliput.plan import Rating, Tariff, machine_rating, plan, show
from lilliput.recipe import load_machine, load_recipe

RATING = Rating(peak=1e15, utilization=0.5, source="a rumor", price_per_hour=(2.0, 3.0), currency="USD")


def test_time_is_operations_over_speed_and_a_tariff_comes_before_the_stated_price():
    made = RATING.estimate(1.8e18, Tariff())
    assert made["seconds"] == pytest.approx(3600) and made["price"] == pytest.approx([2.0, 3.0])
    told = RATING.estimate(1.8e18, Tariff(price_per_hour=1.5, watts=700, currency="EUR"))
    assert (told["price"], told["currency"], told["kwh"]) == ([1.5, 1.5], "EUR", pytest.approx(0.7))
    assert replace(RATING, price_per_hour=None).estimate(1.0, Tariff())["price"] is None
    for wrong in ({"peak": 0.0}, {"utilization": 1.5}, {"utilization": 0.0}):
        with pytest.raises(MachineError):
            replace(RATING, **wrong)


def test_a_plan_on_the_machine_of_a_card_is_near_what_the_card_says():
    recipe, rating = load_recipe("mtlm1-200m"), machine_rating("a100-40gb")
    estimate = plan(recipe, load_machine("a100-40gb"), rating=rating)["totals"]["estimate"]
    assert 12 < estimate["hours"] < 18, "the card says 12"
    low, high = estimate["price"]
    assert 8 < low < high < 20, "the card says 8 to 15"


@pytest.mark.parametrize("name", ["a100-40gb", "gb10", "strix-halo"])
def test_estimates_are_called_that_and_machines_untested(name):
    out = StringIO()
    made = plan(load_recipe("slm-10m"), load_machine(name), rating=machine_rating(name), tariff=Tariff(watts=100))
    show(Console(file=out, width=100), json.loads(json.dumps(made)))
    text = " ".join(out.getvalue().split())
    assert "Estimate, nothing was measured" in text and "has not run on this machine" in text and "kWh" in text


def test_the_command_estimates_and_other_machines_have_no_rating(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert machine_rating("cpu") is None and machine_rating("nowhere") is None
    (tmp_path / "mine.py").write_text(
        "from lilliput.plan import Rating\nfrom lilliput.train.machine import Machine\n"
        "machine = Machine(device='cpu')\nrating = Rating(peak=1e12, utilization=0.5, source='mine')\n"
    )
    assert machine_rating("mine.py") == Rating(peak=1e12, utilization=0.5, source="mine")
    made = CliRunner().invoke(app, ["plan", "mtlm1-200m", "--machine", "a100-40gb", "--json"])
    assert json.loads(made.stdout)["totals"]["estimate"]["utilization"] == 0.4
    assert json.loads(CliRunner().invoke(app, ["plan", "slm-10m", "--json"]).stdout)["totals"]["estimate"] is None
