"""Optimisers with PyTorch's arguments, defaults and results."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..engine import Array, update
from ..network import checks
from .optimizer import NoDecay, Optimizer, below_one, not_negative

__all__ = ["SGD", "Adam", "AdamW", "RMSprop"]


class SGD(Optimizer):
    """Stochastic gradient descent, as `torch.optim.SGD` without dampening.

        g += weight_decay p
        m = momentum m + g                         m = g in the first step
        p -= lr m     or, with nesterov,           p -= lr (g + momentum m)

    Parameters
    ----------
    lr : float
    momentum, weight_decay : float
        At least 0.
    nesterov : bool
        Nesterov's momentum, in the form of Sutskever et al., "On the importance of initialization
        and momentum in deep learning" (2013). Needs a momentum.
    no_decay : "vectors", names, or function of a name, optional
        The parameters that weight decay leaves out; "vectors" are all with one axis: biases, and
        the gains of layer norms.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or out of its range.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        no_decay: NoDecay = None,
    ) -> None:
        super().__init__(lr, weight_decay, no_decay)
        self.momentum = not_negative("momentum", momentum)
        self.nesterov = checks.boolean("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected a momentum with it, got momentum=0")
        self._kinds = ("momentum_buffer",) if self.momentum else ()

    def _update(
        self, p: Array, g: Array, kept: dict[str, Array], decayed: npt.NDArray[np.intp]
    ) -> None:
        update.sgd(
            p,
            g,
            kept.get("momentum_buffer"),
            rate=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            decay=self.weight_decay,
            decayed=decayed,
        )


class Adam(Optimizer):
    """Adam, as `torch.optim.Adam`: Kingma and Ba, "Adam: A method for stochastic optimization".

        g += weight_decay p
        m = beta1 m + (1 - beta1) g                v = beta2 v + (1 - beta2) g^2
        p -= lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)        in step t = 1, 2, ...

    Parameters
    ----------
    lr : float
    betas : (float, float)
        beta1 and beta2, at least 0 and below 1.
    eps, weight_decay : float
        At least 0.
    no_decay : "vectors", names, or function of a name, optional
        As in `SGD`.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or out of its range.
    """

    _kinds = ("exp_avg", "exp_avg_sq")
    _decoupled = False

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        no_decay: NoDecay = None,
    ) -> None:
        super().__init__(lr, weight_decay, no_decay)
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"betas: expected two numbers, got {betas!r}")
        self.betas = below_one("betas[0]", betas[0]), below_one("betas[1]", betas[1])
        self.eps = not_negative("eps", eps)

    def _update(
        self, p: Array, g: Array, kept: dict[str, Array], decayed: npt.NDArray[np.intp]
    ) -> None:
        beta1, beta2 = self.betas
        update.adam(
            p,
            g,
            kept["exp_avg"],
            kept["exp_avg_sq"],
            rate=self.lr / (1 - beta1**self.steps),
            momentum=beta1,
            square=beta2,
            root=1 / math.sqrt(1 - beta2**self.steps),
            eps=self.eps,
            decay=0 if self._decoupled else self.weight_decay,
            keep=1 - self.lr * self.weight_decay if self._decoupled else 1,
            decayed=decayed,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`.

    Weight decay is not part of the gradient; before the step of `Adam`,

        p -= lr weight_decay p

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019). Arguments are those of
    `Adam`, with another default of `weight_decay`.
    """

    _decoupled = True

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        no_decay: NoDecay = None,
    ) -> None:
        super().__init__(lr, betas, eps, weight_decay, no_decay=no_decay)


class RMSprop(Optimizer):
    """RMSprop, as `torch.optim.RMSprop` that is not centered: Hinton, lecture 6e of his course.

        g += weight_decay p                        v = alpha v + (1 - alpha) g^2
        p -= lr g / (sqrt(v) + eps)
        or, with momentum,                         m = momentum m + g / (sqrt(v) + eps),  p -= lr m

    Parameters
    ----------
    lr : float
    alpha : float
        From 0 to 1.
    eps, weight_decay, momentum : float
        At least 0.
    no_decay : "vectors", names, or function of a name, optional
        As in `SGD`.

    Raises
    ------
    TypeError, ValueError
        If an argument is no number, or out of its range.
    """

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        *,
        no_decay: NoDecay = None,
    ) -> None:
        super().__init__(lr, weight_decay, no_decay)
        self.alpha = checks.fraction("alpha", alpha)
        self.eps = not_negative("eps", eps)
        self.momentum = not_negative("momentum", momentum)
        self._kinds = ("square_avg", *["momentum_buffer"] * bool(self.momentum))

    def _update(
        self, p: Array, g: Array, kept: dict[str, Array], decayed: npt.NDArray[np.intp]
    ) -> None:
        update.rmsprop(
            p,
            g,
            kept.get("momentum_buffer"),
            kept["square_avg"],
            rate=self.lr,
            momentum=self.momentum,
            square=self.alpha,
            eps=self.eps,
            decay=self.weight_decay,
            decayed=decayed,
        )
