"""Plans a recipe without running it: counted exactly, and on request measured and priced.

plan(recipe)                                                   parameters, steps, operations, bytes
plan(recipe, machine, costs=probe(recipe, machine, print))     with time and memory, from running a little here
plan(recipe, machine, rating=machine_rating("gb10"))           with an estimate of time, from a stated speed
plan(recipe.filled(foreseen(recipe, folder)))                  with the vocabulary that the text fills
show(console, plan(...))                                       the same as tables
"""

from lilliput.plan.count import plan
from lilliput.plan.measure import probe
from lilliput.plan.pricing import Tariff
from lilliput.plan.rating import Rating, machine_rating
from lilliput.plan.tables import show
from lilliput.plan.vocabulary import foreseen

__all__ = ["Rating", "Tariff", "foreseen", "machine_rating", "plan", "probe", "show"]
