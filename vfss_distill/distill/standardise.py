"""Making teachers' features comparable before their losses are weighed against each other.

`meanstd` scales each channel by itself. `phi-s` (PHI-S, Ranzinger et al. 2024) turns the channels
so that all have the same variance, then divides by one number: errors count alike over channels,
and no direction is blown up. Statistics come from the training patients only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard as sylvester

from ..config import Standardisation
from ..errors import ModelError

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Standardiser:
    """tokens (n, C) → (tokens - mean) @ matrix, or * scale where there is no matrix."""

    mean: Floats  # (C,)
    scale: Floats  # (C,)
    matrix: Floats | None = None  # (C, C)

    def __call__(self, tokens: Floats) -> Floats:
        centred = tokens - self.mean
        result = centred @ self.matrix if self.matrix is not None else centred * self.scale
        return result.astype(np.float32, copy=False)

    def invert(self, standardised: Floats) -> Floats:
        """Back to the teacher's own features."""
        if self.matrix is None:
            result: Floats = standardised / self.scale + self.mean
            return result
        # matrix = rotation / s, so its inverse is s² matrixᵀ.
        squared = 1 / float(np.square(self.matrix[:, 0]).sum())
        turned: Floats = standardised @ self.matrix.T * np.float32(squared) + self.mean
        return turned

    def arrays(self) -> dict[str, Floats]:
        known = {"mean": self.mean, "scale": self.scale}
        return known if self.matrix is None else {**known, "matrix": self.matrix}


def fit(kind: Standardisation, features: Iterable[Floats], *, teacher: str) -> Standardiser:
    """Statistics over tokens; `features` yields (n, C) float arrays.

    Raises ModelError when the features do not vary at all.
    """
    # Only the rotation needs how channels vary together, at many times the cost.
    together = kind == "phi-s"
    count, total, products = 0, None, None
    for tokens in features:
        wide = tokens.astype(np.float64)
        if total is None or products is None:
            channels = wide.shape[1]
            total = np.zeros(channels)
            products = np.zeros((channels, channels) if together else channels)
        count += len(wide)
        total += wide.sum(0)
        products += wide.T @ wide if together else np.square(wide).sum(0)
    if total is None or products is None:
        raise ModelError(f"teacher {teacher} gave no features to standardise")
    mean = total / count
    covariance = products / count - (np.outer(mean, mean) if together else np.square(mean))
    variance = np.maximum(np.diag(covariance) if together else covariance, 0)
    if kind != "none" and not variance.max() > 0:
        raise ModelError(f"features of teacher {teacher} are the same for every frame")
    return _standardiser(kind, mean, covariance, variance)


def _standardiser(
    kind: Standardisation,
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> Standardiser:
    channels = len(mean)
    if kind == "none":
        return Standardiser(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    if kind == "meanstd":
        # A channel that hardly varies carries noise: it is not blown up.
        std = np.maximum(np.sqrt(variance), 1e-3 * math.sqrt(variance.mean()))
        return Standardiser(mean.astype(np.float32), (1 / std).astype(np.float32))
    eigenvalues, vectors = np.linalg.eigh(covariance)
    eigenvalues = np.maximum(eigenvalues, 0)
    rotation = vectors @ isotropic_rotation(eigenvalues)
    matrix = rotation / math.sqrt(eigenvalues.mean())
    scale = np.full(channels, 1 / math.sqrt(eigenvalues.mean()), np.float32)
    return Standardiser(mean.astype(np.float32), scale, matrix.astype(np.float32))


def isotropic_rotation(eigenvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthogonal R (C, C) with all diagonal entries of Rᵀ diag(eigenvalues) R equal.

    A Hadamard matrix where one of this order is known, else Givens rotations (Schur–Horn).
    """
    channels = len(eigenvalues)
    matrix = hadamard(channels)
    return matrix / math.sqrt(channels) if matrix is not None else _givens(eigenvalues)


def hadamard(order: int) -> NDArray[np.float64] | None:
    """Sylvester (powers of two) times Paley (p + 1, p a prime with p mod 4 = 3), or None.

    768 = 64 · 12, 384 = 32 · 12, 192 = 16 · 12.
    """
    for base in (1, 12, 20, 24, 44, 60):
        twos, rest = divmod(order, base)
        if rest == 0 and twos & (twos - 1) == 0:
            core = _paley(base - 1) if base > 1 else np.ones((1, 1))
            return np.kron(sylvester(twos).astype(np.float64), core)
    return None


def _paley(prime: int) -> NDArray[np.float64]:
    squares = {number * number % prime for number in range(1, prime)}
    character = np.array([0] + [1 if n in squares else -1 for n in range(1, prime)], np.float64)
    size = prime + 1
    skew = np.zeros((size, size))
    skew[0, 1:], skew[1:, 0] = 1, -1
    index = np.arange(prime)
    skew[1:, 1:] = character[(index[None, :] - index[:, None]) % prime]
    return skew + np.eye(size)


def _givens(eigenvalues: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn the largest against the smallest until one of them is the mean; C - 1 times."""
    target = eigenvalues.mean()
    matrix = np.diag(eigenvalues).astype(np.float64)
    rotation = np.eye(len(eigenvalues))
    for _ in range(len(eigenvalues) - 1):
        diagonal = np.diag(matrix)
        i, j = int(diagonal.argmax()), int(diagonal.argmin())
        if diagonal[i] - diagonal[j] <= 1e-12 * max(abs(target), 1e-300):
            break
        # Angle with c² a_ii + s² a_jj - 2 s c a_ij = target, as a quadratic in t = tan.
        a, b, c = matrix[j, j] - target, -2 * matrix[i, j], matrix[i, i] - target
        tangent = (-b + math.sqrt(max(b * b - 4 * a * c, 0))) / (2 * a)
        cosine = 1 / math.sqrt(1 + tangent * tangent)
        turn = np.array([[cosine, tangent * cosine], [-tangent * cosine, cosine]])
        matrix[:, [i, j]] = matrix[:, [i, j]] @ turn
        matrix[[i, j], :] = turn.T @ matrix[[i, j], :]
        rotation[:, [i, j]] = rotation[:, [i, j]] @ turn
    return rotation
