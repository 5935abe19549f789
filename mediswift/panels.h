// What all kernels need: macros, memory, a transpose in registers; and the grouped weight gradient.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

namespace {

constexpr int TILE = 16;        // outputs of a group, and tokens of its strip
constexpr int STRIPS = 4;       // strips of a panel of the grouped kernels
constexpr int64_t BATCH = 512;  // tokens that a weight gradient packs before it multiplies

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

struct Scratch {  // memory on cache lines, one piece a thread and use, kept for the next call
  void* at = nullptr;
  int64_t held = 0;
  template <class Number>
  Number* of(int64_t size) {
    if (int64_t bytes = size * int64_t(sizeof(Number)); bytes > held) {
      free(at);
      at = nullptr, held = 0;
      if (posix_memalign(&at, 64, bytes)) throw std::bad_alloc();
      held = bytes;
    }
    return static_cast<Number*>(at);
  }
  ~Scratch() { free(at); }
};
thread_local Scratch scratch_x, scratch_y;

// rows (W registers of W numbers) turned: one bit of row and column is exchanged at a time

template <int W, int S, class Vec, size_t... J>
ALWAYS void exchange(Vec& a, Vec& b, std::index_sequence<J...>) {
  Vec low = __builtin_shufflevector(a, b, (int(J) & S ? W + int(J) - S : int(J))...);
  Vec high = __builtin_shufflevector(a, b, (int(J) & S ? W + int(J) : int(J) + S)...);
  a = low, b = high;
}

template <int S = 1, class Vec, int W>
ALWAYS void transpose(Vec (&rows)[W]) {
  if constexpr (S < W) {
    UNROLL for (int i = 0; i < W; i++)
      if (!(i & S)) exchange<W, S>(rows[i], rows[i + S], std::make_index_sequence<W>{});
    transpose<2 * S>(rows);
  }
}

// Grouped: group g has outputs row[g] .. row[g] + 15 and the inputs col[start[g]] .. of its lines

struct Grouped {
  int64_t groups;
  const int32_t *start, *col, *row;
  int64_t count(int64_t g) const { return start[g + 1] - start[g]; }
};

// INNER on a tile of g_y (up to 16 tokens, 16 outputs), what is missing zero
template <auto INNER, class Number, class Sum>
void add_tile(const Number* strip, const Number* g_y, int64_t stride, int64_t tokens, Sum* g_w,
              const int32_t* col, int64_t n) {
  if (tokens == TILE) return INNER(g_y, stride, strip, g_w, col, n);
  Number padded[TILE * TILE] = {};
  for (int64_t t = 0; t < tokens; t++)
    memcpy(padded + t * TILE, g_y + t * stride, TILE * sizeof(Number));
  INNER(padded, TILE, strip, g_w, col, n);
}

// g_w (lines, 16 outputs) = sum over tokens of x (tokens, inputs) times g_y (tokens, outputs), where
// kept. Threads PACK strips together, then each adds to groups of its own with equally many lines
template <auto PACK, auto INNER, class Number, class Sum>
void weight_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs, const Grouped& a,
                     const Number* x, const Number* g_y, Sum* g_w) {
  Number* packed = scratch_x.of<Number>(BATCH * inputs);
  if (int64_t lines = a.start[a.groups]) memset(g_w, 0, lines * TILE * sizeof(Sum));
#pragma omp parallel num_threads(threads)
  for (int64_t t = 0; t < tokens; t += BATCH) {
    int64_t strips = pieces(least(BATCH, tokens - t), TILE);
#pragma omp for schedule(static)
    for (int64_t s = 0; s < strips; s++) PACK(x + t * inputs, inputs, tokens - t, s, packed);
#pragma omp for schedule(static)
    for (int part = 0; part < threads; part++)
      for (int64_t first = 0; first < strips; first += STRIPS)
        for (int64_t g = 0; g < a.groups; g++) {
          if (int64_t(a.start[g]) * threads / (a.start[a.groups] + 1) != part) continue;
          for (int64_t s = first; s < least(first + STRIPS, strips); s++)
            add_tile<INNER>(packed + s * TILE * inputs, g_y + (t + s * TILE) * outputs + a.row[g],
                            outputs, least(TILE, tokens - t - s * TILE),
                            g_w + int64_t(a.start[g]) * TILE, a.col + a.start[g], a.count(g));
        }
  }
}

}  // namespace
