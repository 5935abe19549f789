// Blocks of 16 x 16 weights on the tile registers of AMX (Intel's servers since Sapphire Rapids), for
// native_bf16.cpp, whose types and helpers these are.
//
// One instruction multiplies a left tile (16 rows of 32 numbers) by a right one (16 pairs of rows, 16
// columns) and adds to a tile of 16 x 16 floats. A product over inputs, or over outputs, goes block by
// block and fills half of that depth, at the same pace; one over tokens fills it. The input gradient
// is the forward product of the turned matrix. Lines whose inputs are no neighbors would have to be
// gathered first: they are left to the vector instructions.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int64_t BLOCK = TILE * TILE;
constexpr int DEPTH = 2 * TILE;  // numbers of a row of a full tile
constexpr int64_t CHUNKS = 8;    // of DEPTH tokens, which a weight gradient packs before it multiplies
constexpr int SUMS = 6;          // registers 0 .. 5 hold sums, 6 the left and 7 the right tile

// GCC's intrinsics before version 14 do not tell it that tile instructions read and write memory
#define MEMORY asm volatile("" ::: "memory");

thread_local Scratch scratch_index, scratch_right;

bool tiles_granted() {  // Linux has a process ask for them first; else the vector instructions do it
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  static const bool granted = !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
  return granted;
}

struct Shapes {  // of all tile registers, as the processor lays them out
  uint8_t palette = 1, first = 0, zero[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
  Shapes() = default;
  explicit Shapes(int depth) {
    for (int i = 0; i <= SUMS + 1; i++) bytes[i] = DEPTH * sizeof(half), rows[i] = TILE;
    bytes[SUMS] = depth * sizeof(half), rows[SUMS + 1] = depth / 2;
  }
};

struct Tiles {  // gives this thread's registers their shapes, and at its end those from before, which
  Shapes before;  // torch's own products may count on
  explicit Tiles(int depth) {
    Shapes now(depth);
    asm volatile("" : "+m"(now), "+m"(before));  // whole, as MEMORY says of what others can reach
    _tile_storeconfig(&before);
    _tile_loadconfig(&now);
  }
  ~Tiles() {
    asm volatile("" : "+m"(before));
    _tile_loadconfig(&before);
  }
};

// A register's number must be written out: STEP for the first N
#define EACH(N, STEP)                                                                            \
  if constexpr (N > 0) { STEP(0) } if constexpr (N > 1) { STEP(1) } if constexpr (N > 2) { STEP(2) } \
  if constexpr (N > 3) { STEP(3) } if constexpr (N > 4) { STEP(4) } if constexpr (N > 5) { STEP(5) }
#define CLEAR(i) _tile_zero(i);
#define LOAD(i) _tile_loadd(i, sums + i * BLOCK, TILE * sizeof(float));
#define STORE(i) _tile_stored(i, sums + i * BLOCK, TILE * sizeof(float));

struct Blocks {  // run r makes outputs to[r] .. to[r] + 15 of blocks start[r] .. start[r + 1] - 1, block
  int64_t runs;  // b reads inputs at[b] .. at[b] + 15, and has its weights in `pairs`
  const int32_t *start, *at, *to;
  const half* pairs;
};

// Whether all of the matrix is blocks at multiples of sixteen, and the tile registers may be used
bool in_blocks(const Grouped& a, int64_t inputs) {
  if (inputs % TILE || !tiles_granted()) return false;
  for (int64_t g = 0; g < a.groups; g++) {
    if (a.count(g) % TILE) return false;
    for (int32_t i = a.start[g]; i < a.start[g + 1]; i += TILE)
      for (int j = 0; j < TILE; j++)
        if (a.col[i] % TILE || a.col[i + j] != a.col[i] + j) return false;
  }
  return true;
}

// A block, sixteen lines of sixteen outputs, rounded: inputs in pairs, or outputs if TURNED
template <bool TURNED>
void pair_block(const float* w, half* pairs) {
  line rows[TILE];
  UNROLL for (int i = 0; i < TILE; i++) rows[i] = rounded(_mm512_loadu_ps(w + i * TILE));
  if (TURNED) transpose(rows);
  UNROLL for (int i = 0; i < TILE; i += 2)
    _mm512_store_si512(pairs + i * TILE, paired(rows[i], rows[i + 1]));
}

// The matrix by runs of outputs, or TURNED, by runs of inputs
template <bool TURNED>
Blocks blocks_of(int threads, const Grouped& a, int64_t inputs, const float* w) {
  int64_t runs = TURNED ? inputs / TILE : a.groups, count = a.start[a.groups] / TILE;
  int32_t* start = scratch_index.of<int32_t>(2 * runs + 2 + 2 * count);
  int32_t *to = start + runs + 2, *at = to + runs, *place = at + count;
  half* pairs = scratch_w.of<half>(count * BLOCK);
  auto run = [&](int64_t g, int64_t b) { return TURNED ? a.col[b * TILE] / TILE : g; };
  auto each = [&](auto step) {
    for (int64_t g = 0; g < a.groups; g++)
      for (int64_t b = a.start[g] / TILE; b < a.start[g + 1] / TILE; b++) step(g, b);
  };
  memset(start, 0, (runs + 2) * sizeof *start);  // counted two places on, they end where they belong
  each([&](int64_t g, int64_t b) { start[run(g, b) + 2]++; });
  for (int64_t r = 0; r < runs; r++) {
    start[r + 2] += start[r + 1];
    to[r] = TURNED ? r * TILE : a.row[r];
  }
  each([&](int64_t g, int64_t b) {
    place[b] = start[run(g, b) + 1]++;
    at[place[b]] = TURNED ? a.row[g] : a.col[b * TILE];
  });
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t b = 0; b < count; b++)
    pair_block<TURNED>(w + b * BLOCK, pairs + place[b] * BLOCK);
  return {runs, start, at, to, pairs};
}

// x (n tokens, features), zeros after the last: strip by strip, sixteen features by sixteen
void pack_strips(const half* x, int64_t features, int64_t n, int64_t strips, half* panel) {
  for (int64_t s = 0; s < strips; s++)
    for (int64_t f = 0; f < features; f += TILE)
      for (int64_t t = s * TILE; t < (s + 1) * TILE; t++, panel += TILE)
        store(panel, t < n ? load(x + t * features + f) : line{});
}

// sums of N strips (16 tokens, 16 outputs) of packed x, `apart` numbers from each other
template <int N>
void multiply(const Blocks& a, int64_t r, const half* strips, int64_t apart, float* sums) {
#define MULTIPLY(i) \
  _tile_loadd(6, x + i * apart, TILE * sizeof(half)); _tile_dpbf16ps(i, 6, 7);
  MEMORY EACH(N, CLEAR)
  for (int64_t b = a.start[r]; b < a.start[r + 1]; b++) {
    const half* x = strips + int64_t(a.at[b]) * TILE;
    _tile_loadd(7, a.pairs + b * BLOCK, DEPTH * sizeof(half));
    EACH(N, MULTIPLY)
  }
  EACH(N, STORE)
}

// y (tokens, outputs) = bias + x (tokens, inputs) times the matrix
void tiled_product(int threads, int64_t tokens, int64_t inputs, int64_t outputs, const Blocks& a,
                   const float* bias, const half* x, half* y) {
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles(TILE);
    half* panel = scratch_x.of<half>(STRIPS * TILE * inputs);
    float* sums = scratch_y.of<float>(STRIPS * BLOCK);
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < pieces(tokens, STRIPS * TILE); p++) {
      int64_t t = p * STRIPS * TILE, n = least(STRIPS * TILE, tokens - t), strips = pieces(n, TILE);
      pack_strips(x + t * inputs, inputs, n, strips, panel);
      for (int64_t r = 0; r < a.runs; r++) {
        half* to = y + t * outputs + a.to[r];
        __m512 add = bias ? _mm512_loadu_ps(bias + a.to[r]) : _mm512_setzero_ps();
        for (int64_t i = 0; i < n; i++) __builtin_prefetch(to + i * outputs, 1);
        if (strips == STRIPS) multiply<STRIPS>(a, r, panel, TILE * inputs, sums);
        else for (int64_t s = 0; s < strips; s++)
          multiply<1>(a, r, panel + s * TILE * inputs, 0, sums + s * BLOCK);
        for (int64_t i = 0; i < n; i++)
          store(to + i * outputs, rounded(_mm512_add_ps(_mm512_load_ps(sums + i * TILE), add)));
      }
    }
  }
}

// A chunk of x (n tokens, features), zeros after the last, feature by feature
void pack_left(const half* x, int64_t features, int64_t n, half* left) {
  for (int64_t f = 0; f < features; f += TILE)
    for (int64_t first = 0; first < DEPTH; first += TILE) {
      line rows[TILE];
      for (int t = 0; t < TILE; t++)
        rows[t] = first + t < n ? load(x + (first + t) * features + f) : line{};
      transpose(rows);
      UNROLL for (int i = 0; i < TILE; i++) store(left + (f + i) * DEPTH + first, rows[i]);
    }
}

// A chunk of g_y (n tokens, outputs), zeros after the last, in pairs of tokens, run by run of outputs
void pack_right(const half* g_y, int64_t outputs, int64_t n, half* right) {
  auto row = [&](int64_t t, int64_t o) { return t < n ? load(g_y + t * outputs + o) : line{}; };
  for (int64_t o = 0; o < outputs; o += TILE)
    for (int64_t t = 0; t < DEPTH; t += 2, right += DEPTH)
      _mm512_store_si512(right, paired(row(t, o), row(t + 1, o)));
}

// N blocks of sums, each sixteen inputs at col[0], col[16] .., += what the chunks say
template <int N>
void accumulate(const half* left, int64_t inputs, const int32_t* col, const half* right,
                int64_t outputs, int64_t chunks, float* sums) {
#define ACCUMULATE(i)                                                               \
  _tile_loadd(6, left + (c * inputs + col[i * TILE]) * DEPTH, DEPTH * sizeof(half)); \
  _tile_dpbf16ps(i, 6, 7);
  MEMORY EACH(N, LOAD)
  for (int64_t c = 0; c < chunks; c++) {
    _tile_loadd(7, right + c * outputs * DEPTH, DEPTH * sizeof(half));
    EACH(N, ACCUMULATE)
  }
  EACH(N, STORE)
}

void tiled_weight_gradient(int threads, int64_t tokens, int64_t inputs, int64_t outputs,
                           const Grouped& a, const half* x, const half* g_y, float* g_w) {
  half* left = scratch_x.of<half>(CHUNKS * DEPTH * inputs);
  half* right = scratch_right.of<half>(CHUNKS * DEPTH * outputs);
  if (int64_t lines = a.start[a.groups]) memset(g_w, 0, lines * TILE * sizeof(float));
#pragma omp parallel num_threads(threads)
  {
    Tiles tiles(DEPTH);
    for (int64_t t = 0; t < tokens; t += CHUNKS * DEPTH) {
      int64_t chunks = least(CHUNKS, pieces(tokens - t, DEPTH));
#pragma omp for schedule(static)
      for (int64_t side = 0; side < 2 * chunks; side++) {
        int64_t c = side / 2, from = t + c * DEPTH, n = tokens - from;
        if (side % 2) pack_left(x + from * inputs, inputs, n, left + c * DEPTH * inputs);
        else pack_right(g_y + from * outputs, outputs, n, right + c * DEPTH * outputs);
      }
#pragma omp for schedule(dynamic)
      for (int64_t g = 0; g < a.groups; g++) {
        const half* of_run = right + int64_t(a.row[g]) * DEPTH;
        int64_t i = a.start[g];
        for (; i + SUMS * TILE <= a.start[g + 1]; i += SUMS * TILE)
          accumulate<SUMS>(left, inputs, a.col + i, of_run, outputs, chunks, g_w + i * TILE);
        for (; i < a.start[g + 1]; i += TILE)
          accumulate<1>(left, inputs, a.col + i, of_run, outputs, chunks, g_w + i * TILE);
      }
    }
  }
}

}  // namespace
