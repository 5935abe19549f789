// All kernels of native.cpp, or with -DBF16 of native_bf16.cpp, on odd random shapes, against plain
// loops. Arrays have their exact sizes, so that a build with -fsanitize=address sees a step outside
// (of tile instructions it sees nothing).
// Returns the number of wrong results.

#ifdef BF16
#include "../mediswift/native_bf16.cpp"
#define REAL float
using Active = half;  // a number that goes in or comes out
#else
#include "../mediswift/native.cpp"
using Active = REAL;
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <tuple>
#include <vector>

using Reals = std::vector<REAL>;
using Actives = std::vector<Active>;
using Ints = std::vector<int32_t>;

std::mt19937 dice(0);
int wrong = 0;

Reals drawn(int64_t size) {
#ifdef BF16  // -1, 0 and 1, and their sums, are exact in it
  std::uniform_int_distribution<int> normal(-1, 1);
#else
  std::normal_distribution<double> normal;
#endif
  Reals found(size);
  for (REAL& value : found) value = REAL(normal(dice));
  return found;
}

Actives active(const Reals& numbers) {
#ifdef BF16
  Actives found(numbers.size());
  for (size_t i = 0; i < found.size(); i++) {
    uint32_t bits;
    memcpy(&bits, &numbers[i], 4);
    found[i] = bits >> 16;
  }
  return found;
#else
  return numbers;
#endif
}

Reals real(const Actives& numbers) {
  Reals found(numbers.begin(), numbers.end());
#ifdef BF16
  for (size_t i = 0; i < found.size(); i++) {
    uint32_t bits = uint32_t(numbers[i]) << 16;
    memcpy(&found[i], &bits, 4);
  }
#endif
  return found;
}

struct Matrix {  // (O, I), and its kept weights in the order of a layout
  int64_t outputs, inputs;
  std::vector<char> mask;
  Ints order;  // flat index of each kept weight
  Reals kept;

  Matrix(int64_t outputs, int64_t inputs, int run, double density, int width = 1)
      : outputs(outputs), inputs(inputs), mask(outputs * inputs) {
    std::bernoulli_distribution keep(density);
    for (int64_t o = 0; o < outputs; o += run) {
      bool empty = o / run % 5 == 3;  // some rows keep nothing, and so does the second column
      for (int64_t i = 0; i < inputs; i += width) {
        bool one = !empty && i != width && keep(dice);
        for (int64_t r = 0; r < run; r++)
          for (int64_t c = 0; c < width; c++) mask[(o + r) * inputs + i + c] = one;
      }
    }
  }

  void fill() { kept = drawn(order.size()); }
};

struct Step {  // what goes in, and what plain loops make of it
  int64_t tokens;
  Reals x, grad, bias;
  std::vector<double> y, of_x, of_kept;

  Step(const Matrix& m, int64_t tokens, bool biased) : tokens(tokens) {
    x = drawn(tokens * m.inputs), grad = drawn(tokens * m.outputs);
    if (biased) bias = drawn(m.outputs);
    y.resize(tokens * m.outputs), of_x.resize(tokens * m.inputs), of_kept.resize(m.kept.size());
    for (int64_t t = 0; t < tokens; t++) {
      for (int64_t o = 0; biased && o < m.outputs; o++) y[t * m.outputs + o] = bias[o];
      for (size_t k = 0; k < m.kept.size(); k++) {
        int64_t o = m.order[k] / m.inputs, i = m.order[k] % m.inputs;
        double of_y = grad[t * m.outputs + o], in = x[t * m.inputs + i], w = m.kept[k];
        y[t * m.outputs + o] += w * in, of_x[t * m.inputs + i] += w * of_y;
        of_kept[k] += of_y * in;
      }
    }
  }
};

void compare(const char* what, const Matrix& m, int64_t tokens, const Reals& found,
             const std::vector<double>& wanted) {
  for (size_t i = 0; i < wanted.size(); i++)
    if (!(std::abs(found[i] - wanted[i]) <= (sizeof(REAL) == 4 ? 1e-3 : 1e-10))) {
      printf("%s of %d x %d, %d tokens: %g at %zu, wanted %g\n", what, int(m.outputs),
             int(m.inputs), int(tokens), double(found[i]), i, wanted[i]);
      wrong++;
      return;
    }
}

template <class Number>
Number* at(std::vector<Number>& numbers) { return numbers.empty() ? nullptr : numbers.data(); }

void grouped(int threads, int64_t outputs, int64_t inputs, int64_t tokens, double density,
             int width = 1) {
  Matrix m(outputs, inputs, TILE, density, width);
  Ints start{0}, col, row;
  for (int64_t g = 0; g < outputs / TILE; g++) row.push_back(g * TILE);
  std::shuffle(row.begin(), row.end(), dice);  // a layout may put equal groups side by side
  for (int32_t first : row) {
    for (int64_t i = 0; i < inputs; i++)
      if (m.mask[first * inputs + i]) {
        col.push_back(i);
        for (int r = 0; r < TILE; r++) m.order.push_back((first + r) * inputs + i);
      }
    start.push_back(col.size());
  }
  m.fill();
  Step s(m, tokens, tokens % 2);
  Actives x = active(s.x), grad = active(s.grad), y = active(Reals(s.y.size(), NAN));
  Actives of_x = active(Reals(s.of_x.size(), NAN));
  Reals of_kept(s.of_kept.size(), NAN);
  int64_t groups = row.size();
  grouped_forward(threads, tokens, inputs, outputs, groups, start.data(), col.data(), row.data(),
                  at(m.kept), at(s.bias), at(x), at(y));
  grouped_input_gradient(threads, tokens, inputs, outputs, groups, start.data(), col.data(),
                         row.data(), at(m.kept), at(grad), at(of_x));
  grouped_weight_gradient(threads, tokens, inputs, outputs, groups, start.data(), col.data(),
                          row.data(), at(x), at(grad), at(of_kept));
  compare("grouped outputs", m, tokens, real(y), s.y);
  compare("grouped input gradient", m, tokens, real(of_x), s.of_x);
  compare("grouped weight gradient", m, tokens, of_kept, s.of_kept);
}

#ifdef BF16
int lanes() { return 2 * TILE; }
void scattered(...) {}  // not computed in it
#else
struct Segments {  // the index of a mask, as mediswift.layouts.scattered_index makes it
  Ints row, start, count, col;

  Segments(const std::vector<char>& mask, int64_t rows, int64_t cols) {
    constexpr int64_t width = 64;
    struct Segment { int64_t chunk, block, count, row, start; };
    std::vector<Segment> all;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t b = 0; b < pieces(cols, width); b++) {
        int64_t first = col.size();
        for (int64_t c = b * width; c < least(cols, (b + 1) * width); c++)
          if (mask[r * cols + c]) col.push_back(c);
        all.push_back({r / CHUNK, b, int64_t(col.size()) - first, r, first});
      }
    std::stable_sort(all.begin(), all.end(), [](const Segment& a, const Segment& b) {
      return std::tie(a.chunk, a.block, a.count) < std::tie(b.chunk, b.block, b.count);
    });
    for (const Segment& s : all)
      row.push_back(s.row), start.push_back(s.start), count.push_back(s.count);
  }
};

void scattered(int threads, int64_t outputs, int64_t inputs, int64_t tokens, double density) {
  Matrix m(outputs, inputs, 1, density);
  std::vector<char> turned(m.mask.size());
  Ints place(m.mask.size()), back;
  for (int64_t k = 0; k < outputs * inputs; k++)
    if (turned[k % inputs * outputs + k / inputs] = m.mask[k]; m.mask[k])
      place[k] = m.order.size(), m.order.push_back(k);
  for (int64_t i = 0; i < inputs; i++)
    for (int64_t o = 0; o < outputs; o++)
      if (m.mask[o * inputs + i]) back.push_back(place[o * inputs + i]);
  m.fill();
  Segments a(m.mask, outputs, inputs), b(turned, inputs, outputs);
  Step s(m, tokens, tokens % 2);
  Reals y(s.y.size(), NAN), of_x(s.of_x.size(), NAN), of_kept(s.of_kept.size(), NAN);
  Reals columns(m.kept.size(), NAN);
  int64_t kept = m.kept.size();
  scattered_forward(threads, tokens, inputs, outputs, a.row.size() / outputs, a.row.data(),
                    a.start.data(), a.count.data(), a.col.data(), at(m.kept), at(s.bias), at(s.x),
                    at(y));
  reorder(threads, kept, back.data(), at(m.kept), at(columns));
  Reals full(outputs * inputs, NAN), again(kept, NAN);
  Ints where(m.order.begin(), m.order.end());
  ::place(threads, full.size(), kept, where.data(), at(m.kept), at(full));
  reorder(threads, kept, where.data(), at(full), at(again));
  for (int64_t k = 0; k < outputs * inputs; k++)
    if (!m.mask[k] && full[k] != 0) printf("a removed weight is not zero\n"), wrong = 1;
  if (again != m.kept) printf("kept weights are not where they belong\n"), wrong = 1;
  scattered_forward(threads, tokens, outputs, inputs, b.row.size() / inputs, b.row.data(),
                    b.start.data(), b.count.data(), b.col.data(), at(columns), nullptr, at(s.grad),
                    at(of_x));
  scattered_weight_gradient(threads, tokens, inputs, outputs, a.row.size() / outputs, a.row.data(),
                            a.start.data(), a.count.data(), a.col.data(), kept, at(s.x),
                            at(s.grad), at(of_kept));
  compare("scattered outputs", m, tokens, y, s.y);
  compare("scattered input gradient", m, tokens, of_x, s.of_x);
  compare("scattered weight gradient", m, tokens, of_kept, s.of_kept);
}
#endif

int main() {
  printf("%d numbers of %zu bytes\n", lanes(), sizeof(Active));
  for (int threads : {1, 2})
    for (int64_t tokens : {0, 1, 7, 15, 16, 17, 64, 65, 129, 257}) {
      for (int64_t outputs : {16, 80, 272})
        for (int64_t inputs : {1, 5, 16, 67}) grouped(threads, outputs, inputs, tokens, 0.4);
      for (int64_t outputs : {16, 80, 272})
        for (int64_t inputs : {16, 48, 320}) grouped(threads, outputs, inputs, tokens, 0.4, TILE);
      for (int64_t outputs : {1, 13, 48, 259})
        for (int64_t inputs : {2, 16, 63, 130}) scattered(threads, outputs, inputs, tokens, 0.25);
      grouped(threads, 32, 9, tokens, 0);
      scattered(threads, 9, 7, tokens, 0);
      scattered(threads, 21, 70, tokens, 1);
    }
  for (int threads : {1, 3}) {
    grouped(threads, 48, 9, 1101, 0.4), grouped(threads, 48, 64, 1101, 0.6, TILE);
    scattered(threads, 9, 7, 1101, 0.4);
  }
  return wrong;
}
