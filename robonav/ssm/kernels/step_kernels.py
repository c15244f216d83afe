# mypy: ignore-errors
# A kernel's arguments are pointers and constants, for which Python has no types.
"""The imagination step's kernel. It needs triton; `kernels.step` imports it when it is called for.

One program a (block of latents, head, tile of P) does all that lies between the input and the output projection. The
state (P x N a latent and head) is read once and written once, to another tensor: that is the traffic that bounds the
step, and all else hides behind it.

The hyperbolic tangent is written 2 sigmoid(2x) - 1, which triton's interpreter knows as well.
"""

import triton
import triton.language as tl

TWO_PI: tl.constexpr = tl.constexpr(6.283185307179586)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)), with all digits where it is small: step sizes of 1e-6 are meant."""
    e = tl.exp(-tl.abs(x))
    return tl.maximum(x, 0.0) + tl.where(e < 0.01, e * (1 - e * (0.5 - e / 3)), tl.log(1 + e))


@triton.jit
def _silu(x):
    return x * tl.sigmoid(x)


@triton.jit
def _sine(x):
    """sin x for x in [-pi / 2, pi / 2] to 2e-7. The library's takes any x, and scratch memory with it."""
    u = x * x
    return x * (1.0 + u * (-1.6666648e-1 + u * (8.3328998e-3 + u * (-1.9800898e-4 + u * 2.5904885e-6))))


@triton.jit
def _floats(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _normed(base, weight, bias, n, scale, mask):
    """RMSNorm's result and the head's bias, for the columns n (BLOCK_N,) of latents at `base` (latents, 1)."""
    inside = mask & (n[None, :] >= 0)
    column = tl.where(n >= 0, n, 0)[None, :]
    return _floats(base + column, inside) * scale * _floats(weight + column, inside) + _floats(bias + column, inside)


@triton.jit
def _turned(base, weight, bias, n, partner, sign, cos, sin, mask, N: tl.constexpr, EPS: tl.constexpr):
    """B or C of one rank: normed, biased, and turned, (latents, BLOCK_N). `partner` is -1 where nothing turns."""
    raw = _floats(base + n[None, :], mask)
    scale = tl.rsqrt(tl.sum(raw * raw, 1) / N + EPS)[:, None]
    own = _normed(base, weight, bias, n, scale, mask)
    return own * cos + sign[None, :] * sin * _normed(base, weight, bias, partner, scale, mask)


@triton.jit
def fused_step(
    value, key, query, dt, gate, rate, trap, angle, value_b, key_b, query_b, dt_b, gate_b, rate_b, trap_b, angle_b,
    dt_bias, skip, log_rate, key_bias, query_bias, key_norm, query_norm, up, gate_up, down,
    hidden, theta, last_key, last_value, reset, y, new_hidden, new_theta, new_key, new_value, B,
    R: tl.constexpr, H: tl.constexpr, G: tl.constexpr, P: tl.constexpr, N: tl.constexpr, S: tl.constexpr,
    MAMBA3: tl.constexpr, MIMO: tl.constexpr, HALVES: tl.constexpr, RATIONAL: tl.constexpr,
    GATED: tl.constexpr, WIDE_SKIP: tl.constexpr, LIMITED: tl.constexpr, DT_LEAST: tl.constexpr, DT_MOST: tl.constexpr,
    EPS: tl.constexpr, LEAST_RATE: tl.constexpr,
    LATENTS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """See `kernels.step.fused_step`. Grid: latents / LATENTS, H, P / BLOCK_P."""
    head = tl.program_id(1)
    group = head // (H // G)
    first = tl.program_id(2) == 0  # what does not depend on P is written once
    lat = (tl.program_id(0) * LATENTS + tl.arange(0, LATENTS)).to(tl.int64)
    p = tl.program_id(2) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.arange(0, BLOCK_N)
    here = lat < B
    in_p = here[:, None] & (p[None, :] < P)  # (latents, BLOCK_P)
    in_n = here[:, None] & (n[None, :] < N)  # (latents, BLOCK_N)
    inside = in_p[:, :, None] & (n[None, None, :] < N)
    lat_head = lat * H + head
    at = lat_head[:, None, None] * (P * N) + p[None, :, None] * N + n[None, None, :]
    state = tl.load(hidden + at, mask=inside, other=0.0)

    # Decay.
    step = _softplus(_floats(dt + lat * dt_b + head, here) + tl.load(dt_bias + head).to(tl.float32))  # (latents,)
    if LIMITED:
        step = tl.minimum(tl.maximum(step, DT_LEAST), DT_MOST)
    if MAMBA3:
        raw = _floats(rate + lat * rate_b + head, here)
        decay = tl.maximum(raw, 0.0) + 1 / (1 - tl.minimum(raw, 0.0)) if RATIONAL else _softplus(raw)
        decay = tl.maximum(decay, LEAST_RATE)
    else:
        decay = tl.exp(tl.load(log_rate + head).to(tl.float32))
    alpha = tl.exp(-step * decay) * (1 - _floats(reset + lat, here))

    x = _floats(value + lat[:, None] * value_b + head * P + p[None, :], in_p)  # (latents, BLOCK_P)
    key += lat[:, None] * key_b + group * N  # (latents, 1)
    query += lat[:, None] * query_b + group * N
    if MAMBA3:
        # Angle of each column's pair, which column it turns with, and the sign of that one's sine.
        if HALVES:
            pair = n % (N // 2)
            low = n < N // 2
            partner = tl.where(low, n + N // 2, n - N // 2)
        else:
            pair = n // 2
            low = n % 2 == 0
            partner = tl.where(low, n + 1, n - 1)
        turns = (pair < S) & (n < N // 2 * 2)
        partner = tl.where(turns, partner, -1)
        sign = tl.where(low, -1.0, 1.0)
        in_s = here[:, None] & turns[None, :]
        old = _floats(theta + lat_head[:, None] * S + pair[None, :], in_s)
        phi = _floats(angle + lat[:, None] * angle_b + pair[None, :], in_s)
        new = old + (0.5 * TWO_PI) * (2 * tl.sigmoid(2 * phi) - 1) * step[:, None]
        new -= TWO_PI * tl.floor(new / TWO_PI + 0.5)
        tl.store(new_theta + lat_head[:, None] * S + pair[None, :], new, mask=in_s & low[None, :] & first)
        size = tl.abs(new)
        cos = tl.where(in_s, _sine(-size + 0.25 * TWO_PI), 1.0)
        sin = tl.where(new < 0, -1.0, 1.0) * _sine(tl.minimum(size, -size + 0.5 * TWO_PI))
        share = tl.sigmoid(_floats(trap + lat * trap_b + head, here))
        now = share * step
        before = step - now
        last = _floats(last_value + lat_head[:, None] * P + p[None, :], in_p)
        tl.store(new_value + lat_head[:, None] * P + p[None, :], x, mask=in_p)
    else:
        now = step

    # Drive: the last step's input before the decay, this step's after it.
    if MAMBA3:
        for r in tl.static_range(R):
            v = before[:, None] * last
            if MIMO:
                v *= _floats(up + (head * R + r) * P + p, p < P)[None, :]
            k = _floats(last_key + ((lat * R + r) * H + head)[:, None] * N + n[None, :], in_n)
            state += v[:, :, None] * k[:, None, :]
    state *= alpha[:, None, None]
    for r in tl.static_range(R):
        v = now[:, None] * x
        if MIMO:
            v *= _floats(up + (head * R + r) * P + p, p < P)[None, :]
        if MAMBA3:
            bias = key_bias + (head * R + r) * N
            k = _turned(key + r * (G * N), key_norm, bias, n, partner, sign, cos, sin, in_n, N, EPS)
            tl.store(new_key + ((lat * R + r) * H + head)[:, None] * N + n[None, :], k, mask=in_n & first)
        else:
            k = _floats(key + r * (G * N) + n[None, :], in_n)
        state += v[:, :, None] * k[:, None, :]
    tl.store(new_hidden + at, state, mask=inside)

    # Read-out, skip and gate.
    d = _floats(skip + head * P + p, p < P)[None, :] if WIDE_SKIP else tl.load(skip + head).to(tl.float32)
    total = tl.zeros((LATENTS, BLOCK_P), tl.float32)
    if GATED:
        z = _floats(gate + lat[:, None] * gate_b + head * P + p[None, :], in_p)
    for r in tl.static_range(R):
        if MAMBA3:
            bias = query_bias + (head * R + r) * N
            q = _turned(query + r * (G * N), query_norm, bias, n, partner, sign, cos, sin, in_n, N, EPS)
        else:
            q = _floats(query + r * (G * N) + n[None, :], in_n)
        out = tl.sum(state * q[:, None, :], 2)
        weight = head * R * P + r * P + p
        if MIMO:
            out += d * x * _floats(up + weight, p < P)[None, :]
        else:
            out += d * x
        if GATED:
            if MIMO:
                out *= _silu(z * _floats(gate_up + weight, p < P)[None, :]) * _floats(down + weight, p < P)[None, :]
            else:
                out *= _silu(z)
            total += out
        else:
            tl.store(y + ((lat * R + r) * H + head)[:, None] * P + p[None, :], out, mask=in_p)
    if GATED:
        tl.store(y + lat_head[:, None] * P + p[None, :], total, mask=in_p)
