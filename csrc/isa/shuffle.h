/* Shuffles of two vectors by constant lanes: the compiler wants one number per lane, so these are macros. */
#define LANES (VECTOR_BYTES / REAL_BYTES)

/* F(lane, ...) for every lane. */
#if LANES == 16
#define EACH_LANE(F, ...)                                                                                \
  F(0, __VA_ARGS__), F(1, __VA_ARGS__), F(2, __VA_ARGS__), F(3, __VA_ARGS__), F(4, __VA_ARGS__),         \
    F(5, __VA_ARGS__), F(6, __VA_ARGS__), F(7, __VA_ARGS__), F(8, __VA_ARGS__), F(9, __VA_ARGS__),       \
    F(10, __VA_ARGS__), F(11, __VA_ARGS__), F(12, __VA_ARGS__), F(13, __VA_ARGS__), F(14, __VA_ARGS__),  \
    F(15, __VA_ARGS__)
#elif LANES == 8
#define EACH_LANE(F, ...)                                                                                \
  F(0, __VA_ARGS__), F(1, __VA_ARGS__), F(2, __VA_ARGS__), F(3, __VA_ARGS__), F(4, __VA_ARGS__),         \
    F(5, __VA_ARGS__), F(6, __VA_ARGS__), F(7, __VA_ARGS__)
#elif LANES == 4
#define EACH_LANE(F, ...) F(0, __VA_ARGS__), F(1, __VA_ARGS__), F(2, __VA_ARGS__), F(3, __VA_ARGS__)
#else
#define EACH_LANE(F, ...) F(0, __VA_ARGS__), F(1, __VA_ARGS__)
#endif

/* Lanes of a, then of b behind them. ZIP takes lanes of a and b in turn, from the lower or upper half of every group
 * of `size` lanes; PICK takes every other group. SWAP takes each lane's partner at that distance. */
#define ZIP(l, size, half) ((l) / (size) * (size) + (l) % (size) / 2 + (half) * (size) / 2 + (l) % 2 * LANES)
#define PICK(l, size, half) ((l) + (l) / (size) * (size) + (half) * (size))
#define SWAP(l, distance, half) ((l) ^ (distance) % LANES)
#define SHUFFLE(a, b, ORDER, size, half) __builtin_shufflevector(a, b, EACH_LANE(ORDER, size, half))
