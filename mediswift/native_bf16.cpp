// Products of bfloat16 activations with a sparse matrix, forward and both gradients, on x86 CPUs that
// multiply bfloat16 themselves (AVX512-BF16): two products a lane and instruction, summed in float.
//
// The matrix is grouped, as in native.cpp: sixteen neighboring outputs keep the same inputs, and a
// kept input is a line of sixteen weights. The instruction wants the two numbers that it multiplies
// and adds side by side, so whatever is summed over is paired: kept inputs of the outputs, outputs of
// the input's gradient, tokens of the weights'. Weights come, and their gradient goes, in float.
// Tokens are packed feature by feature, sixteen of them to a strip. The caller checks all sizes.

#include <immintrin.h>

#include "panels.h"

namespace {

typedef uint16_t half;  // the bits of a bfloat16
typedef half line __attribute__((vector_size(32)));  // sixteen of them
constexpr int PAIRS = TILE / 2;

ALWAYS line load(const half* p) { line v; memcpy(&v, p, sizeof v); return v; }
ALWAYS void store(half* p, line v) { memcpy(p, &v, sizeof v); }
ALWAYS line rounded(__m512 v) { return (line)_mm512_cvtneps_pbh(v); }

// (a0 b0 a1 b1 ...): the numbers of two lines side by side
ALWAYS __m512i paired(line a, line b) {
  return (__m512i)__builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                          23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                          15, 31);
}

// sum + both products of each lane's pair, `pair` being one for all lanes
ALWAYS __m512 add(__m512 sum, const uint32_t* pair, __m512i held) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(int(*pair)), (__m512bh)held);
}

thread_local Scratch scratch_w;

// ---- Packing

// Strip s, sixteen tokens or the last ones and zeros, of x (tokens, features): feature by feature
void pack_strip(const half* x, int64_t features, int64_t tokens, int64_t s, half* panel) {
  const half* from = x + s * TILE * features;
  half* to = panel + s * TILE * features;
  int64_t n = least(TILE, tokens - s * TILE), whole = n == TILE ? features / TILE * TILE : 0;
  for (int64_t f = 0; f < whole; f += TILE) {
    line tile[TILE];
    UNROLL for (int t = 0; t < TILE; t++) tile[t] = load(from + t * features + f);
    transpose(tile);
    UNROLL for (int i = 0; i < TILE; i++) store(to + (f + i) * TILE, tile[i]);
  }
  for (int64_t f = whole; f < features; f++)
    for (int64_t t = 0; t < TILE; t++) to[f * TILE + t] = t < n ? from[t * features + f] : 0;
}

// x (n tokens, features) from sums (features, 16 tokens), rounded
void unpack(const float* sums, int64_t features, int64_t n, half* x) {
  for (int64_t f = 0; f < features; f += TILE) {
    line tile[TILE] = {};
    int64_t width = least(TILE, features - f);
    for (int64_t i = 0; i < width; i++) tile[i] = rounded(_mm512_load_ps(sums + (f + i) * TILE));
    transpose(tile);
    for (int64_t t = 0; t < n; t++) memcpy(x + t * features + f, &tile[t], width * sizeof(half));
  }
}

// ---- Grouped

// Place of a group's first pair of lines: its last one may be half empty
int64_t pair(const Grouped& a, int64_t g) { return a.start[g] / 2 + g; }

// Weights of group g, two lines beside each other, the last one beside zeros
void pair_lines(const Grouped& a, int64_t g, const float* w, half* pairs) {
  for (int64_t i = 0, n = a.count(g); i < n; i += 2) {
    const float* from = w + (a.start[g] + i) * TILE;
    line first = rounded(_mm512_loadu_ps(from));
    line second = i + 1 < n ? rounded(_mm512_loadu_ps(from + TILE)) : line{};
    _mm512_store_si512(pairs + (pair(a, g) + i / 2) * 2 * TILE, paired(first, second));
  }
}

// The inputs that a group keeps, of a strip, in the same pairs
void pair_inputs(const half* strip, const int32_t* col, int64_t n, half* pairs) {
  for (int64_t i = 0; i < n; i += 2) {
    line first = load(strip + int64_t(col[i]) * TILE);
    line second = i + 1 < n ? load(strip + int64_t(col[i + 1]) * TILE) : line{};
    _mm512_store_si512(pairs + i * TILE, paired(first, second));
  }
}

// y (tokens, 16 outputs) = bias + sum over pairs of inputs (pair, 16 tokens) times pairs of lines
ALWAYS void outer(const half* inputs, const half* lines, int64_t pairs, const float* bias, half* y,
                  int64_t stride, int64_t tokens) {
  const uint32_t* x = reinterpret_cast<const uint32_t*>(inputs);
  __m512 sum[TILE], start = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
  UNROLL for (int t = 0; t < TILE; t++) sum[t] = start;
  for (int64_t p = 0; p < pairs; p++) {
    __m512i w = _mm512_load_si512(lines + p * 2 * TILE);
    UNROLL for (int t = 0; t < TILE; t++) sum[t] = add(sum[t], x + p * TILE + t, w);
  }
  UNROLL for (int t = 0; t < TILE; t++)
    if (t < tokens) store(y + t * stride, rounded(sum[t]));
}

// sum line i (16 floats) += scale line i (8 pairs) times the held tile; COUNT lines at a time, so
// that the additions of one need not wait for those of another
constexpr int COUNT = 8;
template <int N, bool AT_SUM>
ALWAYS void add_lines(const __m512i (&held)[PAIRS], const half* scale, float* sum,
                      const int32_t* col) {
  __m512 s[N];
  const uint32_t* b[N];
  float* a[N];
  UNROLL for (int i = 0; i < N; i++) {
    a[i] = sum + int64_t(AT_SUM ? col[i] : i) * TILE;
    b[i] = reinterpret_cast<const uint32_t*>(scale + int64_t(AT_SUM ? i : col[i]) * TILE);
    s[i] = _mm512_loadu_ps(a[i]);
  }
  UNROLL for (int j = 0; j < PAIRS; j++)
    UNROLL for (int i = 0; i < N; i++) s[i] = add(s[i], b[i] + j, held[j]);
  UNROLL for (int i = 0; i < N; i++) _mm512_storeu_ps(a[i], s[i]);
}

// All n lines of a group; `tile`: sixteen lines `stride` apart; AT_SUM: whether col says where the
// sums lie, or where the scales lie
template <bool AT_SUM>
ALWAYS void inner(const half* tile, int64_t stride, const half* scale, float* sum,
                  const int32_t* col, int64_t n) {
  __m512i held[PAIRS];
  UNROLL for (int j = 0; j < PAIRS; j++)
    held[j] = paired(load(tile + 2 * j * stride), load(tile + (2 * j + 1) * stride));
  int64_t i = 0;
  for (; i + COUNT <= n; i += COUNT) {
    for (int64_t next = i + COUNT; next < least(i + 2 * COUNT, n); next++)
      if (AT_SUM) __builtin_prefetch(sum + int64_t(col[next]) * TILE, 1);
      else __builtin_prefetch(scale + int64_t(col[next]) * TILE);
    add_lines<COUNT, AT_SUM>(held, scale + (AT_SUM ? i * TILE : 0), sum + (AT_SUM ? 0 : i * TILE),
                             col + i);
  }
  for (; i < n; i++)
    add_lines<1, AT_SUM>(held, scale + (AT_SUM ? i * TILE : 0), sum + (AT_SUM ? 0 : i * TILE),
                         col + i);
}

}  // namespace

#if defined(__AMX_BF16__) || defined(__AMXBF16__)  // GCC's name, and Clang's
#define TILES
#include "tiles.h"
#endif

extern "C" {

void grouped_forward(int threads, int64_t tokens, int64_t inputs, int64_t outputs, int64_t groups,
                     const int32_t* start, const int32_t* col, const int32_t* row, const float* w,
                     const float* bias, const half* x, half* y) {
  Grouped a{groups, start, col, row};
#ifdef TILES
  if (in_blocks(a, inputs))
    return tiled_product(threads, tokens, inputs, outputs, blocks_of<false>(threads, a, inputs, w),
                         bias, x, y);
#endif
  half* lines = scratch_w.of<half>((pair(a, groups) + 1) * 2 * TILE);
#pragma omp parallel num_threads(threads)
  {
    half* panel = scratch_x.of<half>(STRIPS * TILE * inputs);
    half* pairs = scratch_y.of<half>((inputs + 1) * TILE);
#pragma omp for schedule(static)
    for (int64_t g = 0; g < groups; g++) pair_lines(a, g, w, lines);
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < pieces(tokens, STRIPS * TILE); p++) {
      int64_t t = p * STRIPS * TILE, strips = least(STRIPS, pieces(tokens - t, TILE));
      for (int64_t s = 0; s < strips; s++) pack_strip(x + t * inputs, inputs, tokens - t, s, panel);
      for (int64_t g = 0; g < groups; g++)
        for (int64_t s = 0; s < strips; s++) {
          pair_inputs(panel + s * TILE * inputs, col + start[g], a.count(g), pairs);
          outer(pairs, lines + pair(a, g) * 2 * TILE, pieces(a.count(g), 2),
                bias ? bias + row[g] : nullptr, y + (t + s * TILE) * outputs + row[g], outputs,
                least(TILE, tokens - t - s * TILE));
        }
    }
  }
}

void grouped_input_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                            int64_t groups, const int32_t* start, const int32_t* col,
                            const int32_t* row, const float* w, const half* g_y, half* g_x) {
  Grouped a{groups, start, col, row};
#ifdef TILES
  if (in_blocks(a, inputs))
    return tiled_product(threads, tokens, outputs, inputs, blocks_of<true>(threads, a, inputs, w),
                         nullptr, g_y, g_x);
#endif
  half* lines = scratch_w.of<half>(start[groups] * TILE + TILE);
#pragma omp parallel num_threads(threads)
  {
    half* panel_y = scratch_y.of<half>(STRIPS * TILE * outputs);
    float* panel_x = scratch_x.of<float>(STRIPS * TILE * inputs);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < start[groups]; i++)
      store(lines + i * TILE, rounded(_mm512_loadu_ps(w + i * TILE)));
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < pieces(tokens, STRIPS * TILE); p++) {
      int64_t t = p * STRIPS * TILE, strips = least(STRIPS, pieces(tokens - t, TILE));
      for (int64_t s = 0; s < strips; s++)
        pack_strip(g_y + t * outputs, outputs, tokens - t, s, panel_y);
      memset(panel_x, 0, strips * TILE * inputs * sizeof(float));
      for (int64_t g = 0; g < groups; g++)
        for (int64_t s = 0; s < strips; s++)
          inner<true>(panel_y + s * TILE * outputs + int64_t(row[g]) * TILE, TILE,
                      lines + int64_t(start[g]) * TILE, panel_x + s * TILE * inputs,
                      col + start[g], a.count(g));
      for (int64_t s = 0; s < strips; s++)
        unpack(panel_x + s * TILE * inputs, inputs, least(TILE, tokens - t - s * TILE),
               g_x + (t + s * TILE) * inputs);
    }
  }
}

void grouped_weight_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                             int64_t groups, const int32_t* start, const int32_t* col,
                             const int32_t* row, const half* x, const half* g_y, float* g_w) {
  Grouped a{groups, start, col, row};
#ifdef TILES
  if (in_blocks(a, inputs))
    return tiled_weight_gradient(threads, tokens, inputs, outputs, a, x, g_y, g_w);
#endif
  weight_gradient<pack_strip, inner<false>>(threads, tokens, inputs, outputs, a, x, g_y, g_w);
}

}  // extern "C"
