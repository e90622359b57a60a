"""The parameters that a phase changes: the model's, and those that its objectives own."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lilliput.base.errors import RecipeError
from lilliput.base.protocols import check_module
from lilliput.model import LanguageModel
from lilliput.objectives.objective import Objective, ObjectiveModule, build_objectives

OWNED = "objective."
"""Names of what objectives own begin with it: `objective.<n>.<name>`, the model's are as in the model."""


class Trainable(nn.Module):
    """A model and the objectives of a phase around it.

    The optimizer, clipping, the average and checkpoints see `named_parameters`, each parameter once; a step acts on
    those alone that are `active` in it.
    """

    def __init__(self, model: LanguageModel, objectives: Sequence[nn.Module]):
        """From a model and the module of each stage of a phase, of which stages may share one.

        Raises:
            RecipeError: an objective owns parameters that none of its variants trains.
        """
        super().__init__()
        self.model, self.stages = model, list(objectives)  # a list: modules of stages repeat
        self.objectives = nn.ModuleList(dict.fromkeys(objectives))
        owned = self._owned()
        self._named = dict(model.named_parameters())
        self._named |= {name: one for name, one in owned.items() if isinstance(one, nn.Parameter) and one.requires_grad}
        self._buffers_owned = {name: one for name, one in owned.items() if not isinstance(one, nn.Parameter)}
        self._active = {
            (stage, variant): self._listed(cast(ObjectiveModule, module), variant)
            for stage, module in enumerate(objectives)
            for variant in range(cast(ObjectiveModule, module).variants)
        }
        self._reported: set[tuple[int, int]] = set()
        self._check_owned_are_active()

    @classmethod
    def of_phase(cls, model: LanguageModel, objectives: Sequence[Objective], seed: int) -> "Trainable":
        """Build the objectives of a phase around a model with the weights that the phase begins with."""
        modules = build_objectives(objectives, model, seed)
        for spec, module in zip(objectives, modules, strict=True):
            check_module(module, ObjectiveModule, built_by=spec)
        return cls(model, modules)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every parameter that the phase may change by its name, the model's first."""
        yield from ((f"{prefix}.{name}" if prefix else name, one) for name, one in self._named.items())

    def objective(self, stage: int) -> ObjectiveModule:
        """Return the objective of a stage."""
        return cast(ObjectiveModule, self.stages[stage])

    @property
    def variants(self) -> Collection[tuple[int, int]]:
        """The stages, and variants of their objectives."""
        return self._active.keys()

    def active(self, stage: int, variant: int) -> Mapping[str, nn.Parameter]:
        """Return the parameters that a variant of a stage's objective trains, by name."""
        return self._active[stage, variant]

    def keep_active(self, stage: int, variant: int) -> None:
        """Drop gradients of parameters that the variant does not train, so that nothing moves them."""
        active = self._active[stage, variant]
        for name, parameter in self._named.items():
            if name not in active:
                parameter.grad = None

    def report_idle(self, stage: int, variant: int, report: Callable[[str], None]) -> None:
        """Report parameters that a variant should train and that have no gradient, once for each variant."""
        if (stage, variant) in self._reported:
            return
        self._reported.add((stage, variant))
        idle = [name for name, one in self._active[stage, variant].items() if one.grad is None]
        if idle:
            more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
            report(f"no gradient reaches {', '.join(idle[:3])}{more}: what is active stays as it is")

    def owned_buffers(self) -> dict[str, Tensor]:
        """Return the persistent buffers of objectives, which their forward passes may change."""
        return self._buffers_owned

    def owned_tensors(self) -> dict[str, Tensor]:
        """Return what objectives own and a checkpoint keeps: their trained parameters and persistent buffers."""
        owned = {name: one for name, one in self._named.items() if name.startswith(OWNED)}
        return owned | self._buffers_owned

    def load_owned(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite what objectives own.

        Raises:
            RecipeError: the tensors are of other objectives.
        """
        owned = self.owned_tensors()
        if owned.keys() != tensors.keys():
            raise RecipeError(
                f"a checkpoint has {', '.join(tensors) or 'nothing'} of objectives that own "
                f"{', '.join(owned) or 'nothing'}",
                where="the objectives of the phase",
                hint="resume with the code that the phase started with, or start another run with --out",
            )
        with torch.no_grad():
            for name, one in owned.items():
                one.copy_(tensors[name])

    @property
    def keeps_first_weights(self) -> bool:
        """Return whether objectives hold tensors that no checkpoint has, made from the weights that the phase began
        with.
        """
        kept = {id(one) for one in (*self._named.values(), *self._buffers_owned.values())}
        held = (one for module in self.objectives for one in (*module.parameters(), *module.buffers()))
        return any(id(one) not in kept for one in held)

    def weight_bytes(self) -> int:
        """Return the bytes of all that lies in memory before training: the model, and all that objectives hold."""
        held = (one for module in (self.model, *self.objectives) for one in (*module.parameters(), *module.buffers()))
        return sum({id(one): one.nbytes for one in held}.values())

    def _owned(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers of the objectives that are not the model's, each once."""
        seen = {id(one) for one in (*self.model.parameters(), *self.model.buffers())}
        owned: dict[str, Tensor] = {}
        for number, module in enumerate(self.objectives):
            for name, one in module.state_dict(keep_vars=True).items():
                if id(one) not in seen:
                    seen.add(id(one))
                    owned[f"{OWNED}{number}.{name}"] = one
        return owned

    def _listed(self, module: ObjectiveModule, variant: int) -> dict[str, nn.Parameter]:
        wanted = {id(one) for one in module.active(variant)}
        return {name: one for name, one in self._named.items() if id(one) in wanted}

    def _check_owned_are_active(self) -> None:
        trained = {name for active in self._active.values() for name in active}
        idle = [name for name in self._named if name.startswith(OWNED) and name not in trained]
        if idle:
            raise RecipeError(
                f"no variant of the phase's objectives trains {', '.join(idle)}",
                where="what `active` of the objectives returns",
                hint="return them there, or freeze them: requires_grad_(False)",
            )
