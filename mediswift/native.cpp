// Products of activations with a sparse matrix, forward and both gradients, on CPUs.
//
// Plain C++ with the vector extension of GCC and Clang: the compiler turns `vec` into AVX-512, AVX2,
// SSE or NEON registers, whichever -march=native has. Two layouts of the kept weights:
//
//   grouped    sixteen neighboring outputs keep the same inputs (16x1, blocks, block-diagonal): each
//              kept input is a line of sixteen weights, and a 16 x 16 tile stays in registers;
//   scattered  any weight may be kept: compressed rows, and one weight at a time meets the many
//              tokens of a panel, so that its index is read once for all of them.
//
// Tokens are cut into panels, and a panel is packed feature by feature: the tokens of one feature lie
// side by side and fit a register. All arrays are row-major, T tokens, I inputs, O outputs. The caller
// checks them. Every sum has one order, whatever the number of threads. Never build with -ffast-math:
// it may reorder these sums, and the registers' schedule with them.

#include "panels.h"

#ifndef REAL
#define REAL float
#endif

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int BYTES = 16, REGISTERS = 32;
#else
constexpr int BYTES = 16, REGISTERS = 16;
#endif

namespace {

typedef REAL vec __attribute__((vector_size(BYTES)));
constexpr int W = BYTES / sizeof(REAL);  // lanes of a register
constexpr int LANES = TILE / W;          // registers that hold a line of a tile
constexpr int V = 8, PANEL = V * W;      // registers and tokens of a panel of the scattered kernels
static_assert(TILE % W == 0, "a line of a tile is whole registers");

ALWAYS vec load(const REAL* p) { vec v; memcpy(&v, p, sizeof v); return v; }
ALWAYS void store(REAL* p, vec v) { memcpy(p, &v, sizeof v); }
ALWAYS vec all(REAL value) { return value - vec{}; }

// ---- Packing

// to[c * to_stride + r] = from[r * from_stride + c] for the first `rows` and all `cols`
void turn(const REAL* from, int64_t from_stride, int64_t rows, int64_t cols, REAL* to,
          int64_t to_stride) {
  int64_t whole_rows = rows / W * W, whole_cols = cols / W * W;
  for (int64_t c = 0; c < whole_cols; c += W)
    for (int64_t r = 0; r < whole_rows; r += W) {
      vec tile[W];
      UNROLL for (int i = 0; i < W; i++) tile[i] = load(from + (r + i) * from_stride + c);
      transpose(tile);
      UNROLL for (int i = 0; i < W; i++) store(to + (c + i) * to_stride + r, tile[i]);
    }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = r < whole_rows ? whole_cols : 0; c < cols; c++)
      to[c * to_stride + r] = from[r * from_stride + c];
}

// Tokens [0, n) of x (n, features) into a panel of `size` tokens, feature by feature, the rest zero
void pack(const REAL* x, int64_t features, int64_t n, int64_t size, REAL* panel) {
  for (int64_t f = 0; n < size && f < features; f++)
    memset(panel + f * size + n, 0, (size - n) * sizeof(REAL));
  turn(x, features, n, features, panel, size);
}

// Strip s, sixteen tokens or the last ones, of x (tokens, features) into its place in a panel
void pack_strip(const REAL* x, int64_t features, int64_t tokens, int64_t s, REAL* panel) {
  int64_t first = s * TILE;
  pack(x + first * features, features, least(TILE, tokens - first), TILE, panel + first * features);
}

void unpack(const REAL* panel, int64_t features, int64_t n, int64_t size, REAL* x) {
  turn(panel, size, features, n, x, features);
}

// ---- Grouped

// y (tokens, 16 outputs) = bias + sum over kept inputs of x (input, tokens) times its line of weights
constexpr int TOKENS = REGISTERS / 2 / LANES;  // whose sums are in registers at once
ALWAYS void outer(const REAL* strip, const int32_t* col, int64_t n, const REAL* w, const REAL* bias,
                  REAL* y, int64_t stride, int64_t tokens) {
  for (int first = 0; first < tokens; first += TOKENS) {
    vec sum[TOKENS][LANES];
    UNROLL for (int t = 0; t < TOKENS; t++)
      UNROLL for (int v = 0; v < LANES; v++) sum[t][v] = bias ? load(bias + v * W) : vec{};
    for (int64_t i = 0; i < n; i++) {
      const REAL* x = strip + int64_t(col[i]) * TILE + first;
      __builtin_prefetch(strip + int64_t(col[least(i + 8, n - 1)]) * TILE + first);
      UNROLL for (int v = 0; v < LANES; v++) {
        vec line = load(w + i * TILE + v * W);
        UNROLL for (int t = 0; t < TOKENS; t++) sum[t][v] += x[t] * line;
      }
    }
    UNROLL for (int t = 0; t < TOKENS; t++)
      if (first + t < tokens)
        UNROLL for (int v = 0; v < LANES; v++) store(y + (first + t) * stride + v * W, sum[t][v]);
  }
}

// sum line i += scale line i (16 numbers) times the 16 lines of a tile, whose half is in registers;
// COUNT lines at a time, so that the additions of one need not wait for those of another
constexpr int HELD = REGISTERS / 2, COUNT = REGISTERS == 32 ? 8 : 6;
template <int N, bool AT_SUM>
ALWAYS void add_lines(const vec (&held)[HELD], const REAL* scale, REAL* sum, const int32_t* col) {
  vec s[N];
  const REAL* b[N];
  REAL* a[N];
  UNROLL for (int i = 0; i < N; i++) {
    a[i] = sum + int64_t(AT_SUM ? col[i] : i) * TILE;
    b[i] = scale + int64_t(AT_SUM ? i : col[i]) * TILE;
    s[i] = load(a[i]);
  }
  UNROLL for (int j = 0; j < HELD; j++)
    UNROLL for (int i = 0; i < N; i++) s[i] += b[i][j] * held[j];
  UNROLL for (int i = 0; i < N; i++) store(a[i], s[i]);
}

template <bool AT_SUM>  // whether col says where the sums lie, or where the scales lie
ALWAYS void inner(const REAL* tile, int64_t stride, const REAL* scale, REAL* sum,
                  const int32_t* col, int64_t n) {
  for (int v = 0; v < LANES; v++)
    for (int j = 0; j < TILE; j += HELD) {
      vec held[HELD];
      UNROLL for (int h = 0; h < HELD; h++) held[h] = load(tile + (j + h) * stride + v * W);
      int64_t i = 0;
      for (; i + COUNT <= n; i += COUNT) {
        for (int64_t next = i + COUNT; next < least(i + 2 * COUNT, n); next++)
          __builtin_prefetch((AT_SUM ? sum : scale) + int64_t(col[next]) * TILE);
        add_lines<COUNT, AT_SUM>(held, scale + j + (AT_SUM ? i * TILE : 0),
                                 sum + v * W + (AT_SUM ? 0 : i * TILE), col + i);
      }
      for (; i < n; i++)
        add_lines<1, AT_SUM>(held, scale + j + (AT_SUM ? i * TILE : 0),
                             sum + v * W + (AT_SUM ? 0 : i * TILE), col + i);
    }
}

// ---- Scattered: compressed rows, cut into segments of one row in one block of columns, so that the
// packed inputs of a block stay in the first cache and the sums of a chunk of rows in the second.
// Segments are ordered by chunk, block and length; equal lengths make loop ends predictable.

constexpr int64_t CHUNK = 256;  // rows of a chunk

struct Scattered {
  int64_t rows, blocks;
  const int32_t *row, *start, *count;  // of each segment: its row, its first weight, how many
  const int32_t* col;                  // of each weight: its input
};

// What the next segment needs is asked for while this one is computed: the order jumps about
ALWAYS void fetch_ahead(const Scattered& a, int64_t s, int64_t last, const REAL* panel,
                        const REAL* value) {
  if (s >= last) return;
  UNROLL for (int v = 0; v < V; v++)
    __builtin_prefetch(panel + int64_t(a.row[s]) * PANEL + v * W, 1);
  UNROLL for (int line = 0; line < 32; line += 16) {
    __builtin_prefetch(value + a.start[s] + line, 1);
    __builtin_prefetch(a.col + a.start[s] + line);
  }
}

// panel_y (O, PANEL) = bias + the weights times panel_x (I, PANEL)
void multiply(const Scattered& a, const REAL* value, const REAL* bias, const REAL* panel_x,
              REAL* panel_y) {
  for (int64_t s = 0, left = 0; s < a.blocks * a.rows; s++, left--) {
    if (s % (a.blocks * CHUNK) == 0) left = least(CHUNK, a.rows - s / a.blocks);
    REAL* y = panel_y + int64_t(a.row[s]) * PANEL;
    fetch_ahead(a, s + 1, a.blocks * a.rows, panel_y, value);
    vec sum[V];  // the chunk's first segments, one of each row, find no sum yet
    UNROLL for (int v = 0; v < V; v++)
      sum[v] = left > 0 ? all(bias ? bias[a.row[s]] : 0) : load(y + v * W);
    for (int64_t i = a.start[s], end = i + a.count[s]; i < end; i++) {
      const REAL* x = panel_x + int64_t(a.col[i]) * PANEL;
      vec weight = all(value[i]);
      UNROLL for (int v = 0; v < V; v++) sum[v] += weight * load(x + v * W);
    }
    UNROLL for (int v = 0; v < V; v++) store(y + v * W, sum[v]);
  }
}

template <int S, size_t... J>  // lanes of a and b, folded onto each other at distance S
ALWAYS vec fold(vec a, vec b, std::index_sequence<J...>) {
  return __builtin_shufflevector(a, b, (int(J) & S ? W + int(J) - S : int(J))...) +
         __builtin_shufflevector(a, b, (int(J) & S ? W + int(J) : int(J) + S)...);
}

template <int S>
ALWAYS vec fold(vec a, vec b) { return fold<S>(a, b, std::make_index_sequence<W>{}); }

typedef REAL four __attribute__((vector_size(4 * sizeof(REAL))));

// The four sums of all lanes of each vector
ALWAYS four totals(const vec (&dot)[4]) {
  if constexpr (W == 2) {
    vec a = fold<1>(dot[0], dot[1]), b = fold<1>(dot[2], dot[3]);
    return four{a[0], a[1], b[0], b[1]};
  } else {
    vec sums = fold<2>(fold<1>(dot[0], dot[1]), fold<1>(dot[2], dot[3]));
    if constexpr (W >= 16) sums = fold<8>(sums, sums);
    if constexpr (W >= 8) sums = fold<4>(sums, sums);
    return __builtin_shufflevector(sums, sums, 0, 1, 2, 3);
  }
}

// gradient of weight i += dot product over the tokens of its output's and its input's line, four
// weights at a time; the last ones of a segment are repeated to make four
void sample(const Scattered& a, int64_t first, int64_t last, const REAL* panel_x,
            const REAL* panel_g, REAL* gradient) {
  for (int64_t s = first; s < last; s++) {
    vec g[V];
    fetch_ahead(a, s + 1, last, panel_g, gradient);
    UNROLL for (int v = 0; v < V; v++) g[v] = load(panel_g + int64_t(a.row[s]) * PANEL + v * W);
    for (int64_t i = a.start[s], end = i + a.count[s]; i < end; i += 4) {
      vec dot[4];
      UNROLL for (int n = 0; n < 4; n++) {
        const REAL* x = panel_x + int64_t(a.col[least(i + n, end - 1)]) * PANEL;
        dot[n] = g[0] * load(x);
        UNROLL for (int v = 1; v < V; v++) dot[n] += g[v] * load(x + v * W);
      }
      four sums = totals(dot), old;
      if (i + 4 <= end) {
        memcpy(&old, gradient + i, sizeof old);
        old += sums;
        memcpy(gradient + i, &old, sizeof old);
      } else {
        for (int n = 0; n < end - i; n++) gradient[i + n] += sums[n];
      }
    }
  }
}

}  // namespace

extern "C" {

int lanes() { return W; }

// to[i] = from[order[i]]: the kept weights in the order of the transposed matrix
void reorder(int threads, int64_t size, const int32_t* order, const REAL* from, REAL* to) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < size; i++) to[i] = from[order[i]];
}

// to (size) = zeros, and each kept weight at its place: the dense matrix
void place(int threads, int64_t size, int64_t kept, const int32_t* order, const REAL* from,
           REAL* to) {
  int64_t piece = pieces(size, threads);
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t first = 0; first < size; first += piece)
      memset(to + first, 0, least(piece, size - first) * sizeof(REAL));
#pragma omp for schedule(static)
    for (int64_t i = 0; i < kept; i++) to[order[i]] = from[i];
  }
}

void grouped_forward(int threads, int64_t tokens, int64_t inputs, int64_t outputs, int64_t groups,
                     const int32_t* start, const int32_t* col, const int32_t* row, const REAL* w,
                     const REAL* bias, const REAL* x, REAL* y) {
#pragma omp parallel num_threads(threads)
  {
    REAL* panel = scratch_x.of<REAL>(STRIPS * TILE * inputs);
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < pieces(tokens, STRIPS * TILE); p++) {
      int64_t t = p * STRIPS * TILE, strips = least(STRIPS, pieces(tokens - t, TILE));
      for (int64_t s = 0; s < strips; s++) pack_strip(x + t * inputs, inputs, tokens - t, s, panel);
      for (int64_t g = 0; g < groups; g++)
        for (int64_t s = 0; s < strips; s++)
          outer(panel + s * TILE * inputs, col + start[g], start[g + 1] - start[g],
                w + int64_t(start[g]) * TILE, bias ? bias + row[g] : nullptr,
                y + (t + s * TILE) * outputs + row[g], outputs,
                least(TILE, tokens - t - s * TILE));
    }
  }
}

void grouped_input_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                            int64_t groups, const int32_t* start, const int32_t* col,
                            const int32_t* row, const REAL* w, const REAL* g_y, REAL* g_x) {
#pragma omp parallel num_threads(threads)
  {
    REAL *panel_y = scratch_y.of<REAL>(STRIPS * TILE * outputs);
    REAL *panel_x = scratch_x.of<REAL>(STRIPS * TILE * inputs);
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < pieces(tokens, STRIPS * TILE); p++) {
      int64_t t = p * STRIPS * TILE, strips = least(STRIPS, pieces(tokens - t, TILE));
      for (int64_t s = 0; s < strips; s++)
        pack_strip(g_y + t * outputs, outputs, tokens - t, s, panel_y);
      memset(panel_x, 0, strips * TILE * inputs * sizeof(REAL));
      for (int64_t g = 0; g < groups; g++)
        for (int64_t s = 0; s < strips; s++)
          inner<true>(panel_y + s * TILE * outputs + int64_t(row[g]) * TILE, TILE,
                      w + int64_t(start[g]) * TILE, panel_x + s * TILE * inputs,
                      col + start[g], start[g + 1] - start[g]);
      for (int64_t s = 0; s < strips; s++)
        unpack(panel_x + s * TILE * inputs, inputs, least(TILE, tokens - t - s * TILE), TILE,
               g_x + (t + s * TILE) * inputs);
    }
  }
}

void grouped_weight_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                             int64_t groups, const int32_t* start, const int32_t* col,
                             const int32_t* row, const REAL* x, const REAL* g_y, REAL* g_w) {
  weight_gradient<pack_strip, inner<false>>(threads, tokens, inputs, outputs,
                                            Grouped{groups, start, col, row}, x, g_y, g_w);
}

void scattered_forward(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                       int64_t blocks, const int32_t* row, const int32_t* start,
                       const int32_t* count, const int32_t* col, const REAL* value,
                       const REAL* bias, const REAL* x, REAL* y) {
  Scattered a{outputs, blocks, row, start, count, col};
#pragma omp parallel num_threads(threads)
  {
    REAL *panel_x = scratch_x.of<REAL>(PANEL * inputs);
    REAL *panel_y = scratch_y.of<REAL>(PANEL * outputs);
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < pieces(tokens, PANEL); p++) {
      int64_t t = p * PANEL, n = least(PANEL, tokens - t);
      pack(x + t * inputs, inputs, n, PANEL, panel_x);
      multiply(a, value, bias, panel_x, panel_y);
      unpack(panel_y, outputs, n, PANEL, y + t * outputs);
    }
  }
}

void scattered_weight_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                               int64_t blocks, const int32_t* row, const int32_t* start,
                               const int32_t* count, const int32_t* col, int64_t kept,
                               const REAL* x, const REAL* g_y, REAL* g_value) {
  Scattered a{outputs, blocks, row, start, count, col};
  REAL *packed_x = scratch_x.of<REAL>((BATCH + PANEL) * inputs);
  REAL *packed_g = scratch_y.of<REAL>((BATCH + PANEL) * outputs);
  if (kept) memset(g_value, 0, kept * sizeof(REAL));  // nothing kept has no address
#pragma omp parallel num_threads(threads)
  for (int64_t t = 0; t < tokens; t += BATCH) {
    int64_t panels = pieces(least(BATCH, tokens - t), PANEL);
#pragma omp for schedule(static)
    for (int64_t p = 0; p < panels; p++) {
      int64_t first = t + p * PANEL, n = least(PANEL, tokens - first);
      pack(x + first * inputs, inputs, n, PANEL, packed_x + p * PANEL * inputs);
      pack(g_y + first * outputs, outputs, n, PANEL, packed_g + p * PANEL * outputs);
    }
#pragma omp for schedule(static)
    for (int part = 0; part < threads; part++)  // each owns segments
      for (int64_t p = 0; p < panels; p++)
        sample(a, blocks * outputs * part / threads, blocks * outputs * (part + 1) / threads,
               packed_x + p * PANEL * inputs, packed_g + p * PANEL * outputs, g_value);
  }
}

}  // extern "C"
