"""What the machine serves now, and which local model a public model id means here."""

from __future__ import annotations

from lattice.core.errors import LatticeError
from lattice.core.models import PersonalTarget, parse_model
from lattice.core.relay import ModelOffer
from lattice.runtime.engines.base import Engine


class ModelBoard:
    """The engine's offers as last seen. `version` counts the changes, so that the relay knows when to announce."""

    def __init__(self, offers: tuple[ModelOffer, ...] = ()) -> None:
        self.offers = offers
        self.version = 0
        self.problem: LatticeError | None = None

    async def refresh(self, engine: Engine) -> None:
        """Start the engine if need be and read its offers. A failure is kept for the status: it may pass."""
        try:
            await engine.start()
            offers, self.problem = await engine.offers(), None
        except LatticeError as error:
            offers, self.problem = (), error
        except Exception as error:  # an engine's mistake must not take the daemon down
            offers, self.problem = (), LatticeError("engine_unavailable", f"The engine failed: {type(error).__name__}.")
        if offers != self.offers:
            self.offers = offers
            self.version += 1

    def resolve(self, model: str, task: str, runtime: str | None) -> ModelOffer:
        """The offer for a public id or a bare local name; `model_not_found` where this machine has none."""
        if not self.offers:
            raise LatticeError("engine_unavailable", self.problem.message if self.problem else None)
        wanted = self._local_name(model, runtime)
        for offer in self.offers:
            if task in offer.tasks and wanted in (None, offer.id):
                return offer
        raise LatticeError("model_not_found", f"This machine serves no such model for {task}.")

    def _local_name(self, model: str, runtime: str | None) -> str | None:
        if any(offer.id == model for offer in self.offers):
            return model
        target = parse_model(model)
        if not isinstance(target, PersonalTarget):
            return target.canonical
        if runtime is not None and target.runtime_id != runtime:
            raise LatticeError("model_not_found", "The model id names another machine.")
        return target.local_model
