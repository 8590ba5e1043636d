// Vectors of 16 floats from rows of fp32, bf16 and int8, with sums in fp32. GCC and Clang make of them what the
// processor has; AVX-512 is named only where the compiler would not find the instruction by itself.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int kLanes = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef float Eight __attribute__((vector_size(32)));
typedef float Four __attribute__((vector_size(16)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));

struct Bf16 {
  uint16_t bits;
};

template <class V>
V read_as(const void* from) {
  V result;
  std::memcpy(&result, from, sizeof result);
  return result;
}

inline Floats load(const float* from) { return read_as<Floats>(from); }
inline Floats load(const Bf16* from) { return (Floats)(__builtin_convertvector(read_as<Halves>(from), Words) << 16); }
inline Floats load(const int8_t* from) {
#ifdef __AVX512F__
  return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#else
  return __builtin_convertvector(read_as<Bytes>(from), Floats);
#endif
}

inline float one(float value) { return value; }
inline float one(int8_t value) { return value; }
inline float one(Bf16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  return read_as<float>(&bits);
}

// Bits whose upper half is the nearest bf16, ties to even. NaN stays NaN.
inline Words rounded(Floats values) {
  const Words bits = (Words)values, nan = (Words)(values != values);
  return ((bits + 0x7fff + ((bits >> 16) & 1)) & ~nan) | ((bits | 0x400000) & nan);
}
inline void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }
inline void store(Bf16* to, Floats values) {
  const Halves halves = __builtin_convertvector(rounded(values) >> 16, Halves);
  std::memcpy(to, &halves, sizeof halves);
}
inline void store_one(float* to, float value) { *to = value; }
inline void store_one(Bf16* to, float value) {
  const uint32_t bits = read_as<uint32_t>(&value);
  to->bits = uint16_t(value != value ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float total(Floats values) {
  Eight eights[2];
  std::memcpy(eights, &values, sizeof values);
  const Eight eight = eights[0] + eights[1];
  Four fours[2];
  std::memcpy(fours, &eight, sizeof eight);
  const Four four = fours[0] + fours[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

template <class W>
float dot(const float* x, const W* row, int64_t width) {
  Floats a = {}, b = {}, c = {}, d = {};
  int64_t j = 0;
  for (; j + 4 * kLanes <= width; j += 4 * kLanes) {
    a += load(x + j) * load(row + j);
    b += load(x + j + kLanes) * load(row + j + kLanes);
    c += load(x + j + 2 * kLanes) * load(row + j + 2 * kLanes);
    d += load(x + j + 3 * kLanes) * load(row + j + 3 * kLanes);
  }
  for (; j + kLanes <= width; j += kLanes) a += load(x + j) * load(row + j);
  float sum = total((a + b) + (c + d));
  for (; j < width; ++j) sum += x[j] * one(row[j]);
  return sum;
}

#ifdef __AVX512BF16__
constexpr bool kPairs = true;  // products of bf16 pairs, summed in fp32, in one instruction
inline __m512 pairs(__m512 sum, const Bf16* x, const Bf16* row) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(row));
}
inline float dot(const Bf16* x, const Bf16* row, int64_t width) {
  __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a;
  int64_t j = 0;
  for (; j + 8 * kLanes <= width; j += 8 * kLanes) {
    a = pairs(a, x + j, row + j), b = pairs(b, x + j + 2 * kLanes, row + j + 2 * kLanes);
    c = pairs(c, x + j + 4 * kLanes, row + j + 4 * kLanes), d = pairs(d, x + j + 6 * kLanes, row + j + 6 * kLanes);
  }
  for (; j + 2 * kLanes <= width; j += 2 * kLanes) a = pairs(a, x + j, row + j);
  float sum = total((Floats)_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)));
  for (; j < width; ++j) sum += one(x[j]) * one(row[j]);
  return sum;
}
#else
constexpr bool kPairs = false;
#endif

// Adds rows, each times its value, to what was before (or to zero), columns [from, to).
template <class W, class Y>
void add(const float* values, const W* const* rows, int64_t count, const float* before, Y* y, int64_t from, int64_t to) {
  int64_t j = from;
  for (; j + 4 * kLanes <= to; j += 4 * kLanes) {
    Floats sums[4] = {};
    if (before)
      for (int k = 0; k < 4; ++k) sums[k] = load(before + j + k * kLanes);
    for (int64_t i = 0; i < count; ++i)
      for (int k = 0; k < 4; ++k) sums[k] += values[i] * load(rows[i] + j + k * kLanes);
    for (int k = 0; k < 4; ++k) store(y + j + k * kLanes, sums[k]);
  }
  for (; j < to; ++j) {
    float sum = before ? before[j] : 0;
    for (int64_t i = 0; i < count; ++i) sum += values[i] * one(rows[i][j]);
    store_one(y + j, sum);
  }
}

// The same for bf16 rows and output without anything before: lower and upper halves of words are summed apart.
inline void add(const float* values, const Bf16* const* rows, int64_t count, const float* before, Bf16* y, int64_t from,
                int64_t to) {
  constexpr uint32_t kUpper = 0xffff0000u;
  int64_t j = from;
  for (; !before && j + 4 * kLanes <= to; j += 4 * kLanes) {
    Floats a = {}, b = {}, c = {}, d = {};
    for (int64_t i = 0; i < count; ++i) {
      const Words p = read_as<Words>(rows[i] + j), q = read_as<Words>(rows[i] + j + 2 * kLanes);
      a += values[i] * (Floats)(p << 16), b += values[i] * (Floats)(p & kUpper);
      c += values[i] * (Floats)(q << 16), d += values[i] * (Floats)(q & kUpper);
    }
    const Words p = rounded(a) >> 16 | (rounded(b) & kUpper), q = rounded(c) >> 16 | (rounded(d) & kUpper);
    std::memcpy(y + j, &p, sizeof p), std::memcpy(y + j + 2 * kLanes, &q, sizeof q);
  }
  add<Bf16, Bf16>(values, rows, count, before, y, j, to);
}

}  // namespace
