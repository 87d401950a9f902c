# mypy: disallow-untyped-defs=False
"""The same sums over observations as `sums_torch.py`, compiled for the processor (optional: numba).

Observations are handled in blocks of `BLOCK`, padded with repetitions of no weight. All that is computed for a block
lies in one short array in the processor's first cache, a quantity every `BLOCK` (or two blocks: u above v) numbers, and
every loop over it has a constant length, so that the compiler uses vector instructions. Notation as in `linearise.py`.
Constants are cast to the type of the data, because a Python float would silently turn float32 arithmetic into float64.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

BLOCK = 64
TWO = 2 * BLOCK
NUM_LOCAL = 12
_FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
# Where quantities of a block begin in its scratch array.
RAY_X, RAY_Y, BRACKET, DEPTH, KAPPA = 0, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK
GOAL_X, GOAL_Y, CONFIDENCE, RELIEF = 5 * BLOCK, 6 * BLOCK, 7 * BLOCK, 8 * BLOCK
X, Y, SCALE, VALID, PLAIN, DISTANCE = 9 * BLOCK, 10 * BLOCK, 11 * BLOCK, 12 * BLOCK, 13 * BLOCK, 14 * BLOCK
VALUE, SLOPE, EXACT, UNUSED, WEIGHT = 15 * BLOCK, 16 * BLOCK, 17 * BLOCK, 18 * BLOCK, 19 * BLOCK
SQUARE, RESIDUAL, ALONG = 20 * BLOCK, 21 * BLOCK, 23 * BLOCK
JACOBIAN = 25 * BLOCK
WEIGHTED = JACOBIAN + NUM_LOCAL * TWO
SCRATCH = WEIGHTED + NUM_LOCAL * TWO


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile, once: the machine code is cached beside this file. What a run-time type checker put around it is
    removed."""
    compiled: Callable[..., Any] = njit(cache=True, fastmath=_FAST, error_model="numpy")(inspect.unwrap(function))
    return compiled


def _inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile as a part of whatever calls it."""
    compiled: Callable[..., Any] = njit(fastmath=_FAST, error_model="numpy", inline="always")(inspect.unwrap(function))
    return compiled


@_inlined
def _robust(s, distance, value, slope, gamma, offset):
    """Value and slope of g for a block of distances."""
    kind = s.dtype.type
    b, exponent = kind(offset), kind(gamma)
    if gamma == 0.5:
        half, base = kind(0.5), kind(offset**0.5)
        for r in range(BLOCK):
            root = np.sqrt(s[distance + r] + b)
            s[value + r] = root - base
            s[slope + r] = half / root
    elif gamma == 1.0:
        for r in range(BLOCK):
            s[value + r] = s[distance + r]
            s[slope + r] = kind(1)
    else:
        base = kind(offset**gamma)
        for r in range(BLOCK):
            shifted = s[distance + r] + b
            power = shifted**exponent
            s[value + r] = power - base
            s[slope + r] = exponent * power / shifted


@_inlined
def _gather(s, begin, end, xy, goal, anchor, ratio, weight, depth, ifs, cxs, cys, rf):
    """Copy a block of observations; behind its end the last one is repeated without weight."""
    one, zero = s.dtype.type(1), s.dtype.type(0)
    for r in range(BLOCK):
        o = min(begin + r, end - 1)
        s[RAY_X + r] = (xy[o, 0] - cxs) * ifs
        s[RAY_Y + r] = (xy[o, 1] - cys) * ifs
        relief = (ratio[o] - one) * rf
        bracket = one + relief
        s[RELIEF + r] = relief
        s[BRACKET + r] = bracket
        s[DEPTH + r] = depth[anchor[o]] * bracket
        s[GOAL_X + r] = goal[o, 0]
        s[GOAL_Y + r] = goal[o, 1]
        s[CONFIDENCE + r] = weight[o] if begin + r < end else zero


@_inlined
def _project(s, p, eps2):
    """Residuals of a block and whether they say anything."""
    kind = s.dtype.type
    one, zero, smooth = kind(1), kind(0), kind(eps2)
    near, closest = kind(1e-2), kind(1e-3)
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
    t0, t1, t2, ft, cxt, cyt = p[9], p[10], p[11], p[12], p[13], p[14]
    low_x, low_y, high_x, high_y = p[19], p[20], p[21], p[22]
    for r in range(BLOCK):
        xs, ys, z = s[RAY_X + r], s[RAY_Y + r], s[DEPTH + r]
        y2 = z * (r20 * xs + r21 * ys + r22) + t2
        inverse = one / max(y2, closest)
        x = (z * (r00 * xs + r01 * ys + r02) + t0) * inverse
        y = (z * (r10 * xs + r11 * ys + r12) + t1) * inverse
        u, v = ft * x + cxt, ft * y + cyt
        cu, cv = min(max(u, low_x), high_x), min(max(v, low_y), high_y)
        seen = (y2 > near * z) & (y2 > closest) & (cu == u) & (cv == v)
        ru, rv = cu - s[GOAL_X + r], cv - s[GOAL_Y + r]
        square = ru * ru + rv * rv
        s[X + r], s[Y + r] = x, y
        s[SCALE + r] = ft * inverse
        s[VALID + r] = one if seen else zero
        s[SQUARE + r] = square
        s[DISTANCE + r] = np.sqrt(square + smooth)
        s[RESIDUAL + r], s[RESIDUAL + BLOCK + r] = ru, rv


@_inlined
def _total(s, values):
    """Confidence times values, summed over a block."""
    total = s.dtype.type(0)
    for r in range(BLOCK):
        total += s[CONFIDENCE + r] * s[values + r]
    return total


@_inlined
def _accumulate(s, hessian, gradient):
    """hessian += J W J^T (a staircase that covers the lower half) and gradient += J W r: 2 x 4 elements at a time."""
    zero = s.dtype.type(0)
    for i in range(0, NUM_LOCAL, 2):
        w = WEIGHTED + i * TWO
        g0, g1 = zero, zero
        for r in range(TWO):
            g0 += s[w + r] * s[RESIDUAL + r]
            g1 += s[w + TWO + r] * s[RESIDUAL + r]
        gradient[i] += g0
        gradient[i + 1] += g1
        for j in range(0, i + 2, 4):
            c = JACOBIAN + j * TWO
            a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
            for r in range(TWO):
                u, v = s[w + r], s[w + TWO + r]
                c0, c1, c2, c3 = s[c + r], s[c + TWO + r], s[c + 2 * TWO + r], s[c + 3 * TWO + r]
                a0 += u * c0
                a1 += u * c1
                a2 += u * c2
                a3 += u * c3
                b0 += v * c0
                b1 += v * c1
                b2 += v * c2
                b3 += v * c3
            hessian[i, j] += a0
            hessian[i, j + 1] += a1
            hessian[i, j + 2] += a2
            hessian[i, j + 3] += a3
            hessian[i + 1, j] += b0
            hessian[i + 1, j + 1] += b1
            hessian[i + 1, j + 2] += b2
            hessian[i + 1, j + 3] += b3


@_inlined
def _mirror(matrix):
    """Copy the lower half of a symmetric matrix to the upper one."""
    for i in range(NUM_LOCAL):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@_compiled
def linearise_matches(
    first, last, span, pair, xy, goal, anchor, ratio, weight, depth, kappa, anchor_start, robust,
    coupled, hessian, gradient, coupling, column, curvature, slope_of_depth, used_weight,
):  # fmt: skip
    """Normal equations of the directed pairs first .. last - 1, which share their source image.

    Fills hessian (pair, 12, 12), gradient (pair, 12); adds to coupling (anchor, 9 a pair from `column` on, and 3 of the
    source's intrinsics), curvature and slope_of_depth (anchor) of the source's anchors; stores the weights. Returns
    smoothed cost and plain loss.
    """
    gamma, offset, eps2 = robust
    kind = xy.dtype.type
    one, zero = kind(1), kind(0)
    s = np.zeros(SCRATCH, xy.dtype)
    row = np.empty(NUM_LOCAL, xy.dtype)
    cost, loss = 0.0, 0.0
    shared = coupling.shape[1] - 3
    for k in range(first, last):
        own = column + 9 * (k - first)
        p = pair[k]
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        t0, t1, t2, ft, ifs, cxs, cys, rf = p[9], p[10], p[11], p[12], p[15], p[16], p[17], p[18]
        hessian[k - first] = 0
        gradient[k - first] = 0
        for begin in range(span[k, 0], span[k, 1], BLOCK):
            m = min(BLOCK, span[k, 1] - begin)
            _gather(s, begin, begin + m, xy, goal, anchor, ratio, weight, depth, ifs, cxs, cys, rf)
            for r in range(BLOCK):
                s[KAPPA + r] = kappa[anchor[min(begin + r, begin + m - 1)]] - one
            _project(s, p, eps2)
            for r in range(BLOCK):
                s[PLAIN + r] = np.sqrt(s[SQUARE + r])
            _robust(s, PLAIN, EXACT, UNUSED, gamma, offset)
            _robust(s, DISTANCE, VALUE, SLOPE, gamma, offset)
            cost += _total(s, VALUE)
            loss += _total(s, EXACT)
            for r in range(BLOCK):
                s[WEIGHT + r] = s[VALID + r] * s[CONFIDENCE + r] * s[SLOPE + r] / s[DISTANCE + r]
            for r in range(m):
                used_weight[begin + r] = s[WEIGHT + r]
            for r in range(BLOCK):
                valid = s[VALID + r]
                x, y, f, fz = s[X + r] * valid, s[Y + r] * valid, ft * valid, s[SCALE + r] * valid
                j, q = JACOBIAN + r, JACOBIAN + BLOCK + r
                s[j], s[j + TWO], s[j + 2 * TWO] = -f * x * y, f + f * x * x, -f * y
                s[q], s[q + TWO], s[q + 2 * TWO] = -f - f * y * y, f * x * y, f * x
                s[j + 3 * TWO], s[j + 4 * TWO], s[j + 5 * TWO] = fz, zero, -fz * x
                s[q + 3 * TWO], s[q + 4 * TWO], s[q + 5 * TWO] = zero, fz, -fz * y
                s[j + 9 * TWO], s[j + 10 * TWO], s[j + 11 * TWO] = f * x, one, zero
                s[q + 9 * TWO], s[q + 10 * TWO], s[q + 11 * TWO] = f * y, zero, one
            for r in range(BLOCK):
                valid = s[VALID + r]
                x, y, fz = s[X + r] * valid, s[Y + r] * valid, s[SCALE + r] * valid
                j, q = JACOBIAN + r, JACOBIAN + BLOCK + r
                lu, lv = -fz * (t0 - x * t2), -fz * (t1 - y * t2)
                s[ALONG + r], s[ALONG + BLOCK + r] = lu, lv
                zf = s[DEPTH + r] * fz
                e = s[KAPPA + r] - s[RELIEF + r] / s[BRACKET + r]
                g = -zf * ifs
                s[j + 6 * TWO], s[q + 6 * TWO] = e * lu + zf * (r02 - x * r22), e * lv + zf * (r12 - y * r22)
                s[j + 7 * TWO], s[q + 7 * TWO] = g * (r00 - x * r20), g * (r10 - y * r20)
                s[j + 8 * TWO], s[q + 8 * TWO] = g * (r01 - x * r21), g * (r11 - y * r21)
            for i in range(NUM_LOCAL):
                j, w = JACOBIAN + i * TWO, WEIGHTED + i * TWO
                for r in range(BLOCK):
                    s[w + r] = s[WEIGHT + r] * s[j + r]
                    s[w + BLOCK + r] = s[WEIGHT + r] * s[j + BLOCK + r]
            _accumulate(s, hessian[k - first], gradient[k - first])
            if coupled:
                # the first half of each weighted column becomes its product with the derivative by the log depth
                for i in range(NUM_LOCAL):
                    w = WEIGHTED + i * TWO
                    for r in range(BLOCK):
                        s[w + r] = s[w + r] * s[ALONG + r] + s[w + BLOCK + r] * s[ALONG + BLOCK + r]
                for r in range(BLOCK):
                    lu, lv = s[ALONG + r], s[ALONG + BLOCK + r]
                    s[VALUE + r] = s[WEIGHT + r] * (lu * lu + lv * lv)
                    s[SLOPE + r] = s[WEIGHT + r] * (lu * s[RESIDUAL + r] + lv * s[RESIDUAL + BLOCK + r])
                for r in range(m):
                    a = anchor[begin + r] - anchor_start
                    for i in range(NUM_LOCAL):
                        row[i] = s[WEIGHTED + i * TWO + r]
                    for i in range(6):
                        coupling[a, own + i] += row[i]
                    for i in range(3):
                        coupling[a, own + 6 + i] += row[9 + i]
                        coupling[a, shared + i] += row[6 + i]
                    curvature[a] += s[VALUE + r]
                    slope_of_depth[a] += s[SLOPE + r]
        _mirror(hessian[k - first])
    return cost, loss


@_compiled
def depths_from_matches(
    span, pair, xy, goal, anchor, ratio, weight, depth, robust, stored, used_weight, curvature, slope_of_depth
):
    """One Newton step's curvature and slope for every depth, with stored or fresh weights, and the cost."""
    gamma, offset, eps2 = robust
    s = np.zeros(SCRATCH, xy.dtype)
    cost = 0.0
    for k in range(len(span)):
        p = pair[k]
        t0, t1, t2, ifs, cxs, cys, rf = p[9], p[10], p[11], p[15], p[16], p[17], p[18]
        for begin in range(span[k, 0], span[k, 1], BLOCK):
            m = min(BLOCK, span[k, 1] - begin)
            _gather(s, begin, begin + m, xy, goal, anchor, ratio, weight, depth, ifs, cxs, cys, rf)
            _project(s, p, eps2)
            _robust(s, DISTANCE, VALUE, SLOPE, gamma, offset)
            cost += _total(s, VALUE)
            if stored:
                for r in range(BLOCK):
                    s[WEIGHT + r] = used_weight[min(begin + r, begin + m - 1)] * s[VALID + r]
            else:
                for r in range(BLOCK):
                    s[WEIGHT + r] = s[VALID + r] * s[CONFIDENCE + r] * s[SLOPE + r] / s[DISTANCE + r]
            for r in range(BLOCK):
                scale = -s[SCALE + r]
                lu, lv = scale * (t0 - s[X + r] * t2), scale * (t1 - s[Y + r] * t2)
                s[VALUE + r] = s[WEIGHT + r] * (lu * lu + lv * lv)
                s[SLOPE + r] = s[WEIGHT + r] * (lu * s[RESIDUAL + r] + lv * s[RESIDUAL + BLOCK + r])
            for r in range(m):
                a = anchor[begin + r]
                curvature[a] += s[VALUE + r]
                slope_of_depth[a] += s[SLOPE + r]
    return cost


@_compiled
def _g(distance, gamma, offset):
    """Value and slope of g at one distance."""
    shifted = distance + offset
    power = np.sqrt(shifted) if gamma == 0.5 else shifted**gamma
    return power - offset**gamma, gamma * power / shifted if shifted > 0 else 1.0


@_compiled
def linearise_targets(
    first, last, span, pair, xy, goal, anchor, ratio, weight, depth, kappa, anchor_start, robust,
    coupled, hessian, gradient, coupling, column, curvature, slope_of_depth, used_weight,
):  # fmt: skip
    """As `linearise_matches` for regression targets, 3D points in the target's frame, one by one in float64."""
    gamma, offset, eps2 = robust
    jacobian = np.zeros((3, NUM_LOCAL))
    residual, along, y, mixed = np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(NUM_LOCAL)
    cost, loss = 0.0, 0.0
    shared = coupling.shape[1] - 3
    for k in range(first, last):
        own = column + 9 * (k - first)
        p = pair[k].astype(np.float64)
        rotation, shift = p[:9].reshape(3, 3), p[9:12]
        unit, size, ifs, cxs, cys, rf = p[12], p[13], p[15], p[16], p[17], p[18]
        h, g = hessian[k - first], gradient[k - first]
        h[:] = 0
        g[:] = 0
        for o in range(span[k, 0], span[k, 1]):
            xs, ys = (xy[o, 0] - cxs) * ifs, (xy[o, 1] - cys) * ifs
            relief = (ratio[o] - 1) * rf
            z = depth[anchor[o]] * (1 + relief)
            e = kappa[anchor[o]] - 1 - relief / (1 + relief)
            square = 0.0
            for d in range(3):
                spread = unit * z * (rotation[d, 0] * xs + rotation[d, 1] * ys + rotation[d, 2])
                target = unit * size * goal[o, d]
                y[d] = spread + unit * shift[d]
                residual[d] = y[d] - target
                square += residual[d] * residual[d]
                along[d] = spread
                jacobian[d, 3 + d] = unit
                jacobian[d, 6] = e * spread + unit * z * rotation[d, 2]
                jacobian[d, 7] = -unit * z * ifs * rotation[d, 0]
                jacobian[d, 8] = -unit * z * ifs * rotation[d, 1]
                jacobian[d, 9] = -target
                jacobian[d, 10] = spread
            # a x Y
            jacobian[0, 1], jacobian[0, 2] = y[2], -y[1]
            jacobian[1, 0], jacobian[1, 2] = -y[2], y[0]
            jacobian[2, 0], jacobian[2, 1] = y[1], -y[0]
            smooth = np.sqrt(square + eps2)
            value, slope = _g(smooth, gamma, offset)
            cost += weight[o] * value
            loss += weight[o] * _g(np.sqrt(square), gamma, offset)[0]
            w = weight[o] * slope / max(smooth, 1e-12)
            used_weight[o] = w
            mixed[:] = 0
            bend, pull = 0.0, 0.0
            for d in range(3):
                bend += w * along[d] * along[d]
                pull += w * along[d] * residual[d]
                for i in range(NUM_LOCAL):
                    weighted = w * jacobian[d, i]
                    g[i] += weighted * residual[d]
                    mixed[i] += weighted * along[d]
                    for j in range(NUM_LOCAL):
                        h[i, j] += weighted * jacobian[d, j]
            if coupled:
                a = anchor[o] - anchor_start
                for i in range(6):
                    coupling[a, own + i] += mixed[i]
                for i in range(3):
                    coupling[a, own + 6 + i] += mixed[9 + i]
                    coupling[a, shared + i] += mixed[6 + i]
                curvature[a] += bend
                slope_of_depth[a] += pull
    return cost, loss


@_compiled
def depths_from_targets(
    span, pair, xy, goal, anchor, ratio, weight, depth, robust, stored, used_weight, curvature, slope_of_depth
):
    """As `depths_from_matches` for regression targets."""
    gamma, offset, eps2 = robust
    cost = 0.0
    for k in range(len(span)):
        p = pair[k].astype(np.float64)
        rotation, shift = p[:9].reshape(3, 3), p[9:12]
        unit, size, ifs, cxs, cys, rf = p[12], p[13], p[15], p[16], p[17], p[18]
        for o in range(span[k, 0], span[k, 1]):
            xs, ys = (xy[o, 0] - cxs) * ifs, (xy[o, 1] - cys) * ifs
            z = unit * depth[anchor[o]] * (1 + (ratio[o] - 1) * rf)
            square, length, product = 0.0, 0.0, 0.0
            for d in range(3):
                spread = z * (rotation[d, 0] * xs + rotation[d, 1] * ys + rotation[d, 2])
                value = spread + unit * (shift[d] - size * goal[o, d])
                square += value * value
                length += spread * spread
                product += spread * value
            smooth = np.sqrt(square + eps2)
            value, slope = _g(smooth, gamma, offset)
            cost += weight[o] * value
            w = used_weight[o] if stored else weight[o] * slope / max(smooth, 1e-12)
            slope_of_depth[anchor[o]] += w * product
            curvature[anchor[o]] += w * length
    return cost
