// What all kernels need: macros, memory, and a transpose in registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#define ALWAYS static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

namespace {

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

}  // namespace
