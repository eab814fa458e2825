"""Smooth outlines from few control points, and what is done to them.

Points are float64 arrays (n, 2) of x, y. In the patient's frame they are millimetres, origin in the
middle of the C4 body, x towards the back, y along the spine towards the feet.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@lru_cache(maxsize=128)
def _catmull_rom(n: int, per_segment: int, closed: bool) -> Points:
    """Matrix (samples, n) that turns n control points into a curve through all of them."""
    segments = n if closed else n - 1
    u = np.arange(per_segment) / per_segment
    weights = 0.5 * np.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2]
    )
    basis = np.zeros((segments * per_segment + (not closed), n))
    for segment in range(segments):
        rows = slice(segment * per_segment, (segment + 1) * per_segment)
        for k in range(4):
            point = segment + k - 1
            point = point % n if closed else min(max(point, 0), n - 1)
            basis[rows, point] += weights[k]
    if not closed:
        basis[-1, -1] = 1.0
    basis.setflags(write=False)
    return basis


def smooth(points: Any, *, per_segment: int = 6, closed: bool = True) -> Points:
    """Catmull-Rom curve through `points`: (segments * per_segment [+ 1 if open], 2)."""
    controls = np.asarray(points, np.float64)
    curve: Points = _catmull_rom(len(controls), per_segment, closed) @ controls
    return curve


def turned(points: Any, degrees: float, pivot: Any = (0.0, 0.0)) -> Points:
    """Rotated about `pivot`, clockwise on the screen (y points down) for positive angles."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.asarray(pivot, np.float64)
    result: Points = (np.asarray(points, np.float64) - centre) @ matrix.T + centre
    return result


def rotation_about(pivot: Points, degrees: float, shift: Any = (0.0, 0.0)) -> Points:
    """2×3 matrix: rotate about `pivot`, then shift."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    offset = np.asarray(pivot) - matrix @ np.asarray(pivot) + np.asarray(shift)
    return np.column_stack([matrix, offset])


def moved(points: Points, matrix: Points) -> Points:
    """`points` under a 2×3 affine matrix."""
    result: Points = points @ matrix[:, :2].T + matrix[:, 2]
    return result


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Points:
    """Closed outline with 28 points."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    flat = np.column_stack([rx * np.cos(angle), ry * np.sin(angle)])
    return turned(flat, degrees) + np.array([x, y])


def ribbon(centre: Points, widths: NDArray[np.float64]) -> Points:
    """Closed outline around an open centre line; `widths` are full widths at its points."""
    tangent = np.gradient(centre, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) * (widths[:, None] / 2)
    return np.concatenate([centre + normal, (centre - normal)[::-1]])


def below(points: Points, direction: Any, fill: float) -> Points:
    """The part of a closed outline that a liquid fills from the bottom up to a share `fill`.

    `direction` points down (gravity); the share is of the outline's height along it.
    """
    if fill <= 0 or len(points) < 3:
        return np.zeros((0, 2))
    if fill >= 1:
        return points
    height = points @ np.asarray(direction, np.float64)
    level = height.max() - fill * (height.max() - height.min())
    kept = []
    for i in range(len(points)):
        j = (i + 1) % len(points)
        if height[i] >= level:
            kept.append(points[i])
        if (height[i] >= level) != (height[j] >= level):
            u = (level - height[i]) / (height[j] - height[i])
            kept.append(points[i] + u * (points[j] - points[i]))
    return np.array(kept) if len(kept) > 2 else np.zeros((0, 2))


def smoothstep(x: Any) -> Any:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def ease(times: NDArray[np.float64], keys: Any, values: Any) -> NDArray[np.float64]:
    """Smooth interpolation that rests at every key; constant outside the keys (ascending)."""
    t, v = np.asarray(keys, np.float64), np.asarray(values, np.float64)
    i = np.clip(np.searchsorted(t, times, side="right") - 1, 0, len(t) - 2)
    u = smoothstep((times - t[i]) / np.maximum(t[i + 1] - t[i], 1e-9))
    result: NDArray[np.float64] = v[i] + (v[i + 1] - v[i]) * u
    return result
