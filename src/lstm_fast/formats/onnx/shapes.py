"""Sizes of the axes of values, in a graph of ONNX that leaves some of them open."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...engine import Array
from .values import MOST_AXES, Atom, Extent, Group, Signal, Stack

__all__ = ["reshaped", "shape_of", "size_of"]


def size_of(group: Group) -> int | None:
    """Return the size of an axis, or None where the file does not say it."""
    sizes = [atom.size for atom in group]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def reshaped(
    axes: Sequence[Group], target: Sequence[int | Extent]
) -> tuple[list[Group], dict[Atom, Atom]]:
    """Return the axes after Reshape, which keeps the order of numbers, and an atom with its size.

    A number for an axis whose size is not known says what it is: PyTorch's exporter writes that of
    the example. So that there is no other way to understand it, only one axis may be so, and what
    -1 stands for then is one atom.

    Raises
    ------
    ValueError
        If the target would split an atom, or its sizes are not known.
    """
    atoms = [atom for group in axes for atom in group]
    unknown = [n for n, entry in enumerate(target) if isinstance(entry, int) and entry == -1]
    if len(unknown) > 1 or len(target) > MOST_AXES:
        raise ValueError("has a target with several unknown axes, or very many")
    middle = unknown[0] if unknown else len(target)
    bound: dict[Atom, Atom] = {}

    def take(n: int, reverse: bool) -> Group:
        """Take the atoms of an entry of the target off one end."""
        entry = target[n]
        if isinstance(entry, int) and entry == 0 and n < len(axes):
            entry = Extent(axes[n])
        order = atoms[::-1] if reverse else atoms
        count, product = 0, 1
        if isinstance(entry, Extent):
            count = len(entry.atoms)
        elif order and order[0].size == entry == 1:
            count = 1
        elif order and order[0].size is None and entry > 1 and not bound:
            bound[order[0]] = order[0]._replace(size=entry)
            count, product = 1, entry
        while isinstance(entry, int) and product < entry and count < len(order):
            product *= order[count].size or 0
            count += 1
            if product == 0:
                break
        found = tuple(atoms[len(atoms) - count :] if reverse else atoms[:count])
        if isinstance(entry, Extent) and found != entry.atoms:
            raise ValueError("rearranges the axes")
        if isinstance(entry, int) and entry != 1 and product != entry:
            raise ValueError(f"splits an axis, or has the fixed size {entry} for an unknown one")
        del atoms[len(atoms) - count if reverse else 0 : len(atoms) if reverse else count]
        return found

    left = [take(n, False) for n in range(middle)]
    right = [take(n, True) for n in range(len(target) - 1, middle, -1)][::-1]
    if (atoms and not unknown) or (len(atoms) > 1 and bound):
        raise ValueError(f"has the target {[*target]}, which does not hold all numbers")
    return [*left, tuple(atoms), *right] if unknown else left, bound


def shape_of(value: Signal | Stack) -> Array:
    """Return the shape of a value: of columns the numbers, of other axes what they are."""
    found = np.empty(len(value.axes), object)
    known = {*value.columns, Atom("direction", 1), Atom("direction", 2)}
    for n, group in enumerate(value.axes):
        size = size_of(group)
        found[n] = size if {*group} <= known and size is not None else Extent(group)
    return found
