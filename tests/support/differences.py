"""Gradients against difference quotients of the loss they belong to."""

import numpy as np

COUNT = 8


def assert_gradient(
    gradient, loss, array, *, tolerance, floor=0.0, step=1e-5, where="", effect=True
):
    """Compare a gradient of loss() with central differences of it.

    With `effect`, one of these at least must be large.

    Slopes are taken along each element of a small array. Of a larger one they are taken along
    `COUNT` vectors of random signs. A gradient in which some element errs by e has a wrong slope
    along each of these, by e at least, with a probability of one half: whatever the other elements
    are, one of the two signs of this one does not make the error smaller. So none of them notices
    with a probability of 1 / 256 at most; a single wrong element is always noticed.

    A slope may err by `tolerance` times the largest element of the gradient, or `floor`. Itself, it
    errs by about step**2 times a third derivative (truncation), and 1e-16 / step (rounding). loss()
    sees `array` change in place. Several arrays, in lists, are as one.
    """
    gradients, arrays = ([a] if isinstance(a, np.ndarray) else a for a in (gradient, array))
    before, flat = ([a.copy() for a in arrays], np.concatenate([g.ravel() for g in gradients]))
    limit = tolerance * np.abs(flat).max(initial=floor)
    slopes = []
    for direction in directions(flat.size):
        sides = []
        for move in (step * direction, -step * direction):
            for a, b, part in zip(arrays, before, parts_like(arrays, move), strict=True):
                a[...] = b + part
            sides.append(loss())
        slopes.append((sides[0] - sides[1]) / (2 * step))
        error = abs(slopes[-1] - flat @ direction)
        assert error <= limit, f"{where}: {error:.3g} > {limit:.3g} along {direction.tolist()}"
    for a, b in zip(arrays, before, strict=True):
        a[...] = b
    if slopes and effect:
        assert np.abs(slopes).max() > 1e-3, f"{where} has no effect, so that nothing is checked"


def directions(size):
    """Return the directions of slopes: unit vectors, or vectors of random signs."""
    if size <= COUNT:
        return np.eye(size)
    return np.random.default_rng(size).choice([-1.0, 1.0], (COUNT, size))


def parts_like(arrays, vector):
    """Return consecutive elements of a vector in the shapes of some arrays."""
    ends = np.cumsum([a.size for a in arrays])
    parts = np.split(vector, ends[:-1])
    return [part.reshape(a.shape) for part, a in zip(parts, arrays, strict=True)]


def slopes(loss, array, step=1e-5):
    """Return central differences of loss() along each element of an array, in its shape."""
    found = np.empty(array.shape)
    for at in np.ndindex(array.shape):
        before = array[at]
        sides = []
        for move in (step, -step):
            array[at] = before + move
            sides.append(loss())
        array[at] = before
        found[at] = (sides[0] - sides[1]) / (2 * step)
    return found


def weighted_sum(results, weights):
    """Return a loss whose gradients with respect to the results are the weights."""
    return float(sum((a * w).sum() for a, w in zip(results, weights, strict=True)))
