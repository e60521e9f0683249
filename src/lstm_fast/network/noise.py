"""Dropout and zoneout: their rates, and what a call draws."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..engine import Array
from ..engine.packing import Packing
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..engine.tape import Noise
from . import checks, options
from .settings import Settings

__all__ = ["RATES", "NoiseSource", "Rates"]


class Rates(NamedTuple):
    """Probabilities; see `LSTM`."""

    dropout: float = 0.0
    variational_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    zoneout: tuple[float, float] | None = None

    def draw(self, num_layers: int) -> bool:
        """Whether a call in training draws anything."""
        return bool(
            self.variational_dropout
            or self.recurrent_dropout
            or (self.dropout and num_layers > 1)
            or self.zoneout not in (None, (0, 0), [0, 0])
        )


RATES = Rates._fields


class NoiseSource:
    """What disturbs the layers of an LSTM in training, and what is left of it in inference.

    Parameters
    ----------
    settings : Settings
    rates : Rates
        Checked here.
    rng : Generator

    Attributes
    ----------
    rates : Rates
    quiet : bool
        Whether training differs in nothing from inference.
    on_inputs : bool
        Whether training multiplies inputs of layers by masks.
    mean : list of Noise, or None
        Of each cell in inference: zoneout mixes old and new values by its probabilities.
    """

    __slots__ = ("_settings", "mean", "on_inputs", "quiet", "rates", "rng")

    def __init__(self, settings: Settings, rates: Rates, rng: np.random.Generator) -> None:
        self._settings, self.rng = settings, rng
        self.rates = Rates()
        for name, value in rates._asdict().items():
            self.set(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return NoiseSource, (self._settings, self.rates, self.rng)

    def set(self, name: str, value: Any) -> None:
        """Change a rate."""
        if name == "zoneout":
            value = options.rates(name, value)
            if value is not None and self._settings.proj_size:
                raise ValueError(f"zoneout and proj_size: {options.ZONEOUT_PROJECTED}")
        else:
            value = checks.fraction(name, value)
        rates = self.rates._replace(**{name: value})
        self.mean = self._mean(rates)
        self.on_inputs = rates.variational_dropout > 0 or (
            rates.dropout > 0 and self._settings.num_layers > 1
        )
        self.quiet = not rates.draw(self._settings.num_layers)
        self.rates = rates

    def _mean(self, rates: Rates) -> list[Noise] | None:
        if rates.zoneout is None:
            return None
        settings = self._settings
        with DefaultArithmetic():
            return [
                Noise(None, *(np.full(H, rate, settings.dtype) for rate in rates.zoneout))
                for H in settings.sizes
                for _ in range(settings.directions)
            ]

    def draw_masks(
        self, shape: tuple[int, ...], packing: Packing | None
    ) -> list[Array | None] | None:
        """Draw the masks on the input of every layer, if there are any; `shape` is that of x."""
        if not self.on_inputs:
            return None
        settings, rates = self._settings, self.rates
        masks: list[Array | None] = []
        columns = settings.input_size
        for layer in range(settings.num_layers):
            mask = None
            if rates.dropout and layer > 0:
                mask = self._draw(rates.dropout, (*shape[:-1], columns))
            if rates.variational_dropout:
                rows = shape[1] if packing is None else len(packing.ragged.lengths)
                same = self._draw(rates.variational_dropout, (1, rows, columns))
                if packing is not None:
                    same = packing.over_time(packing.sort(same)[0])
                mask = (
                    np.broadcast_to(same, (*shape[:-1], columns)) if mask is None else mask * same
                )
            masks.append(mask)
            columns = settings.layer_columns(layer)
        return masks

    def draw(self, shape: tuple[int, ...], packing: Packing | None) -> list[Noise] | None:
        """Draw recurrent dropout and zoneout of every cell, if any; `shape` is that of x."""
        settings, rates = self._settings, self.rates
        if not rates.recurrent_dropout and rates.zoneout is None:
            return None
        total = int(np.prod(shape[:-1]))
        B = shape[1] if packing is None else len(packing.ragged.lengths)
        found = []
        for H, h_size in zip(settings.sizes, settings.h_sizes, strict=True):
            for _ in range(settings.directions):
                recurrent: Array | None = None
                zones: tuple[Array, ...] = ()
                if rates.recurrent_dropout:
                    recurrent = self._draw(rates.recurrent_dropout, (1, B, h_size))
                    recurrent = (recurrent if packing is None else packing.sort(recurrent))[0]
                if rates.zoneout is not None:
                    zones = tuple(
                        (self.rng.random((total, H), np.float32) < rate).astype(settings.dtype)
                        for rate in rates.zoneout
                    )
                found.append(Noise(recurrent, *zones))
        return found

    def _draw(self, rate: float, shape: tuple[int, ...]) -> Array:
        """Return per element 0 with probability `rate`, else 1 / (1 - rate)."""
        kept = self.rng.random(shape, np.float32) >= rate
        scale = 1 / (1 - rate) if rate < 1 else 0.0
        dtype = self._settings.dtype
        mask: Array = np.where(kept, dtype.type(scale), dtype.type(0))
        return mask
