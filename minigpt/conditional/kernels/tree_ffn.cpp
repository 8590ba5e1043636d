// Trees of neurons on the CPU (UltraFastBERT, 2311.10770): y = sum over visited nodes of act(score) * w_out[node].
//
// Tokens go through the levels in small blocks: the rows that one token needs next do not depend on the other tokens
// of its block, so the processor fetches them together. Large batches take the levels in stages. After each stage
// tokens are sorted by the node they stand at, and the rows of a stage's subtree stay in the core's own cache.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.h"

// The array of `layout.FIELDS`.
struct Numbers {
  const void *w_in, *w_gate, *w_out;
  const float *bias, *scale_in, *scale_gate, *scale_out;
  int64_t row_in, row_gate, row_out, tree_in, tree_gate, tree_out;
  int64_t trees, nodes, width, depth, activation, cache, group;
};

namespace {

constexpr int kBlock = 8;             // most tokens of a block
constexpr int kBlockBytes = 32768;    // of the first-level cache, for the tokens of a block
constexpr int kFewTokens = 2;         // blocks up to this size wait for memory, so rows are asked for early
constexpr size_t kLine = 64;

// Numbers as in `reference.ACTIVATIONS`.
inline float activate(float s, int64_t kind) {
  if (kind == 0) return 0.5f * s * (1.0f + std::erf(s * 0.70710678118654752f));
  if (kind == 1) return 0.5f * s * (1.0f + std::tanh(0.79788456080286536f * (s + 0.044715f * s * s * s)));
  if (kind == 2) return s <= 0 ? 0.0f : s;
  return s / (1.0f + std::exp(-s));
}

inline void prefetch(const void* start, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kLine) __builtin_prefetch(static_cast<const char*>(start) + at, 0, 3);
}

template <class X, class W>
class Kernel {
  // Blocks hold bf16 tokens as they are where bf16 products exist, else as floats.
  using Read = std::conditional_t<kPairs && std::is_same_v<X, Bf16> && std::is_same_v<W, Bf16>, Bf16, float>;

 public:
  Kernel(const Numbers& numbers, const X* x, X* y, int32_t* path, float* score, float* gate, int64_t count, int threads)
      : n_(numbers), x_(x), y_(y), path_(path), score_(score), gate_(gate), count_(count), levels_(numbers.depth + 1),
        threads_(threads) {}

  void run() {
    const size_t places = size_t(count_) * n_.trees * levels_;
    std::unique_ptr<int32_t[]> path(path_ ? nullptr : new int32_t[places]);
    std::unique_ptr<float[]> score(score_ ? nullptr : new float[places]);
    std::unique_ptr<float[]> gate(gate_ || !n_.w_gate ? nullptr : new float[places]);
    if (path) path_ = path.get();
    if (score) score_ = score.get();
    if (gate) gate_ = gate.get();
    if (n_.group > 0 && count_ >= n_.group) return grouped();
    if (count_ < threads_ && n_.trees >= threads_) return spread();
    share(count_, [&](int64_t from, int64_t to) {
      std::vector<int64_t> order(to - from);
      for (int64_t i = from; i < to; ++i) order[i - from] = i;
      pass(order.data(), to - from, 0, n_.trees, 0, levels_, true);
    });
  }

 private:
  const W* row(const void* rows, int64_t tree_step, int64_t row_step, int64_t tree, int64_t node) const {
    return static_cast<const W*>(rows) + tree * tree_step + node * row_step;
  }
  const W* in(int64_t tree, int64_t node) const { return row(n_.w_in, n_.tree_in, n_.row_in, tree, node); }
  const W* gate(int64_t tree, int64_t node) const { return row(n_.w_gate, n_.tree_gate, n_.row_gate, tree, node); }
  const W* out(int64_t tree, int64_t node) const { return row(n_.w_out, n_.tree_out, n_.row_out, tree, node); }
  size_t place(int64_t token, int64_t tree) const { return (size_t(token) * n_.trees + tree) * levels_; }

  const Read* read(int64_t token, Read* room) const {
    const X* from = x_ + token * n_.width;
    if constexpr (std::is_same_v<X, Read>) {
      return from;
    } else {
      int64_t j = 0;
      for (; j + kLanes <= n_.width; j += kLanes) store(room + j, load(from + j));
      for (; j < n_.width; ++j) room[j] = one(from[j]);
      return room;
    }
  }

  // Takes the tokens of a block from level `first` to before level `last` of one tree.
  void route(const Read* const* x, const int64_t* tokens, int size, int64_t tree, int64_t first, int64_t last) const {
    const size_t bytes = sizeof(W) * n_.width;
    const bool early = size <= kFewTokens;
    for (int64_t level = first; level < last; ++level)
      for (int t = 0; t < size; ++t) {
        const size_t here = place(tokens[t], tree) + level;
        const int64_t node = level ? path_[here] : 0, neuron = tree * n_.nodes + node;
        path_[here] = int32_t(node);
        if (early) prefetch(out(tree, node), bytes);
        float s = dot(x[t], in(tree, node), n_.width);
        if (n_.scale_in) s *= n_.scale_in[neuron];
        if (n_.bias) s += n_.bias[neuron];
        score_[here] = s;
        if (n_.w_gate) {
          s = dot(x[t], gate(tree, node), n_.width);
          if (n_.scale_gate) s *= n_.scale_gate[neuron];
          gate_[here] = s;
        }
        if (level + 1 == levels_) continue;
        const int64_t next = 2 * node + 1 + (s > 0);
        path_[here + 1] = int32_t(next);
        if (early) prefetch(in(tree, next), bytes);
        if (early && n_.w_gate) prefetch(gate(tree, next), bytes);
      }
  }

  // Adds what trees [first, last) give for one token to its output, columns [from, to).
  void emit(int64_t token, int64_t first, int64_t last, int64_t from, int64_t to, float* values, const W** rows) const {
    const int64_t count = (last - first) * levels_;
    const size_t start = place(token, first);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t tree = first + i / levels_, node = path_[start + i];
      const float s = score_[start + i];
      values[i] = n_.w_gate ? activate(gate_[start + i], n_.activation) * s : activate(s, n_.activation);
      if (n_.scale_out) values[i] *= n_.scale_out[tree * n_.nodes + node];
      rows[i] = out(tree, node);
    }
    X* y = y_ + token * n_.width;
    float* sum = sums_ ? sums_ + token * n_.width : nullptr;
    if (last < n_.trees)
      add(values, rows, count, first ? sum : nullptr, sum, from, to);
    else
      add(values, rows, count, first ? sum : nullptr, y, from, to);
  }

  // Takes tokens through levels of trees in blocks; `emits`: adds up their outputs.
  void pass(const int64_t* order, int64_t count, int64_t first_tree, int64_t last_tree, int64_t first, int64_t last,
            bool emits) const {
    const int size = int(std::clamp<int64_t>(kBlockBytes / int64_t(sizeof(float) * n_.width), 1, kBlock));
    const int64_t places = (last_tree - first_tree) * levels_;
    std::vector<Read> room(std::is_same_v<X, Read> ? 0 : size_t(size) * n_.width);
    std::vector<float> values(emits ? places : 0);
    std::vector<const W*> rows(emits ? places : 0);
    const Read* x[kBlock];
    for (int64_t start = 0; start < count; start += size) {
      const int tokens = int(std::min<int64_t>(size, count - start));
      for (int t = 0; t < tokens; ++t) x[t] = read(order[start + t], room.data() + (room.empty() ? 0 : t * n_.width));
      for (int64_t tree = first_tree; tree < last_tree; ++tree) route(x, order + start, tokens, tree, first, last);
      for (int t = 0; emits && t < tokens; ++t)
        emit(order[start + t], first_tree, last_tree, 0, n_.width, values.data(), rows.data());
    }
  }

  // Levels whose rows below one node fit into the cache, at least one.
  int64_t stage_height() const {
    const int64_t node = int64_t(sizeof(W)) * n_.width * (n_.w_gate ? 3 : 2);
    int64_t height = 1;
    while (height < levels_ && ((int64_t(2) << height) - 1) * node <= n_.cache) ++height;
    return height;
  }

  // Sorts tokens by the node at which they stand; those of one node keep their order.
  void sort(std::vector<int64_t>& order, int64_t tree, int64_t level) const {
    const int64_t base = (int64_t(1) << level) - 1;
    std::vector<int64_t> starts(base + 2), sorted(order.size());
    for (int64_t token : order) ++starts[path_[place(token, tree) + level] - base + 1];
    for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    for (int64_t token : order) sorted[starts[path_[place(token, tree) + level] - base]++] = token;
    order.swap(sorted);
  }

  // Takes each tree in stages of levels, with tokens sorted by node between them.
  void grouped() {
    std::vector<int64_t> order(count_);
    std::unique_ptr<float[]> sums(n_.trees > 1 ? new float[count_ * n_.width] : nullptr);
    sums_ = sums.get();
    const int64_t height = stage_height(), stages = (levels_ + height - 1) / height;
    for (int64_t i = 0; i < count_; ++i) order[i] = i;
    for (int64_t tree = 0; tree < n_.trees; ++tree)
      for (int64_t stage = 0; stage < stages; ++stage) {
        const int64_t first = levels_ * stage / stages, last = levels_ * (stage + 1) / stages;
        if (stage > 0) sort(order, tree, first);
        share(count_, [&](int64_t from, int64_t to) {
          pass(order.data() + from, to - from, tree, tree + 1, first, last, last == levels_);
        });
      }
  }

  // Few tokens and many trees: threads share the trees, then the columns of the output.
  void spread() const {
    const int64_t piece = 4 * kLanes, places = n_.trees * levels_;
    for (int64_t token = 0; token < count_; ++token) {
      share(n_.trees, [&](int64_t from, int64_t to) { pass(&token, 1, from, to, 0, levels_, false); });
      share((n_.width + piece - 1) / piece, [&](int64_t from, int64_t to) {
        std::vector<float> values(places);
        std::vector<const W*> rows(places);
        emit(token, 0, n_.trees, from * piece, std::min(n_.width, to * piece), values.data(), rows.data());
      });
    }
  }

  // Divides a range among threads.
  template <class F>
  void share(int64_t count, F part) const {
    const int threads = int(std::min<int64_t>(threads_, count));
    if (threads <= 1) return part(0, count);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    {
      const int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
      part(count * me / all, count * (me + 1) / all);
    }
#else
    part(0, count);
#endif
  }

  const Numbers& n_;
  const X* x_;
  X* y_;
  int32_t* path_;
  float *score_, *gate_, *sums_ = nullptr;
  const int64_t count_, levels_;
  const int threads_;
};

template <class X, class W>
void compute(const void* numbers, const void* x, void* y, int32_t* path, float* score, float* gate, int64_t count,
             int64_t threads) {
  Kernel<X, W>(*static_cast<const Numbers*>(numbers), static_cast<const X*>(x), static_cast<X*>(y), path, score, gate,
               count, int(threads)).run();
}

}  // namespace

// One function for each type of tokens and rows.
#define ENTRY(NAME, X, W)                                                                                           \
  extern "C" void NAME(const void* numbers, const void* x, void* y, int32_t* path, float* score, float* gate,       \
                       int64_t count, int64_t threads) {                                                            \
    compute<X, W>(numbers, x, y, path, score, gate, count, threads);                                                \
  }
ENTRY(tree_ffn_float32_float32, float, float)
ENTRY(tree_ffn_float32_bfloat16, float, Bf16)
ENTRY(tree_ffn_float32_int8, float, int8_t)
ENTRY(tree_ffn_bfloat16_bfloat16, Bf16, Bf16)
ENTRY(tree_ffn_bfloat16_int8, Bf16, int8_t)
