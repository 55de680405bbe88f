// Routed attention of float32 on a CPU, forward and backward, in one parallel region each.
//
// A task is one head of one window (forward) or of one image (backward), and threads take the next one whenever they
// are free, so that a core that others use too only does fewer. Within a task, queries stand in the lanes of vectors: a
// tile of weights (keys, queries) lies in the first-level cache, made by one product, taken to the power by exp2 while
// it is still in registers, and used up by the next product. Weights are never held whole. The largest weight of a row
// is looked for only where the row's sum left what float32 holds well.
//
// Gradients of a key's window are summed up by the one task that owns its head: no atomic, the same order each time.
//
// Built by setuptools for several processors (with -mavx2, and for any) and called by `native.py`, which says what is what.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

#if defined(__AVX__)
constexpr int W = 8;        // numbers in a register
#else
constexpr int W = 4;
#endif
constexpr int TILE = 128;           // keys of a tile: with its weights, 20 KiB
constexpr int MOST = 3;             // registers of queries that go through together

typedef float vec __attribute__((vector_size(4 * W)));
typedef int32_t ivec __attribute__((vector_size(4 * W)));
typedef float cvec __attribute__((vector_size(4 * W), aligned(4)));
#define INLINE static inline __attribute__((always_inline))

extern "C" struct Call {
    const float *q, *k, *v;         // (b, m, windows, tokens, channels), each with the strides below, channels adjacent
    const int64_t *routes;          // (b, windows, topk)
    const float *factor;            // (b, windows, topk), or null
    const uint8_t *real;            // (windows, s), or null
    float *out;                     // as q, with channels of v
    float *sums;                    // (b, m, windows, t): log2 of the sum of exponentials
    const float *grad;              // as out; from here on for the backward only
    float *dq, *dk, *dv, *df;       // df: (b, m, windows, topk), or null
    int64_t b, m, n, t, s, topk, cq, cv;
    int64_t sq[4], sk[4], sv[4], so[4], sg[4], sdq[4], sdk[4], sdv[4];      // of b, m, windows, tokens
    float scale;                    // of q·k
    int32_t threads;
};

namespace {

struct Room {       // what one thread works in; never given out of here
    float *data;
    int64_t used = 0;
    explicit Room(int64_t numbers) : data(static_cast<float *>(aligned_alloc(64, (numbers * 4 + 127) / 64 * 64))) {}
    ~Room() { free(data); }
    float *take(int64_t numbers) {
        float *at = data + used;
        used += (numbers + 15) / 16 * 16;
        return at;
    }
};

INLINE vec splat(float x) { return x - vec{}; }
INLINE vec load(const float *p) { return *reinterpret_cast<const vec *>(p); }
INLINE void store(float *p, vec x) { *reinterpret_cast<vec *>(p) = x; }

// What is no number stays none: the processor's instructions give the second operand then, as the comparisons do.
#if defined(__AVX__)
INLINE vec within(vec x) { return _mm256_min_ps(splat(127.5f), _mm256_max_ps(splat(-126.f), x)); }
#else
INLINE vec within(vec x) {
    x = x < splat(-126.f) ? splat(-126.f) : x;
    return x > splat(127.5f) ? splat(127.5f) : x;
}
#endif

// 2^x to 1e-7 of it, never below 2^-126; what is no number stays none.
INLINE vec power(vec x) {
    x = within(x);
    const vec shifted = x + 12582912.f;                 // 1.5·2^23: the whole part comes to lie in the low bits
    const vec f = x - (shifted - 12582912.f);
    vec y = f * 0.001327647129073739f + 0.009675540961325169f;
    y = y * f + 0.05550713092088699f;
    y = y * f + 0.24022120237350464f;
    y = y * f + 0.6931469440460205f;
    y = y * f + 1.0000001192092896f;
    return reinterpret_cast<vec>(reinterpret_cast<ivec>(y) + (reinterpret_cast<ivec>(shifted) << 23));
}

// R keys (rows of c numbers) times N registers of queries, packed (c, N·W).
template <int R, int N> INLINE void scores(vec (&acc)[R][N], const float *keys, const float *queries, int64_t c) {
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) acc[r][n] = vec{};
    for (int64_t i = 0; i < c; i++) {
        vec q[N];
        for (int n = 0; n < N; n++) q[n] = load(queries + (i * N + n) * W);
        for (int r = 0; r < R; r++) {
            const vec k = splat(keys[r * c + i]);
            for (int n = 0; n < N; n++) acc[r][n] += k * q[n];
        }
    }
}

// total (c, N·W) += rows (keys, c) transposed · weights (keys, N·W), R channels from the first on.
template <int R, int N>
INLINE void gather_channels(float *total, const float *rows, const float *weights, int64_t keys, int64_t c) {
    vec acc[R][N];
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) acc[r][n] = load(total + (r * N + n) * W);
    for (int64_t i = 0; i < keys; i++) {
        vec w[N];
        for (int n = 0; n < N; n++) w[n] = load(weights + (i * N + n) * W);
        for (int r = 0; r < R; r++) {
            const vec x = splat(rows[i * c + r]);
            for (int n = 0; n < N; n++) acc[r][n] += x * w[n];
        }
    }
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) store(total + (r * N + n) * W, acc[r][n]);
}

template <int N> void accumulate(float *total, const float *rows, const float *weights, int64_t keys, int64_t c) {
    int64_t i = 0;
    for (; i + 4 <= c; i += 4) gather_channels<4, N>(total + i * N * W, rows + i, weights, keys, c);
    for (; i < c; i++) gather_channels<1, N>(total + i * N * W, rows + i, weights, keys, c);
}

// total (keys, wide) += weights (keys, width) · queries (width, wide), R keys; wide is a multiple of W.
template <int R>
INLINE void gather_queries(float *total, const float *weights, const float *queries, int64_t width, int64_t wide) {
    for (int64_t at = 0; at < wide; at += W) {
        cvec acc[R];
        for (int r = 0; r < R; r++) acc[r] = *reinterpret_cast<cvec *>(total + r * wide + at);
        for (int64_t i = 0; i < width; i++) {
            const cvec x = *reinterpret_cast<const cvec *>(queries + i * wide + at);
            for (int r = 0; r < R; r++) acc[r] += x * weights[r * width + i];
        }
        for (int r = 0; r < R; r++) *reinterpret_cast<cvec *>(total + r * wide + at) = acc[r];
    }
}

void gather_gradient(float *total, const float *weights, const float *queries, int64_t keys, int64_t width,
                     int64_t wide) {
    int64_t i = 0;
    for (; i + 8 <= keys; i += 8) gather_queries<8>(total + i * wide, weights + i * width, queries, width, wide);
    for (; i < keys; i++) gather_queries<1>(total + i * wide, weights + i * width, queries, width, wide);
}

const float *at(const float *p, const int64_t *stride, int64_t b, int64_t m, int64_t n, int64_t t) {
    return p + b * stride[0] + m * stride[1] + n * stride[2] + t * stride[3];
}

float *at(float *p, const int64_t *stride, int64_t b, int64_t m, int64_t n, int64_t t) {
    return p + b * stride[0] + m * stride[1] + n * stride[2] + t * stride[3];
}

INLINE void scaled(float *into, const float *row, int64_t c, float factor) {
    int64_t i = 0;
    for (; i + W <= c; i += W)
        *reinterpret_cast<cvec *>(into + i) = *reinterpret_cast<const cvec *>(row + i) * factor;
    for (; i < c; i++) into[i] = row[i] * factor;
}

// Chosen keys and values of one window and head, side by side without gaps; returns how many: masked ones are left out.
int64_t gather(const Call &a, int64_t b, int64_t m, int64_t n, float *keys, float *values) {
    int64_t count = 0;
    for (int64_t j = 0; j < a.topk; j++) {
        const int64_t route = (b * a.n + n) * a.topk + j, from = a.routes[route];
        const float f = a.factor ? a.factor[route] : 1.f;
        const float *k = at(a.k, a.sk, b, m, from, 0), *v = at(a.v, a.sv, b, m, from, 0);
        for (int64_t i = 0; i < a.s; i++, k += a.sk[3], v += a.sv[3]) {
            if (a.real && !a.real[from * a.s + i]) continue;
            scaled(keys + count * a.cq, k, a.cq, f);
            scaled(values + count * a.cv, v, a.cv, f);
            count++;
        }
    }
    return count;
}

// `tokens` rows of c numbers, times a factor, into the lanes of (c, width); what is left over of the width is 0.
void to_lanes(float *lanes, const float *rows, int64_t stride, int64_t tokens, int64_t width, int64_t c, float factor) {
    for (int64_t i = 0; i < tokens; i++)
        for (int64_t j = 0; j < c; j++) lanes[j * width + i] = rows[i * stride + j] * factor;
    for (int64_t i = tokens; i < width; i++)
        for (int64_t j = 0; j < c; j++) lanes[j * width + i] = 0.f;
}

template <int N> INLINE void largest(vec (&most)[N], const float *keys, const float *queries, int64_t count, int64_t c) {
    for (int n = 0; n < N; n++) most[n] = splat(-INFINITY);
    for (int64_t i = 0; i < count; i++) {
        vec acc[1][N];
        scores<1, N>(acc, keys + i * c, queries, c);
        for (int n = 0; n < N; n++) most[n] = acc[0][n] > most[n] || acc[0][n] != acc[0][n] ? acc[0][n] : most[n];
    }
}

template <int R, int N> INLINE void exponentials(float *weights, vec (&sum)[N], const vec (&shift)[N],
                                                 const float *keys, const float *queries, int64_t c) {
    vec acc[R][N];
    scores<R, N>(acc, keys, queries, c);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) {
            const vec w = power(acc[r][n] - shift[n]);
            sum[n] += w;
            store(weights + (r * N + n) * W, w);
        }
}

// N registers of queries against all keys: total (cv, N·W) and sums (N·W), log2.
template <int N> void attend(const float *keys, const float *values, int64_t count, const float *queries, int64_t cq,
                             int64_t cv, float *weights, float *total, float *sums) {
    vec shift[N], sum[N];
    for (int n = 0; n < N; n++) shift[n] = vec{};
    for (bool again = false;; again = true) {
        if (again) largest<N>(shift, keys, queries, count, cq);
        memset(total, 0, sizeof(float) * cv * N * W);
        for (int n = 0; n < N; n++) sum[n] = vec{};
        for (int64_t start = 0; start < count; start += TILE) {
            const int64_t held = count - start < TILE ? count - start : TILE;
            int64_t i = 0;
            for (; i + 4 <= held; i += 4)
                exponentials<4, N>(weights + i * N * W, sum, shift, keys + (start + i) * cq, queries, cq);
            for (; i < held; i++)
                exponentials<1, N>(weights + i * N * W, sum, shift, keys + (start + i) * cq, queries, cq);
            accumulate<N>(total, values + start * cv, weights, held, cv);
        }
        bool kept = true;       // 2^-60 to 2^60: nothing was lost, and squares hold too
        for (int n = 0; n < N; n++)
            for (int l = 0; l < W; l++) kept = kept && sum[n][l] > 0x1p-60f && sum[n][l] < 0x1p60f;
        if (kept || again) break;
    }
    for (int n = 0; n < N; n++) {
        for (int l = 0; l < W; l++) sums[n * W + l] = shift[n][l] + log2f(sum[n][l]);
        const vec whole = 1.f / sum[n];
        for (int64_t c = 0; c < cv; c++) store(total + (c * N + n) * W, load(total + (c * N + n) * W) * whole);
    }
}

// Both tiles of a backward, R keys: weights, and the gradient of what went into their exponential.
template <int R, int N>
INLINE void slopes(float *weights, float *slope, const vec (&sums)[N], const vec (&mean)[N], const float *keys,
                   const float *values, const float *queries, const float *grads, int64_t cq, int64_t cv) {
    vec acc[R][N];
    scores<R, N>(acc, keys, queries, cq);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) store(weights + (r * N + n) * W, power(acc[r][n] - sums[n]));
    scores<R, N>(acc, values, grads, cv);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++)
            store(slope + (r * N + n) * W, load(weights + (r * N + n) * W) * (acc[r][n] - mean[n]));
}

struct Side {       // one block of queries of a backward
    const float *queries, *grads, *query_rows, *grad_rows, *sums, *mean;
    float *weights, *slope, *dq;
};

template <int N> void back(const float *keys, const float *values, int64_t count, const Side &x, int64_t cq, int64_t cv,
                           int64_t wide_q, int64_t wide_v, float *dk, float *dv) {
    vec sums[N], mean[N];
    for (int n = 0; n < N; n++) sums[n] = load(x.sums + n * W), mean[n] = load(x.mean + n * W);
    memset(x.dq, 0, sizeof(float) * cq * N * W);
    for (int64_t start = 0; start < count; start += TILE) {
        const int64_t held = count - start < TILE ? count - start : TILE;
        const float *k = keys + start * cq, *v = values + start * cv;
        int64_t i = 0;
        for (; i + 4 <= held; i += 4)
            slopes<4, N>(x.weights + i * N * W, x.slope + i * N * W, sums, mean, k + i * cq, v + i * cv, x.queries,
                         x.grads, cq, cv);
        for (; i < held; i++)
            slopes<1, N>(x.weights + i * N * W, x.slope + i * N * W, sums, mean, k + i * cq, v + i * cv, x.queries,
                         x.grads, cq, cv);
        accumulate<N>(x.dq, k, x.slope, held, cq);
        gather_gradient(dk + start * wide_q, x.slope, x.query_rows, held, N * W, wide_q);
        gather_gradient(dv + start * wide_v, x.weights, x.grad_rows, held, N * W, wide_v);
    }
}

int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Registers of queries that go through next, so that no round is much smaller than the others.
int next(int64_t registers) { return registers <= MOST ? registers : registers == MOST + 1 ? 2 : MOST; }

void forward_task(const Call &a, int64_t b, int64_t m, int64_t n, int64_t first, int64_t last, Room &room) {
    room.used = 0;
    const int64_t most = a.topk * a.s;
    float *keys = room.take(most * a.cq), *values = room.take(most * a.cv), *queries = room.take(a.cq * MOST * W),
          *weights = room.take(TILE * MOST * W), *total = room.take(a.cv * MOST * W), *sums = room.take(MOST * W);
    const int64_t count = gather(a, b, m, n, keys, values);
    const float scale = a.scale * 1.44269504088896341f;
    for (int64_t start = first; start < last;) {
        const int N = next((last - start + W - 1) / W);
        const int64_t width = N * W, tokens = last - start < width ? last - start : width;
        to_lanes(queries, at(a.q, a.sq, b, m, n, start), a.sq[3], tokens, width, a.cq, scale);
        (N == 1 ? attend<1> : N == 2 ? attend<2> : attend<3>)(keys, values, count, queries, a.cq, a.cv, weights, total,
                                                              sums);
        for (int64_t i = 0; i < tokens; i++) {
            float *out = at(a.out, a.so, b, m, n, start + i);
            for (int64_t c = 0; c < a.cv; c++) out[c] = total[c * width + i];
        }
        memcpy(a.sums + ((b * a.m + m) * a.n + n) * a.t + start, sums, tokens * sizeof(float));
        start += tokens;
    }
}

int64_t forward_room(const Call &a) {
    const int64_t most = a.topk * a.s;
    return most * (a.cq + a.cv) + (a.cq + a.cv + TILE + 1) * MOST * W + 7 * 16;
}

void backward_task(const Call &a, int64_t b, int64_t m, Room &room) {
    room.used = 0;
    const int64_t most = a.topk * a.s, wide_q = rounded(a.cq, W), wide_v = rounded(a.cv, W), all = MOST * W;
    float *keys = room.take(most * a.cq), *values = room.take(most * a.cv);
    float *dk = room.take(most * wide_q), *dv = room.take(most * wide_v);
    float *queries = room.take(a.cq * all), *grads = room.take(a.cv * all), *sums = room.take(all),
          *mean = room.take(all), *query_rows = room.take(wide_q * all), *grad_rows = room.take(wide_v * all),
          *weights = room.take(TILE * all), *slope = room.take(TILE * all), *dq = room.take(a.cq * all);
    const Side side{queries, grads, query_rows, grad_rows, sums, mean, weights, slope, dq};
    const float scale = a.scale * 1.44269504088896341f;
    for (int64_t n = 0; n < a.n; n++) {
        const int64_t count = gather(a, b, m, n, keys, values);
        memset(dk, 0, sizeof(float) * count * wide_q);
        memset(dv, 0, sizeof(float) * count * wide_v);
        for (int64_t start = 0; start < a.t;) {
            const int N = next((a.t - start + W - 1) / W);
            const int64_t width = N * W, tokens = a.t - start < width ? a.t - start : width;
            const float *q = at(a.q, a.sq, b, m, n, start), *g = at(a.grad, a.sg, b, m, n, start),
                        *o = at(a.out, a.so, b, m, n, start);
            to_lanes(queries, q, a.sq[3], tokens, width, a.cq, scale);
            to_lanes(grads, g, a.sg[3], tokens, width, a.cv, 1.f);
            memset(query_rows, 0, sizeof(float) * width * wide_q);
            memset(grad_rows, 0, sizeof(float) * width * wide_v);
            for (int64_t i = 0; i < width; i++) sums[i] = mean[i] = 0.f;
            for (int64_t i = 0; i < tokens; i++) {
                for (int64_t c = 0; c < a.cq; c++) query_rows[i * wide_q + c] = q[i * a.sq[3] + c] * a.scale;
                for (int64_t c = 0; c < a.cv; c++) grad_rows[i * wide_v + c] = g[i * a.sg[3] + c];
                for (int64_t c = 0; c < a.cv; c++) mean[i] += g[i * a.sg[3] + c] * o[i * a.so[3] + c];
                sums[i] = a.sums[((b * a.m + m) * a.n + n) * a.t + start + i];
            }
            (N == 1 ? back<1> : N == 2 ? back<2> : back<3>)(keys, values, count, side, a.cq, a.cv, wide_q, wide_v, dk,
                                                            dv);
            for (int64_t i = 0; i < tokens; i++) {
                float *into = at(a.dq, a.sdq, b, m, n, start + i);
                for (int64_t c = 0; c < a.cq; c++) into[c] = dq[c * width + i] * a.scale;
            }
            start += tokens;
        }
        int64_t row = 0;
        for (int64_t j = 0; j < a.topk; j++) {
            const int64_t route = (b * a.n + n) * a.topk + j, from = a.routes[route];
            const float f = a.factor ? a.factor[route] : 1.f;
            float by_factor = 0.f;
            for (int64_t i = 0; i < a.s; i++) {
                if (a.real && !a.real[from * a.s + i]) continue;
                float *into_k = at(a.dk, a.sdk, b, m, from, i), *into_v = at(a.dv, a.sdv, b, m, from, i);
                const float *k = at(a.k, a.sk, b, m, from, i), *v = at(a.v, a.sv, b, m, from, i);
                for (int64_t c = 0; c < a.cq; c++) {
                    into_k[c] += dk[row * wide_q + c] * f;
                    by_factor += dk[row * wide_q + c] * k[c];
                }
                for (int64_t c = 0; c < a.cv; c++) {
                    into_v[c] += dv[row * wide_v + c] * f;
                    by_factor += dv[row * wide_v + c] * v[c];
                }
                row++;
            }
            if (a.df) a.df[((b * a.m + m) * a.n + n) * a.topk + j] = by_factor;
        }
    }
}

int64_t backward_room(const Call &a) {
    const int64_t most = a.topk * a.s, wide_q = rounded(a.cq, W), wide_v = rounded(a.cv, W);
    return most * (a.cq + a.cv + wide_q + wide_v) + (2 * a.cq + a.cv + 2 + wide_q + wide_v + 2 * TILE) * MOST * W +
           13 * 16;
}

}  // namespace

// Queries of a window that one task takes: long rows of windows are cut, so that threads have tasks enough.
constexpr int64_t SHARE = 16 * MOST * W;

extern "C" int routed_forward(const Call *call) {
    const Call &a = *call;
    const int64_t parts = (a.t + SHARE - 1) / SHARE, tasks = a.b * a.m * a.n * parts;
    bool failed = false;
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
        Room room(forward_room(a));
        if (!room.data) {
#pragma omp atomic write
            failed = true;
        }
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < tasks; task++) {
            if (!room.data) continue;
            const int64_t part = task % parts, m = task / parts % a.m, n = task / parts / a.m % a.n,
                          first = part * SHARE;
            forward_task(a, task / parts / a.m / a.n, m, n, first, first + SHARE < a.t ? first + SHARE : a.t, room);
        }
    }
    return failed;
}

extern "C" int routed_backward(const Call *call) {
    const Call &a = *call;
    bool failed = false;
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
        Room room(backward_room(a));
        if (!room.data) {
#pragma omp atomic write
            failed = true;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < a.b * a.m; task++)
            if (room.data) backward_task(a, task / a.m, task % a.m, room);
    }
    return failed;
}
