"""The same sums over observations as `kernels_torch.py`, compiled for the processor (optional: numba).

Observations are handled in blocks of `BLOCK`: residuals and Jacobian columns of a block are short arrays in the
processor's first cache, on which every loop runs with vector instructions. Notation as in `linearise.py`. Constants are
cast to the type of the data, because a Python float would silently turn float32 arithmetic into float64.
"""

import numpy as np
from numba import njit

BLOCK = 128
NUM_LOCAL = 12
_FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _robust(distance, gamma, offset):
    """Value and slope of g."""
    kind = distance.dtype.type
    value, slope = np.empty_like(distance), np.empty_like(distance)
    b, exponent = kind(offset), kind(gamma)
    if gamma == 0.5:
        half, base = kind(0.5), kind(offset**0.5)
        for r in range(len(distance)):
            root = np.sqrt(distance[r] + b)
            value[r] = root - base
            slope[r] = half / root
    elif gamma == 1.0:
        for r in range(len(distance)):
            value[r] = distance[r]
            slope[r] = kind(1)
    else:
        base = kind(offset**gamma)
        for r in range(len(distance)):
            shifted = distance[r] + b
            power = shifted**exponent
            value[r] = power - base
            slope[r] = exponent * power / shifted
    return value, slope


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _accumulate(jacobian, weighted, residual, hessian, gradient, count):
    """hessian += J W J^T (both halves) and gradient += J W r over the first `count` columns."""
    kind = jacobian.dtype.type
    for i in range(NUM_LOCAL):
        row = weighted[i]
        total = kind(0)
        for r in range(count):
            total += row[r] * residual[r]
        gradient[i] += total
        for j in range(i + 1):
            other = jacobian[j]
            total = kind(0)
            for r in range(count):
                total += row[r] * other[r]
            hessian[i, j] += total
            if j < i:
                hessian[j, i] += total


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def linearise_matches(
    first, last, start, pair, xy, goal, anchor, relief, weight, depth, kappa, anchor_start, robust,
    coupled, hessian, gradient, coupling, curvature, slope_of_depth, used_weight,
):  # fmt: skip
    """Normal equations of the directed pairs first .. last - 1, which share their source image.

    Fills hessian (pair, 12, 12), gradient (pair, 12); adds to coupling (anchor, 12 pairs), curvature and slope_of_depth
    (anchor) of the source's anchors; stores the weights. Returns smoothed cost and plain loss.
    """
    gamma, offset, eps2 = robust
    kind = xy.dtype.type
    one, zero, smooth = kind(1), kind(0), kind(eps2)
    near, closest = kind(1e-2), kind(1e-3)
    px, py, pz = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    scale, stretch = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    plain, distance = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    valid = np.empty(BLOCK, xy.dtype)
    residual, along = np.empty(2 * BLOCK, xy.dtype), np.empty(2 * BLOCK, xy.dtype)
    jacobian, weighted = np.empty((NUM_LOCAL, 2 * BLOCK), xy.dtype), np.empty((NUM_LOCAL, 2 * BLOCK), xy.dtype)
    mixed = np.empty((BLOCK, NUM_LOCAL), xy.dtype)
    cost, loss = 0.0, 0.0
    for k in range(first, last):
        p = pair[k]
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        t0, t1, t2, ft, cxt, cyt, ifs, cxs, cys, rf = p[9], p[10], p[11], p[12], p[13], p[14], p[15], p[16], p[17], p[18]
        low_x, low_y, high_x, high_y = p[19], p[20], p[21], p[22]
        hessian[k - first] = 0
        gradient[k - first] = 0
        for begin in range(start[k], start[k + 1], BLOCK):
            m = min(BLOCK, start[k + 1] - begin)
            for r in range(m):
                o = begin + r
                xs, ys = (xy[o, 0] - cxs) * ifs, (xy[o, 1] - cys) * ifs
                bracket = one + relief[o] * rf
                z = depth[anchor[o]] * bracket
                y2 = z * (r20 * xs + r21 * ys + r22) + t2
                inverse = one / max(y2, closest)
                x = (z * (r00 * xs + r01 * ys + r02) + t0) * inverse
                y = (z * (r10 * xs + r11 * ys + r12) + t1) * inverse
                u, v = ft * x + cxt, ft * y + cyt
                cu, cv = min(max(u, low_x), high_x), min(max(v, low_y), high_y)
                seen = (y2 > near * z) & (y2 > closest) & (cu == u) & (cv == v)
                valid[r] = one if seen else zero
                ru, rv = cu - goal[o, 0], cv - goal[o, 1]
                square = ru * ru + rv * rv
                plain[r], distance[r] = np.sqrt(square), np.sqrt(square + smooth)
                px[r], py[r], pz[r] = x, y, z
                scale[r], stretch[r] = ft * inverse, one / bracket
                residual[r], residual[m + r] = ru, rv
            value, slope = _robust(distance[:m], gamma, offset)
            exact, _ = _robust(plain[:m], gamma, offset)
            block_cost, block_loss = zero, zero
            for r in range(m):
                o = begin + r
                block_cost += weight[o] * value[r]
                block_loss += weight[o] * exact[r]
                used_weight[o] = valid[r] * weight[o] * slope[r] / distance[r]
            cost += block_cost
            loss += block_loss
            for r in range(m):
                o = begin + r
                x, y, z, fz = px[r] * valid[r], py[r] * valid[r], pz[r], scale[r] * valid[r]
                f = ft * valid[r]
                s = m + r
                jacobian[0, r], jacobian[1, r], jacobian[2, r] = -f * x * y, f * (one + x * x), -f * y
                jacobian[0, s], jacobian[1, s], jacobian[2, s] = -f * (one + y * y), f * x * y, f * x
                jacobian[3, r], jacobian[4, r], jacobian[5, r] = fz, zero, -fz * x
                jacobian[3, s], jacobian[4, s], jacobian[5, s] = zero, fz, -fz * y
                lu, lv = -fz * (t0 - x * t2), -fz * (t1 - y * t2)
                along[r], along[s] = lu, lv
                zf = z * fz
                e = kappa[anchor[o]] - one - relief[o] * rf * stretch[r]
                jacobian[6, r] = e * lu + zf * (r02 - x * r22)
                jacobian[6, s] = e * lv + zf * (r12 - y * r22)
                g = -zf * ifs
                jacobian[7, r], jacobian[7, s] = g * (r00 - x * r20), g * (r10 - y * r20)
                jacobian[8, r], jacobian[8, s] = g * (r01 - x * r21), g * (r11 - y * r21)
                jacobian[9, r], jacobian[9, s] = f * x, f * y
                jacobian[10, r], jacobian[10, s] = one, zero
                jacobian[11, r], jacobian[11, s] = zero, one
            for i in range(NUM_LOCAL):
                for r in range(m):
                    w = used_weight[begin + r]
                    weighted[i, r] = w * jacobian[i, r]
                    weighted[i, m + r] = w * jacobian[i, m + r]
            _accumulate(jacobian, weighted, residual, hessian[k - first], gradient[k - first], 2 * m)
            if coupled:
                _couple(
                    weighted, along, residual, used_weight[begin : begin + m], anchor[begin : begin + m],
                    anchor_start, (k - first) * NUM_LOCAL, mixed, coupling, curvature, slope_of_depth, 2,
                )  # fmt: skip
    return cost, loss


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _couple(
    weighted, along, residual, w, anchor, anchor_start, column, mixed, coupling, curvature, slope_of_depth, dim
):
    """Add what ties the depths to the local unknowns; weighted: W J, along: derivative of residuals by log depth."""
    m = len(w)
    for i in range(NUM_LOCAL):
        for r in range(m):
            mixed[r, i] = weighted[i, r] * along[r]
        for d in range(1, dim):
            for r in range(m):
                mixed[r, i] += weighted[i, d * m + r] * along[d * m + r]
    for r in range(m):
        a = anchor[r] - anchor_start
        for i in range(NUM_LOCAL):
            coupling[a, column + i] += mixed[r, i]
        square, product = along[r] * along[r], along[r] * residual[r]
        for d in range(1, dim):
            square += along[d * m + r] * along[d * m + r]
            product += along[d * m + r] * residual[d * m + r]
        curvature[a] += w[r] * square
        slope_of_depth[a] += w[r] * product


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def depths_from_matches(
    start, pair, xy, goal, anchor, relief, weight, depth, robust, stored, used_weight, curvature, slope_of_depth
):
    """One Newton step's curvature and slope for every depth, with stored or fresh weights, and smoothed cost and loss."""
    gamma, offset, eps2 = robust
    kind = xy.dtype.type
    one, zero, smooth = kind(1), kind(0), kind(eps2)
    near, closest = kind(1e-2), kind(1e-3)
    lu, lv = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    ru, rv = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    plain, distance = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    valid = np.empty(BLOCK, xy.dtype)
    cost, loss = 0.0, 0.0
    for k in range(len(start) - 1):
        p = pair[k]
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8]
        t0, t1, t2, ft, cxt, cyt, ifs, cxs, cys, rf = p[9], p[10], p[11], p[12], p[13], p[14], p[15], p[16], p[17], p[18]
        low_x, low_y, high_x, high_y = p[19], p[20], p[21], p[22]
        for begin in range(start[k], start[k + 1], BLOCK):
            m = min(BLOCK, start[k + 1] - begin)
            for r in range(m):
                o = begin + r
                xs, ys = (xy[o, 0] - cxs) * ifs, (xy[o, 1] - cys) * ifs
                z = depth[anchor[o]] * (one + relief[o] * rf)
                y2 = z * (r20 * xs + r21 * ys + r22) + t2
                inverse = one / max(y2, closest)
                x = (z * (r00 * xs + r01 * ys + r02) + t0) * inverse
                y = (z * (r10 * xs + r11 * ys + r12) + t1) * inverse
                u, v = ft * x + cxt, ft * y + cyt
                cu, cv = min(max(u, low_x), high_x), min(max(v, low_y), high_y)
                seen = (y2 > near * z) & (y2 > closest) & (cu == u) & (cv == v)
                keep = one if seen else zero
                ru[r], rv[r] = cu - goal[o, 0], cv - goal[o, 1]
                square = ru[r] * ru[r] + rv[r] * rv[r]
                plain[r], distance[r] = np.sqrt(square), np.sqrt(square + smooth)
                fz = -ft * inverse * keep
                lu[r], lv[r] = fz * (t0 - x * t2), fz * (t1 - y * t2)
                valid[r] = keep
            value, slope = _robust(distance[:m], gamma, offset)
            exact, _ = _robust(plain[:m], gamma, offset)
            block_cost, block_loss = zero, zero
            for r in range(m):
                o = begin + r
                block_cost += weight[o] * value[r]
                block_loss += weight[o] * exact[r]
                distance[r] = used_weight[o] if stored else weight[o] * slope[r] / distance[r]
            cost += block_cost
            loss += block_loss
            for r in range(m):
                ru[r] = distance[r] * (lu[r] * ru[r] + lv[r] * rv[r])
                rv[r] = distance[r] * (lu[r] * lu[r] + lv[r] * lv[r])
            for r in range(m):
                a = anchor[begin + r]
                slope_of_depth[a] += ru[r]
                curvature[a] += rv[r]
    return cost, loss


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def linearise_targets(
    first, last, start, pair, xy, goal, anchor, relief, weight, depth, kappa, anchor_start, robust,
    coupled, hessian, gradient, coupling, curvature, slope_of_depth, used_weight, column,
):  # fmt: skip
    """As `linearise_matches` for regression targets, 3D points in the target's frame; coupling starts at `column`."""
    gamma, offset, eps2 = robust
    kind = xy.dtype.type
    one, zero, smooth = kind(1), kind(0), kind(eps2)
    plain, distance = np.empty(BLOCK, xy.dtype), np.empty(BLOCK, xy.dtype)
    residual, along = np.empty(3 * BLOCK, xy.dtype), np.empty(3 * BLOCK, xy.dtype)
    jacobian, weighted = np.zeros((NUM_LOCAL, 3 * BLOCK), xy.dtype), np.empty((NUM_LOCAL, 3 * BLOCK), xy.dtype)
    mixed = np.empty((BLOCK, NUM_LOCAL), xy.dtype)
    cost, loss = 0.0, 0.0
    for k in range(first, last):
        p = pair[k]
        rotation, shift = p[:9].reshape(3, 3), p[9:12]
        unit, size, ifs, cxs, cys, rf = p[12], p[13], p[15], p[16], p[17], p[18]
        hessian[k - first] = 0
        gradient[k - first] = 0
        for begin in range(start[k], start[k + 1], BLOCK):
            m = min(BLOCK, start[k + 1] - begin)
            jacobian[:, :] = zero
            for r in range(m):
                o = begin + r
                xs, ys = (xy[o, 0] - cxs) * ifs, (xy[o, 1] - cys) * ifs
                bracket = one + relief[o] * rf
                z = depth[anchor[o]] * bracket
                e = kappa[anchor[o]] - one - relief[o] * rf / bracket
                square = zero
                y0, y1, y2 = zero, zero, zero
                for d in range(3):
                    spread = z * (rotation[d, 0] * xs + rotation[d, 1] * ys + rotation[d, 2])
                    y = spread + shift[d]
                    target = size * goal[o, d]
                    value = unit * (y - target)
                    s = d * m + r
                    residual[s] = value
                    square += value * value
                    along[s] = unit * spread
                    jacobian[3 + d, s] = unit
                    jacobian[6, s] = unit * (e * spread + z * rotation[d, 2])
                    jacobian[7, s] = -unit * z * ifs * rotation[d, 0]
                    jacobian[8, s] = -unit * z * ifs * rotation[d, 1]
                    jacobian[9, s] = -unit * target
                    jacobian[10, s] = unit * spread
                    if d == 0:
                        y0 = unit * y
                    elif d == 1:
                        y1 = unit * y
                    else:
                        y2 = unit * y
                # a x Y
                jacobian[1, r], jacobian[2, r] = y2, -y1
                jacobian[0, m + r], jacobian[2, m + r] = -y2, y0
                jacobian[0, 2 * m + r], jacobian[1, 2 * m + r] = y1, -y0
                plain[r], distance[r] = np.sqrt(square), np.sqrt(square + smooth)
            value, slope = _robust(distance[:m], gamma, offset)
            exact, _ = _robust(plain[:m], gamma, offset)
            for r in range(m):
                o = begin + r
                cost += weight[o] * value[r]
                loss += weight[o] * exact[r]
                w = weight[o] * slope[r] / distance[r]
                used_weight[o] = w
                for i in range(NUM_LOCAL):
                    for d in range(3):
                        weighted[i, d * m + r] = w * jacobian[i, d * m + r]
            _accumulate(jacobian, weighted, residual, hessian[k - first], gradient[k - first], 3 * m)
            if coupled:
                _couple(
                    weighted, along, residual, used_weight[begin : begin + m], anchor[begin : begin + m],
                    anchor_start, column + (k - first) * NUM_LOCAL, mixed, coupling, curvature, slope_of_depth, 3,
                )  # fmt: skip
    return cost, loss


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def depths_from_targets(
    start, pair, xy, goal, anchor, relief, weight, depth, robust, stored, used_weight, curvature, slope_of_depth
):
    """As `depths_from_matches` for regression targets."""
    gamma, offset, eps2 = robust
    kind = xy.dtype.type
    one, zero = kind(1), kind(0)
    plain, distance = np.empty(1, xy.dtype), np.empty(1, xy.dtype)
    cost, loss = 0.0, 0.0
    for k in range(len(start) - 1):
        p = pair[k]
        rotation, shift = p[:9].reshape(3, 3), p[9:12]
        unit, size, ifs, cxs, cys, rf = p[12], p[13], p[15], p[16], p[17], p[18]
        for o in range(start[k], start[k + 1]):
            xs, ys = (xy[o, 0] - cxs) * ifs, (xy[o, 1] - cys) * ifs
            z = depth[anchor[o]] * (one + relief[o] * rf)
            square, length, product = zero, zero, zero
            for d in range(3):
                spread = unit * z * (rotation[d, 0] * xs + rotation[d, 1] * ys + rotation[d, 2])
                value = spread + unit * (shift[d] - size * goal[o, d])
                square += value * value
                length += spread * spread
                product += spread * value
            plain[0], distance[0] = np.sqrt(square), np.sqrt(square + kind(eps2))
            value_of, slope = _robust(distance, gamma, offset)
            exact, _ = _robust(plain, gamma, offset)
            cost += weight[o] * value_of[0]
            loss += weight[o] * exact[0]
            w = used_weight[o] if stored else weight[o] * slope[0] / distance[0]
            slope_of_depth[anchor[o]] += w * product
            curvature[anchor[o]] += w * length
    return cost, loss
