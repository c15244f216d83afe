# mypy: ignore-errors
# A kernel's arguments are pointers and constants, for which Python has no types.
"""The scan's kernels. They need triton; `kernels.scan` imports them when they are called for.

A program walks over the chunks of one (batch, head), the state in between. At the training length of 64 that is a
chunk or two, and thousands of (batch, head) pairs fill the card, so chunks in parallel, with kernels and traffic of
their own, would gain nothing. A chunk is STEPS R rows (t, r), row = t R + r, padded to ROWS: rank R only widens the
rows, the causal mask looks at the step t. With a the log decay (counted once a step), cs its running sum and seg the
running count of resets, all inside the chunk, and H the state before it:

    Y = W V + f (Q H^T),         W = (Q K^T) . M
    M_ts = exp(cs_t - cs_s) [s <= t, seg_s = seg_t],   f_t = exp(cs_t) [seg_t = 0]
    H_w = e H + (g V)^T K,       g_s = M_ws,   e = f_w      for the state after step w; w last is the next chunk's H

Exponents are masked before they are taken; nothing is infinite. P and N are walked over in tiles of BLOCK_P and BLOCK_N
inside the program, so that registers bound neither, and no gradient is left in parts but where heads share a group.
Tiles are loaded where they are used, the second time from cache. States are (P, N) in memory and (N, P) here.
Products are taken of float32 at PRECISION ("tf32" is exact for half-precision inputs) and summed in float32.
All tensors are contiguous.
"""

import triton
import triton.language as tl


@triton.jit
def _tile(base, row, cols, stride: tl.constexpr, mask):
    """Rows of a tensor as float32, zero outside the mask."""
    return tl.load(base + row[:, None] * stride + cols[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _decays(row, ok, log_decay, reset, H: tl.constexpr, R: tl.constexpr, FLOOR: tl.constexpr):
    """Log decay and reset of each row, zero but for the first row of a step, and their running sums."""
    first = ok & (row % R == 0)
    raw = tl.load(log_decay + row // R * H, mask=first, other=0.0).to(tl.float32)
    a = tl.maximum(raw, FLOOR)
    cut = (tl.load(reset + row // R, mask=first, other=0.0) != 0).to(tl.int32)
    return raw, a, cut, tl.cumsum(a, 0), tl.cumsum(cut, 0)


@triton.jit
def _mask(step, cs, seg):
    """M (ROWS, ROWS): weight of input s in output t."""
    reach = (step[:, None] >= step[None, :]) & (seg[:, None] == seg[None, :])
    return tl.where(reach, tl.exp(tl.where(reach, cs[:, None] - cs[None, :], 0.0)), 0.0)


@triton.jit
def _into_state(w, step, a, cut, cs, seg):
    """g and e: weights of the inputs and of the chunk's first state in the state after step w."""
    until = step <= w
    cs_w = tl.sum(tl.where(until, a, 0.0), 0)
    seg_w = tl.sum(tl.where(until, cut, 0), 0)
    reach = until & (seg == seg_w)
    g = tl.where(reach, tl.exp(tl.where(reach, cs_w - cs, 0.0)), 0.0)
    return g, tl.where(seg_w == 0, tl.exp(cs_w), 0.0)


@triton.jit
def _wanted_step(pointer, T):
    """A wanted step, kept inside the sequence."""
    return tl.minimum(tl.maximum(tl.load(pointer), 0), T - 1).to(tl.int32)


@triton.jit
def _state(base, index, at, stride: tl.constexpr, inside):
    """A tile of one of several states (N, P)."""
    return tl.load(base + index * stride + at, mask=inside, other=0.0)


@triton.jit
def _scores(
    query, key, row, ok,
    G: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Q K^T (ROWS, ROWS)."""
    scores = tl.zeros((ROWS, ROWS), tl.float32)
    for i in range(0, N, BLOCK_N):
        n = i + tl.arange(0, BLOCK_N)
        ok_n = ok[:, None] & (n[None, :] < N)
        q = _tile(query, row, n, G * N, ok_n)
        k = _tile(key, row, n, G * N, ok_n)
        scores = tl.dot(q, tl.trans(k), scores, input_precision=PRECISION)
    return scores


@triton.jit
def scan_forward(
    query, key, value, log_decay, hidden, reset, y, starts, final, T, chunks,
    R: tl.constexpr, H: tl.constexpr, G: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    STEPS: tl.constexpr, ROWS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """Y (B, T, R, H, P), the state after the last step, and those after all other chunks (B, chunks - 1, H, P, N).

    Grid: B * H.
    """
    head, b = tl.program_id(0) % H, (tl.program_id(0) // H).to(tl.int64)
    group = head // (H // G)
    rows = tl.arange(0, ROWS)
    step = rows // R
    query += (b * T * R * G + group) * N
    key += (b * T * R * G + group) * N
    value += (b * T * R * H + head) * P
    y += (b * T * R * H + head) * P
    log_decay += b * T * H + head
    reset += b * T
    begin = hidden + (b * H + head) * P * N
    final += (b * H + head) * P * N
    starts += (b * (chunks - 1) * H + head) * P * N

    for c in range(chunks):
        row = (c * STEPS * R + rows).to(tl.int64)
        ok = (rows < STEPS * R) & (row < T * R)
        _, a, cut, cs, seg = _decays(row, ok, log_decay, reset, H, R, FLOOR)
        f = tl.where(seg == 0, tl.exp(cs), 0.0)
        g, e = _into_state(STEPS - 1, step, a, cut, cs, seg)
        weight = _scores(query, key, row, ok, G, N, ROWS, BLOCK_N, PRECISION) * _mask(step, cs, seg)
        end = starts
        if c == chunks - 1:
            end = final
        for j in range(0, P, BLOCK_P):
            p = j + tl.arange(0, BLOCK_P)
            ok_p = ok[:, None] & (p[None, :] < P)
            v = _tile(value, row, p, H * P, ok_p)
            out = tl.dot(weight, v, input_precision=PRECISION)
            for i in range(0, N, BLOCK_N):
                n = i + tl.arange(0, BLOCK_N)
                ok_n = ok[:, None] & (n[None, :] < N)
                inside = (n[:, None] < N) & (p[None, :] < P)
                at = p[None, :] * N + n[:, None]
                state = tl.load(begin + at, mask=inside, other=0.0)
                q = _tile(query, row, n, G * N, ok_n) * f[:, None]
                out = tl.dot(q, state, out, input_precision=PRECISION)
                k = _tile(key, row, n, G * N, ok_n) * g[:, None]
                state = tl.dot(tl.trans(k), v, e * state, input_precision=PRECISION)
                tl.store(end + at, state, mask=inside)
            tl.store(y + row[:, None] * (H * P) + p[None, :], out, mask=ok_p)
        begin = end
        starts += H * P * N
        tl.debug_barrier()  # the next chunk reads, in other threads, the state that this one stored


@triton.jit
def scan_states(
    key, value, log_decay, hidden, reset, starts, wanted, found, T, chunks, K,
    R: tl.constexpr, H: tl.constexpr, G: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    STEPS: tl.constexpr, ROWS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, FLOOR: tl.constexpr,
):  # fmt: skip
    """The states after the wanted steps (B, K, H, P, N), each from the start of its chunk. Grid: B * H, K."""
    head, b = tl.program_id(0) % H, (tl.program_id(0) // H).to(tl.int64)
    group = head // (H // G)
    rows = tl.arange(0, ROWS)
    step = rows // R
    slot = b * K + tl.program_id(1)
    w = _wanted_step(wanted + slot, T)
    c = w // STEPS
    key += (b * T * R * G + group) * N
    value += (b * T * R * H + head) * P
    row = c * STEPS * R + rows
    ok = (rows < STEPS * R) & (row < T * R)
    _, a, cut, cs, seg = _decays(row, ok, log_decay + b * T * H + head, reset + b * T, H, R, FLOOR)
    g, e = _into_state(w - c * STEPS, step, a, cut, cs, seg)
    begin = starts + ((b * (chunks - 1) + c - 1) * H + head) * P * N
    if c == 0:
        begin = hidden + (b * H + head) * P * N
    found += (slot * H + head) * P * N
    for j in range(0, P, BLOCK_P):
        p = j + tl.arange(0, BLOCK_P)
        v = _tile(value, row, p, H * P, ok[:, None] & (p[None, :] < P))
        for i in range(0, N, BLOCK_N):
            n = i + tl.arange(0, BLOCK_N)
            inside = (n[:, None] < N) & (p[None, :] < P)
            at = p[None, :] * N + n[:, None]
            state = tl.load(begin + at, mask=inside, other=0.0)
            k = _tile(key, row, n, G * N, ok[:, None] & (n[None, :] < N)) * g[:, None]
            tl.store(found + at, tl.dot(tl.trans(k), v, e * state, input_precision=PRECISION), mask=inside)


@triton.jit
def scan_backward(
    query, key, value, log_decay, hidden, reset, starts, wanted, d_y, d_found,
    d_query, d_key, d_value, d_log_decay, d_hidden, T, chunks, K,
    R: tl.constexpr, H: tl.constexpr, G: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    STEPS: tl.constexpr, ROWS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr, FLOOR: tl.constexpr, CARRY: tl.constexpr, WANTED: tl.constexpr,
):  # fmt: skip
    """All gradients, chunk after chunk from the last. Grid: B * H.

    d_query, d_key: (B, T, R, H, N), a slice a head, summed by the caller: no atomics, so the same bits each time.
    d_hidden: (B, H, P, N); with CARRY it comes in as the gradient of the last state, else that is taken as zero, and
    there is one chunk. d_found: (B, K, H, P, N), read with WANTED: the gradient of the states after the wanted steps.
    """
    head, b = tl.program_id(0) % H, (tl.program_id(0) // H).to(tl.int64)
    group = head // (H // G)
    rows = tl.arange(0, ROWS)
    step = rows // R
    query += (b * T * R * G + group) * N
    key += (b * T * R * G + group) * N
    value += (b * T * R * H + head) * P
    d_y += (b * T * R * H + head) * P
    d_query += (b * T * R * H + head) * N
    d_key += (b * T * R * H + head) * N
    d_value += (b * T * R * H + head) * P
    log_decay += b * T * H + head
    d_log_decay += b * T * H + head
    reset += b * T
    hidden += (b * H + head) * P * N
    wanted += b * K
    d_found += (b * K * H + head) * P * N
    d_state = d_hidden + (b * H + head) * P * N
    starts += ((b * (chunks - 1) + chunks - 2) * H + head) * P * N  # that before the last chunk

    for back in range(chunks):
        c = chunks - 1 - back
        row = (c * STEPS * R + rows).to(tl.int64)
        ok = (rows < STEPS * R) & (row < T * R)
        raw, a, cut, cs, seg = _decays(row, ok, log_decay, reset, H, R, FLOOR)
        f = tl.where(seg == 0, tl.exp(cs), 0.0)
        g, e = _into_state(STEPS - 1, step, a, cut, cs, seg)
        begin = hidden
        if c > 0:
            begin = starts

        weight = _scores(query, key, row, ok, G, N, ROWS, BLOCK_N, PRECISION) * _mask(step, cs, seg)
        d_score = tl.zeros((ROWS, ROWS), tl.float32)
        through = tl.zeros((ROWS,), tl.float32)
        d_log = tl.zeros((ROWS,), tl.float32)
        for j in range(0, P, BLOCK_P):
            p = j + tl.arange(0, BLOCK_P)
            ok_p = ok[:, None] & (p[None, :] < P)
            v = _tile(value, row, p, H * P, ok_p)
            dy = _tile(d_y, row, p, H * P, ok_p)
            d_score = tl.dot(dy, tl.trans(v), d_score, input_precision=PRECISION)
            d_v = tl.zeros((ROWS, BLOCK_P), tl.float32)
            if CARRY:
                for i in range(0, N, BLOCK_N):
                    n = i + tl.arange(0, BLOCK_N)
                    inside = (n[:, None] < N) & (p[None, :] < P)
                    k = _tile(key, row, n, G * N, ok[:, None] & (n[None, :] < N)) * g[:, None]
                    d_new = tl.load(d_state + p[None, :] * N + n[:, None], mask=inside, other=0.0)
                    d_v = tl.dot(k, d_new, d_v, input_precision=PRECISION)
                through += tl.sum(d_v * v, 1)
            if WANTED:
                for s in range(K):
                    w = _wanted_step(wanted + s, T) - c * STEPS
                    if (w >= 0) & (w < STEPS):
                        g_w, e_w = _into_state(w, step, a, cut, cs, seg)
                        part = tl.zeros((ROWS, BLOCK_P), tl.float32)
                        for i in range(0, N, BLOCK_N):
                            n = i + tl.arange(0, BLOCK_N)
                            inside = (n[:, None] < N) & (p[None, :] < P)
                            k = _tile(key, row, n, G * N, ok[:, None] & (n[None, :] < N)) * g_w[:, None]
                            d_new = _state(d_found, s, p[None, :] * N + n[:, None], H * P * N, inside)
                            part = tl.dot(k, d_new, part, input_precision=PRECISION)
                        d_v += part
                        passed = tl.sum(part * v, 1)
                        d_log += tl.where(step <= w, tl.cumsum(passed, 0) - passed, 0.0)
            d_v = tl.dot(tl.trans(weight), dy, d_v, input_precision=PRECISION)
            tl.store(d_value + row[:, None] * (H * P) + p[None, :], d_v, mask=ok_p)

        # Mask and scores once more: registers are short, arithmetic is not.
        raw, a, cut, cs, seg = _decays(row, ok, log_decay, reset, H, R, FLOOR)
        d_score *= _mask(step, cs, seg)
        scores = _scores(query, key, row, ok, G, N, ROWS, BLOCK_N, PRECISION)
        # The decay at u scales the weights with s < u <= t: row sums less column sums, the diagonal left out.
        flow = tl.where(step[:, None] > step[None, :], d_score * scores, 0.0)
        d_cs = tl.sum(flow, 1) - tl.sum(flow, 0)
        start = 0.0
        for i in range(0, N, BLOCK_N):
            n = i + tl.arange(0, BLOCK_N)
            ok_n = ok[:, None] & (n[None, :] < N)
            d_q = tl.zeros((ROWS, BLOCK_N), tl.float32)
            d_k = tl.zeros((ROWS, BLOCK_N), tl.float32)
            for j in range(0, P, BLOCK_P):
                p = j + tl.arange(0, BLOCK_P)
                ok_p = ok[:, None] & (p[None, :] < P)
                inside = (n[:, None] < N) & (p[None, :] < P)
                at = p[None, :] * N + n[:, None]
                old = tl.load(begin + at, mask=inside, other=0.0)
                dy = _tile(d_y, row, p, H * P, ok_p) * f[:, None]
                d_q = tl.dot(dy, tl.trans(old), d_q, input_precision=PRECISION)
                if CARRY:
                    d_new = tl.load(d_state + at, mask=inside, other=0.0)
                    start += tl.sum(tl.sum(old * d_new, 1), 0)
                    v = _tile(value, row, p, H * P, ok_p) * g[:, None]
                    d_k = tl.dot(v, tl.trans(d_new), d_k, input_precision=PRECISION)
                if WANTED:
                    for s in range(K):
                        w = _wanted_step(wanted + s, T) - c * STEPS
                        if (w >= 0) & (w < STEPS):
                            g_w, e_w = _into_state(w, step, a, cut, cs, seg)
                            d_new = _state(d_found, s, at, H * P * N, inside)
                            d_log += tl.where(step <= w, e_w * tl.sum(tl.sum(old * d_new, 1), 0), 0.0)
                            v = _tile(value, row, p, H * P, ok_p) * g_w[:, None]
                            d_k = tl.dot(v, tl.trans(d_new), d_k, input_precision=PRECISION)
            q = _tile(query, row, n, G * N, ok_n)
            d_cs += tl.sum(d_q * q, 1)
            d_k = tl.dot(tl.trans(d_score), q, d_k, input_precision=PRECISION)
            tl.store(d_key + row[:, None] * (H * N) + n[None, :], d_k, mask=ok_n)
            k = _tile(key, row, n, G * N, ok_n)
            d_q = tl.dot(d_score, k, d_q, input_precision=PRECISION)
            tl.store(d_query + row[:, None] * (H * N) + n[None, :], d_q, mask=ok_n)

        # Through the state after the chunk, the decay at u scales its start and the inputs before u: a sum without
        # cancellation. A decay below the floor, or one at a reset, reaches nothing.
        d_log += tl.cumsum(d_cs, 0, reverse=True) + tl.cumsum(through, 0) - through + e * start
        d_log = tl.where((raw < FLOOR) | (cut != 0), 0.0, d_log)
        tl.store(d_log_decay + row // R * H, d_log, mask=ok & (rows % R == 0))

        tl.debug_barrier()  # all threads have read d_state
        for i in range(0, N, BLOCK_N):
            n = i + tl.arange(0, BLOCK_N)
            q = _tile(query, row, n, G * N, ok[:, None] & (n[None, :] < N)) * f[:, None]
            for j in range(0, P, BLOCK_P):
                p = j + tl.arange(0, BLOCK_P)
                inside = (n[:, None] < N) & (p[None, :] < P)
                at = p[None, :] * N + n[:, None]
                dy = _tile(d_y, row, p, H * P, ok[:, None] & (p[None, :] < P))
                d_old = tl.dot(tl.trans(q), dy, input_precision=PRECISION)
                if CARRY:
                    d_old += e * tl.load(d_state + at, mask=inside, other=0.0)
                if WANTED:
                    for s in range(K):
                        w = _wanted_step(wanted + s, T) - c * STEPS
                        if (w >= 0) & (w < STEPS):
                            g_w, e_w = _into_state(w, step, a, cut, cs, seg)
                            d_old += e_w * _state(d_found, s, at, H * P * N, inside)
                tl.store(d_state + at, d_old, mask=inside)
        starts -= H * P * N
        tl.debug_barrier()  # the chunk before reads, in other threads, what this one stored
