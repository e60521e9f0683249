"""The network of an LSTM on the engine's arrays: inference, training, backward."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np

from ..engine import Array
from ..engine.backward import backward
from ..engine.batch import Ragged
from ..engine.cell import Cell
from ..engine.direct import Form, OneCall
from ..engine.forward import forward
from ..engine.packing import Packing
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..engine.tape import Cache, Noise, Stage
from .arguments import State
from .cells import CellSource, PackedCells
from .checkpoint import Checkpoint
from .checks import Matmul, MatmulPrecision
from .noise import NoiseSource
from .parameters import ParameterSource, lock
from .settings import Settings
from .wiring import Arrays, Kept, States, Wiring

__all__ = ["Network"]


Source = TypeVar("Source", bound=ParameterSource)


class Network(Generic[Source]):
    """Settings, parameters, noise and wiring of an LSTM, and what it computes.

    Arrays are those of `Wiring`, x, h0 and so on in the order of `engine.forward`.

    Parameters
    ----------
    settings, parameters, noise, matmul, precision
        See the attributes; precision is `matmul_precision`.
    cells : CellSource, optional
        Where they are not packed from the parameters.

    Attributes
    ----------
    settings : Settings
    parameters : ParameterSource
    noise : NoiseSource
    form : Form or None
        What arguments look like that the engine takes as they are, where there are such arguments.
    one_call : OneCall or None
        Where one call of the engine computes the whole network.
    """

    __slots__ = (
        "_cells",
        "_matmul",
        "_precision",
        "_wiring",
        "form",
        "noise",
        "one_call",
        "parameters",
        "settings",
    )

    def __init__(
        self,
        settings: Settings,
        parameters: Source,
        noise: NoiseSource,
        matmul: Matmul,
        precision: MatmulPrecision = "highest",
        cells: CellSource | None = None,
    ) -> None:
        self.settings, self.parameters, self.noise = settings, parameters, noise
        self._wiring = wiring = Wiring(settings)
        if cells is None:
            cells = PackedCells(parameters, settings.cell, precision == "bfloat16")
        self._cells: CellSource = cells
        self._precision = precision
        self.form = self.one_call = None
        if settings.engine_form:
            self.form = Form(
                *(settings.dtype.num, settings.num_layers, settings.directions),
                *(settings.input_size, settings.sizes[0], settings.h_sizes[0]),
            )
        if settings.one_call:
            self.one_call = OneCall(
                *(self.form, parameters.version, parameters.names),
                *(self._cells, wiring.directions, wiring.reverse),
            )
            self.one_call.noise, self.one_call.quiet = noise.mean, noise.quiet
        self.matmul = matmul

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.settings, self.parameters, self.noise, self.matmul, self._precision
        return Network, given

    @property
    def matmul(self) -> Matmul:
        """As of `LSTM`. May be set."""
        return self._matmul

    @matmul.setter
    def matmul(self, matmul: Matmul) -> None:
        self._matmul = matmul
        if self.one_call is not None:
            self.one_call.blas = self.blas

    @property
    def matmul_precision(self) -> MatmulPrecision:
        """As of `LSTM`. May be set."""
        return self._precision

    @matmul_precision.setter
    def matmul_precision(self, precision: MatmulPrecision) -> None:
        with lock():
            self._precision = precision
            self._cells.bfloat16 = precision == "bfloat16"
            self.parameters.version.number += 1  # cells are packed anew

    def set_rate(self, name: str, value: Any) -> None:
        """Change a rate of dropout or zoneout."""
        self.noise.set(name, value)
        if self.one_call is not None:
            self.one_call.noise, self.one_call.quiet = self.noise.mean, self.noise.quiet

    @property
    def blas(self) -> bool:
        """Whether BLAS serves the products over the whole sequence."""
        return self._matmul == "blas"

    # ---- forward

    def cells(self, training: bool, of_input: bool = True) -> list[Cell]:
        """Return the cells of the present parameters. With them a call uses no later ones."""
        if self.one_call is not None:
            return self.one_call.present(training, of_input)
        return self._cells.current(training, self.blas, of_input)

    def infer(
        self, arrays: Any, ragged: Ragged | None = None, cells: list[Cell] | None = None
    ) -> None:
        """Write y, hn and cn."""
        if self.one_call is not None:
            self.one_call.run(arrays, ragged, cells)
            return
        blas, noise, wiring = self.blas, self.noise.mean, self._wiring
        cells = self.cells(False) if cells is None else cells
        x, h0, c0, y, hn, cn = arrays
        stages = wiring.stages()
        for stage in stages:
            h_part = wiring.part(hn, stage)
            above, z = wiring.outputs(x, h_part, y if stage is stages[-1] else None)
            forward(
                cells[stage],
                (
                    x,
                    wiring.part(h0, stage),
                    wiring.part(c0, stage),
                    z,
                    h_part,
                    wiring.part(cn, stage),
                ),
                *(wiring.directions, wiring.reverse, ragged, False, blas),
                None if noise is None else noise[stage],
            )
            with DefaultArithmetic():
                wiring.finish(z, above, stage, x)
            x = above

    def train_as_is(
        self,
        owner: object,
        x: Any,
        state: Any,
        out: Any = None,
        checkpoint: int | None = None,
        copy: bool = True,
    ) -> tuple[Array, State, Cache] | None:
        """Return what `LSTM.forward` does; None if the arguments have another form."""
        if self.form is None:
            return None
        arrays = self.form.arguments(x, state, out)
        if arrays is None:
            return None
        T, B, _ = x.shape
        cache = self.train(owner, arrays, T, B, checkpoint=checkpoint, copy=copy)
        return arrays[3], (arrays[4], arrays[5]), cache

    def train(
        self,
        owner: object,
        arrays: Any,
        T: int,
        B: int,
        batched: bool = True,
        packing: Packing | None = None,
        checkpoint: int | None = None,
        cells: list[Cell] | None = None,
        copy: bool = True,
    ) -> Cache:
        """Write y, hn and cn, and return what `differentiate` needs.

        Parameters
        ----------
        owner : object
            What the cache belongs to.
        arrays : tuple
            x, h0, c0, y, hn, cn.
        T, B, batched : int, int, bool
            As users see them: extents, and whether states have B.
        packing : Packing, optional
            Of a ragged batch, whose order arrays have.
        checkpoint : int, optional
            As of `LSTM.forward`.
        cells : list of Cell, optional
            As of `cells`.
        copy : bool
            Keep a copy of x, as the caller may write to it before backward. Packed rows are one.
        """
        if self.one_call is not None and self.noise.quiet and checkpoint is None:
            return self.one_call.keep(owner, arrays, T, B, batched, packing, cells, copy)
        if copy and packing is None:
            arrays = arrays[0].copy(), *arrays[1:]
        cells = self.cells(True) if cells is None else cells
        with DefaultArithmetic():
            stages = self._train_stages(cells, arrays, packing, checkpoint)
        return Cache(owner, stages, T, B, self.blas, batched, packing)

    def _train_stages(
        self, cells: list[Cell], arrays: Arrays, packing: Packing | None, checkpoint: int | None
    ) -> list[Stage]:
        wiring = self._wiring
        below, h0, c0, y, hn, cn = arrays
        ragged = None if packing is None else packing.ragged
        noise = self.noise.draw(below.shape, packing)
        masks = self.noise.draw_masks(below.shape, packing)
        found: list[Stage] = []
        stages = wiring.stages(apart=masks is not None)
        for layer, stage in enumerate(stages):
            mask = None if masks is None else masks[layer]
            x = below if mask is None else below * mask
            h_part = wiring.part(hn, stage)
            above, z = wiring.outputs(x, h_part, y if stage is stages[-1] else None)
            part = (
                x,
                wiring.part(h0, stage),
                wiring.part(c0, stage),
                z,
                h_part,
                wiring.part(cn, stage),
            )
            part_noise = None if noise is None else noise[stage]
            kept = self._keep(cells[stage], stage, part, ragged, part_noise, checkpoint)
            wiring.finish(z, above, stage, below)
            found.append(Stage(stage, kept, x, mask, z if wiring.keeps_z else None))
            below = above
        return found

    def _keep(
        self,
        cells: list[Cell],
        stage: slice,
        arrays: Any,
        ragged: Ragged | None,
        noise: list[Noise] | None,
        checkpoint: int | None,
    ) -> Kept:
        """Run one call of the engine in training, or segment by segment."""
        wiring, blas = self._wiring, self.blas
        if checkpoint is None:
            direction = wiring.directions, wiring.reverse
            return forward(cells, arrays, *direction, ragged, True, blas, noise)
        return [
            Checkpoint(
                cells[jobs],
                jobs,
                arrays,
                wiring.reverse or jobs.start == 1,
                checkpoint,
                ragged,
                blas,
                None if noise is None else noise[jobs],
            )
            for jobs in wiring.jobs(stage)
        ]

    # ---- backward

    def differentiate_as_is(
        self, cache: Cache, dy: Any, dstate: Any
    ) -> tuple[Array, State, dict[str, Array]] | None:
        """Return what `LSTM.backward` does; None if the arguments have another form."""
        if self.form is None or cache._packing is not None or not cache._batched:
            return None
        arrays = self.form.gradients(dy, dstate, cache._T, cache._B)
        if arrays is None:
            return None
        dx, dh0, dc0, grads = self.differentiate(cache, *arrays)
        return dx, (dh0, dc0), grads

    def differentiate(
        self,
        cache: Cache,
        dy: Array | None,
        dhn: States | None,
        dcn: States | None,
        of_input: bool = True,
    ) -> tuple[Any, States, States, dict[str, Array]]:
        """Return the gradients of x (None if it is not wanted), h0, c0, and the parameters."""
        if self.one_call is not None:
            found = self.one_call.gradients(cache, dy, dhn, dcn, of_input)
            if found is not None:
                return found
        with DefaultArithmetic():
            return self._differentiate_stages(cache, dy, dhn, dcn, of_input)

    def _differentiate_stages(
        self,
        cache: Cache,
        dy: Array | None,
        dhn: States | None,
        dcn: States | None,
        of_input: bool,
    ) -> tuple[Any, States, States, dict[str, Array]]:
        wiring = self._wiring
        dhs: list[Array] = []
        dcs: list[Array] = []
        grads: list[Array] = []
        for kept in reversed(cache._stages):
            stage = kept.cells
            dx, dh, dc, of_stage = _differentiate(
                kept.kept,
                wiring.merge_backward(dy, kept.z),
                wiring.part(dhn, stage),
                wiring.part(dcn, stage),
                cache._blas,
                of_input or stage.start > 0,
            )
            dhs.insert(0, dh)
            dcs.insert(0, dc)
            grads[:0] = of_stage
            if kept.mask is not None and dx is not None:
                np.multiply(dx, kept.mask, out=dx)
            wiring.residual_backward(dx, dy, stage)
            dy = dx
        named = dict(zip(self.parameters.names, grads, strict=True))
        if self.settings.differ:
            return dy, dhs, dcs, named
        return dy, np.concatenate(dhs), np.concatenate(dcs), named


def _differentiate(
    kept: Kept, dy: Array | None, dh: Any, dc: Any, blas: bool, of_input: bool
) -> tuple[Any, Array, Array, list[Array]]:
    """Return the gradients of one call of the engine; of its input, too, if that is wanted."""
    if not isinstance(kept[0], Checkpoint):
        return backward(kept, dy, dh, dc, blas=blas, of_input=of_input)
    parts = [part.backward(dy, dh, dc, of_input) for part in kept]
    dx = parts[0][0]
    if dx is not None:
        with DefaultArithmetic():
            for part in parts[1:]:
                np.add(dx, part[0], out=dx)
    dh, dc = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
    return dx, dh, dc, [grad for part in parts for grad in part[3]]
