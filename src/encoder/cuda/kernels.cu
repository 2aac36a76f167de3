// Transformer sublayers in int8 on an NVIDIA GPU, with the bits of the CPU kernels in ../int8/kernels:
// products are exact in integers, and every float value is the same sequence of IEEE 754 operations,
// in the same order. So nothing here may be contracted or approximated: ptx.py compiles without fused
// multiply-adds but those that are written, with exact division and square root, and with subnormals.
//
// Buffers: `rows` tokens of all sequences together. Codes are [rows padded to 64][stride] u8, stride
// being k padded to 64; what the padding of a row holds does not matter, as the weights there are 0.
// Weights are [N/64][K/4][64][4] s8 as PackedMatrix has them.

typedef unsigned char u8;
typedef unsigned int u32;

static constexpr float FLOAT_MIN_POSITIVE = 1.17549435e-38f;
static constexpr float LOG2_E = 1.44269504088896340736f;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// max(a, b) and min(a, b) of the CPU's lanes: a NaN in either gives b.
__device__ __forceinline__ float greater(float a, float b) { return a > b ? a : b; }
__device__ __forceinline__ float lesser(float a, float b) { return a < b ? a : b; }

// ---- elementary functions: kernels/math.rs ----

__device__ __forceinline__ float exp2_of_integer(float n) {
    return __int_as_float((u32)((int)n + 127) << 23);
}

__device__ __forceinline__ float exp2_fraction(float f) {
    float sum = 0.001326469700f;
    sum = fmaf(sum, f, 0.009671513f);
    sum = fmaf(sum, f, 0.05550734f);
    sum = fmaf(sum, f, 0.24022242f);
    sum = fmaf(sum, f, 0.693147f);
    return fmaf(sum, f, 1.0f);
}

__device__ __forceinline__ float exp2_near(float p) {
    float n = rintf(p);
    return exp2_fraction(p - n) * exp2_of_integer(n);
}

// 2^p for p <= 0, exactly 0 far below.
__device__ __forceinline__ float weight(float p) {
    return exp2_near(greater(-127.0f, p));
}

__device__ __forceinline__ float exponential(float x) {
    x = greater(-88.2f, x);
    x = lesser(88.0f, x);
    float n = rintf(x * LOG2_E);
    float r = fmaf(n, -0.6933594f, x);
    r = fmaf(n, 2.1219444e-4f, r);
    float sum = 0.0013843627f;
    sum = fmaf(sum, r, 0.008374155f);
    sum = fmaf(sum, r, 0.041668005f);
    sum = fmaf(sum, r, 0.1666643f);
    sum = fmaf(sum, r, 0.49999994f);
    sum = fmaf(sum, r, 1.0f);
    sum = fmaf(sum, r, 1.0f);
    return sum * exp2_of_integer(n);
}

__device__ __forceinline__ float gated(float x, float y, float factor) {
    float p = y * factor;
    p = greater(-126.0f, p);
    p = lesser(126.0f, p);
    return x / (1.0f + exp2_near(p));
}

__device__ __forceinline__ float gelu(float x) {
    float u = fabsf(x);
    float q = -0.00052044884f;
    q = fmaf(q, u, 0.0073974654f);
    q = fmaf(q, u, -0.052561168f);
    q = fmaf(q, u, -0.4592547f);
    q = fmaf(q, u, -1.1510913f);
    float h = exp2_near(greater(-126.0f, fmaf(q, u, -1.0f)));
    return fmaf(0.0f - u, h, greater(0.0f, x));
}

// The numbers are those of Sink in layers.rs.
__device__ __forceinline__ float activate(float x, int activation) {
    switch (activation) {
    case 1: return gelu(x);
    case 2: return gated(x, x, -LOG2_E * 1.702f);
    case 3: {
        float cube = x * x * x;
        return gated(x, fmaf(cube, 0.044715f, x), -LOG2_E * 1.595769f);
    }
    case 4: return greater(0.0f, x);
    case 5: return 1.0f - 2.0f / (1.0f + exponential(x + x));
    default: return x;
    }
}

// ---- rows: kernels/rows.rs, kernels/norm.rs ----

// Sum of 64 partial sums, value i of a row being in sum i mod 64: four vectors of sixteen lanes as
// (s0 + s1) + (s2 + s3), then the tree of the lanes. One warp; lane t holds sums t and t + 32.
__device__ __forceinline__ float total(float low, float high) {
    low = low + __shfl_down_sync(~0u, low, 16);
    high = high + __shfl_down_sync(~0u, high, 16);
    float sum = low + high;
    for (int half = 8; half > 0; half /= 2) sum = sum + __shfl_down_sync(~0u, sum, half);
    return __shfl_sync(~0u, sum, 0);
}

enum { ROW_THREADS = 128 };

// Least and greatest value of the block, 0 among them.
__device__ __forceinline__ void block_range(float &lo, float &hi, float *shared) {
    for (int half = 16; half > 0; half /= 2) {
        lo = lesser(__shfl_xor_sync(~0u, lo, half), lo);
        hi = greater(__shfl_xor_sync(~0u, hi, half), hi);
    }
    int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) {
        shared[warp] = lo;
        shared[4 + warp] = hi;
    }
    __syncthreads();
    for (int i = 0; i < ROW_THREADS / 32; i++) {
        lo = lesser(shared[i], lo);
        hi = greater(shared[4 + i], hi);
    }
}

// Quantizes the row that the block holds in shared memory.
__device__ __forceinline__ void quantize_row(const float *values, int k, u8 *codes, float *scale_out,
                                             int *zero_out, float *shared) {
    float lo = 0.0f, hi = 0.0f;
    bool finite = true;
    for (int i = threadIdx.x; i < k; i += ROW_THREADS) {
        float x = values[i];
        lo = lesser(x, lo);
        hi = greater(x, hi);
        finite = finite && fabsf(x) < infinity();
    }
    bool poison = __syncthreads_or(!finite);
    block_range(lo, hi, shared);
    float scale = hi / 255.0f - lo / 255.0f;
    bool empty = scale < FLOAT_MIN_POSITIVE;
    float inverse = 1.0f / scale;
    float zero = fminf(fmaxf(rintf(-lo * inverse), 0.0f), 255.0f);
    bool blank = poison || empty;
    for (int i = threadIdx.x; i < k; i += ROW_THREADS) {
        float code = lesser(255.0f, greater(0.0f, fmaf(values[i], inverse, zero)));
        codes[i] = blank ? 0 : (u8)rintf(code);
    }
    if (threadIdx.x == 0) {
        *scale_out = poison ? __int_as_float(0x7fc00000) : (empty ? 1.0f : scale);
        *zero_out = blank ? 0 : (int)zero;
    }
}

// LayerNorm of the row in shared memory, in place. All threads call it.
__device__ __forceinline__ void layer_norm_row(float *values, int k, const float *gamma,
                                               const float *beta, float epsilon, float *shared) {
    int t = threadIdx.x;
    if (t < 32) {
        float low = 0.0f, high = 0.0f;
        for (int i = t; i < k; i += 64) {
            low = low + values[i];
            if (i + 32 < k) high = high + values[i + 32];
        }
        float mean = total(low, high) / (float)k;
        low = high = 0.0f;
        for (int i = t; i < k; i += 64) {
            float d = values[i] - mean;
            low = fmaf(d, d, low);
            if (i + 32 < k) {
                d = values[i + 32] - mean;
                high = fmaf(d, d, high);
            }
        }
        float variance = total(low, high) / (float)k;
        if (t == 0) {
            shared[0] = mean;
            shared[1] = 1.0f / sqrtf(variance + epsilon);
        }
    }
    __syncthreads();
    float mean = shared[0], factor = shared[1];
    for (int i = t; i < k; i += ROW_THREADS) {
        float v = (values[i] - mean) * factor;
        values[i] = fmaf(v, gamma[i], beta[i]);
    }
    __syncthreads();
}

// One block of 128 threads per row; k f32 of dynamic shared memory. Without gamma the row is quantized
// as it is.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
quantize_rows(const float *__restrict__ x, int k, int stride, const float *__restrict__ gamma,
              const float *__restrict__ beta, float epsilon, u8 *__restrict__ codes,
              float *__restrict__ scales, int *__restrict__ zeros) {
    extern __shared__ float values[];
    __shared__ float shared[8];
    size_t row = blockIdx.x;
    x += row * k;
    for (int i = threadIdx.x; i < k; i += ROW_THREADS) values[i] = x[i];
    __syncthreads();
    if (gamma) layer_norm_row(values, k, gamma, beta, epsilon, shared);
    quantize_row(values, k, codes + row * stride, scales + row, zeros + row, shared);
}

// Rows of patches: `pictures` are [batch, channels, height, width] f32, of which each row of codes takes
// [channels, patch_height, patch_width], from top to bottom and from left to right. Otherwise as
// quantize_rows.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
quantize_patches(const float *__restrict__ pictures, int channels, int height, int width,
                 int patch_height, int patch_width, int stride, u8 *__restrict__ codes,
                 float *__restrict__ scales, int *__restrict__ zeros) {
    extern __shared__ float values[];
    __shared__ float shared[8];
    size_t row = blockIdx.x;
    int columns = width / patch_width, patches = height / patch_height * columns;
    size_t picture = row / patches;
    int patch = row % patches, top = patch / columns * patch_height, left = patch % columns * patch_width;
    int k = channels * patch_height * patch_width;
    const float *pixels = pictures + picture * channels * height * width;
    for (int i = threadIdx.x; i < k; i += ROW_THREADS) {
        int line = i / patch_width, channel = line / patch_height, y = top + line % patch_height;
        values[i] = pixels[((size_t)channel * height + y) * width + left + i % patch_width];
    }
    __syncthreads();
    quantize_row(values, k, codes + row * stride, scales + row, zeros + row, shared);
}

// out[b][width] = x[b * tokens + token][width]
extern "C" __global__ void keep_token(const float *__restrict__ x, int tokens, int token, int width,
                                      float *__restrict__ out) {
    size_t row = (size_t)blockIdx.x * tokens + token;
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        out[(size_t)blockIdx.x * width + i] = x[row * width + i];
}

// ---- products: kernels/gemm ----

enum { TILE_ROWS = 64, TILE_COLUMNS = 32, TILE_K = 64, STAGES = 4, PRODUCT_THREADS = 128 };
// Rows of a tile in 32-bit words, padded so that the lanes of a warp meet different banks.
enum { A_WORDS = TILE_K / 4 + 4, B_WORDS = TILE_COLUMNS + 8 };

#if __CUDA_ARCH__ >= 800

__device__ __forceinline__ void copy16(void *shared, const void *global) {
    u32 address = (u32)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}

__device__ __forceinline__ void multiply(int (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif

// out[rows, n] = activation(codes · weightsᵀ + bias), or += where sink < 0. A block has 64 rows and 32
// columns (half a panel); four warps have 16 rows each. `stride` is K, bytes of a row of codes.
extern "C" __global__ void __launch_bounds__(PRODUCT_THREADS)
product(const u8 *__restrict__ codes, const float *__restrict__ row_scales,
        const int *__restrict__ row_zeros, int rows, int stride, const u8 *__restrict__ weights, int n,
        const float *__restrict__ scales, const int *__restrict__ column_sums,
        const float *__restrict__ bias, int sink, float *__restrict__ out) {
    __shared__ __align__(16) u32 a_tiles[STAGES][TILE_ROWS * A_WORDS];
    __shared__ __align__(16) u32 b_tiles[STAGES][TILE_K / 4 * B_WORDS];
    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    int first_column = blockIdx.x * TILE_COLUMNS;
    size_t first_row = (size_t)blockIdx.y * TILE_ROWS;
    const u8 *a = codes + first_row * stride;
    const u8 *b = weights + (size_t)(first_column / 64) * 64 * stride + first_column % 64 * 4;
    int steps = stride / TILE_K;
    // The sums, when the operands are no longer wanted.
    int *tile = (int *)a_tiles;

#if __CUDA_ARCH__ >= 800
    auto fetch = [&](int step) {
        if (step < steps) {
            u32 *a_tile = a_tiles[step % STAGES], *b_tile = b_tiles[step % STAGES];
            for (int i = 0; i < 2; i++) {
                int row = thread / 4 + i * 32, part = thread % 4;
                copy16(a_tile + row * A_WORDS + part * 4,
                       a + (size_t)row * stride + step * TILE_K + part * 16);
            }
            int group = thread / 8, part = thread % 8;
            copy16(b_tile + group * B_WORDS + part * 4,
                   b + (size_t)(step * (TILE_K / 4) + group) * 256 + part * 16);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    };
    int sums[4][4] = {};
    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (int step = 0; step < steps; step++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        fetch(step + STAGES - 1);
        const u32 *a_tile = a_tiles[step % STAGES] + (warp * 16 + lane / 4) * A_WORDS + lane % 4;
        const u32 *b_tile = b_tiles[step % STAGES] + lane % 4 * B_WORDS + lane / 4;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 *at = a_tile + half * 8;
            u32 four[4] = {at[0], at[8 * A_WORDS], at[4], at[8 * A_WORDS + 4]};
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u32 *bt = b_tile + half * 8 * B_WORDS + j * 8;
                multiply(sums[j], four, bt[0], bt[4 * B_WORDS]);
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; i++) {
        int row = warp * 16 + lane / 4 + i / 2 % 2 * 8;
        int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        tile[row * TILE_COLUMNS + column] = sums[i / 4][i % 4];
    }
#else
    // Each thread has 16 rows of one column.
    int sums[16] = {};
    for (int step = 0; step < steps; step++) {
        u32 *a_tile = a_tiles[step % 2], *b_tile = b_tiles[step % 2];
        for (int i = thread; i < TILE_ROWS * (TILE_K / 4); i += PRODUCT_THREADS) {
            int row = i / (TILE_K / 4), word = i % (TILE_K / 4);
            a_tile[row * A_WORDS + word] =
                ((const u32 *)(a + (size_t)row * stride + step * TILE_K))[word];
        }
        for (int i = thread; i < TILE_K / 4 * TILE_COLUMNS; i += PRODUCT_THREADS) {
            int group = i / TILE_COLUMNS, column = i % TILE_COLUMNS;
            b_tile[group * B_WORDS + column] =
                ((const u32 *)(b + (size_t)(step * (TILE_K / 4) + group) * 256))[column];
        }
        __syncthreads();
#pragma unroll 4
        for (int group = 0; group < TILE_K / 4; group++) {
            u32 w = b_tile[group * B_WORDS + lane];
#pragma unroll
            for (int i = 0; i < 16; i++) {
                u32 codes4 = a_tile[(warp * 16 + i) * A_WORDS + group];
                asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sums[i]) : "r"(codes4), "r"(w));
            }
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 16; i++) tile[(warp * 16 + i) * TILE_COLUMNS + lane] = sums[i];
#endif
    __syncthreads();
    int column = first_column + lane;
    if (column >= n) return;
    float column_scale = scales[column], shift = bias[column];
    int column_sum = column_sums[column];
#pragma unroll 1
    for (int i = warp; i < TILE_ROWS; i += PRODUCT_THREADS / 32) {
        size_t row = first_row + i;
        if (row >= rows) return;
        int exact = tile[i * TILE_COLUMNS + lane] - row_zeros[row] * column_sum;
        float y = fmaf((float)exact, row_scales[row] * column_scale, shift);
        float *place = out + row * n + column;
        *place = sink < 0 ? *place + y : activate(y, sink);
    }
}

// ---- attention in f32: kernels/attention/float.rs ----

enum { QUERIES = 16, KEYS = 32, CHANNELS = 32, ATTENTION_THREADS = 128 };

// qkv is [batch · tokens, 3 · heads · dim]; of each sequence the `count` tokens from `first` on ask;
// out is [batch · count, heads · dim]. Blocks: (queries / 16, heads, batch). Dynamic shared memory:
// 16 · dim f32 of queries and 16 · tokens of scores.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
attention(const float *__restrict__ qkv, int tokens, int dim, float scale, int first, int count,
          float *__restrict__ out) {
    extern __shared__ float dynamic[];
    __shared__ float keys[CHANNELS][KEYS + 1];
    float *queries = dynamic, *scores = dynamic + QUERIES * dim;
    int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    int width = gridDim.y * dim;
    size_t step = 3 * (size_t)width;
    const float *sequence = qkv + blockIdx.z * tokens * step + blockIdx.y * dim;
    int begin = blockIdx.x * QUERIES, here = min(count - begin, QUERIES);

    for (int i = thread; i < QUERIES * dim; i += ATTENTION_THREADS) {
        int query = i / dim;
        // The last one again where there are fewer.
        int token = first + begin + min(query, here - 1);
        queries[i] = sequence[token * step + i % dim];
    }
    float to_logarithm = scale * LOG2_E;
    for (int start = 0; start < tokens; start += KEYS) {
        float sums[QUERIES / 4] = {};
        for (int channel = 0; channel < dim; channel += CHANNELS) {
            int channels = min(dim - channel, CHANNELS);
            __syncthreads();
            for (int i = thread; i < KEYS * CHANNELS; i += ATTENTION_THREADS) {
                int key = i / CHANNELS, c = i % CHANNELS;
                bool there = start + key < tokens && c < channels;
                keys[c][key] =
                    there ? sequence[(start + key) * step + width + channel + c] : 0.0f;
            }
            __syncthreads();
            const float *q = queries + warp * (QUERIES / 4) * dim + channel;
            for (int c = 0; c < channels; c++) {
                float k = keys[c][lane];
#pragma unroll
                for (int i = 0; i < QUERIES / 4; i++) sums[i] = fmaf(q[i * dim + c], k, sums[i]);
            }
        }
        if (start + lane < tokens) {
            for (int i = 0; i < QUERIES / 4; i++) {
                int query = warp * (QUERIES / 4) + i;
                scores[query * tokens + start + lane] = fmaf(sums[i], to_logarithm, 0.0f);
            }
        }
    }
    // A warp looks at no queries but its own four, in all that follows. Where a query was its factor
    // goes.
    __syncwarp();
#pragma unroll 1
    for (int i = 0; i < QUERIES / 4; i++) {
        int query = warp * (QUERIES / 4) + i;
        float *row = scores + query * tokens;
        float most = -infinity();
#pragma unroll 1
        for (int j = lane; j < tokens; j += 32) most = greater(row[j], most);
        for (int half = 16; half > 0; half /= 2)
            most = greater(__shfl_xor_sync(~0u, most, half), most);
        // Of values j mod 64: lane t has the sums of t and t + 32.
        float sums[2] = {};
#pragma unroll 1
        for (int j = lane; j < tokens; j += 64) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                int key = j + half * 32;
                if (key >= tokens) continue;
                float p = weight(row[key] - most);
                row[key] = p;
                sums[half] = sums[half] + p;
            }
        }
        float sum = total(sums[0], sums[1]);
        if (lane == 0) queries[query * dim] = 1.0f / sum;
    }
    __syncwarp();
    const float *values = sequence + 2 * width;
    for (int d = lane; d < dim; d += 32) {
        float sums[QUERIES / 4] = {};
        const float *p = scores + warp * (QUERIES / 4) * tokens;
        for (int j = 0; j < tokens; j++) {
            float v = values[j * step + d];
#pragma unroll
            for (int i = 0; i < QUERIES / 4; i++) sums[i] = fmaf(p[i * tokens + j], v, sums[i]);
        }
        for (int i = 0; i < QUERIES / 4; i++) {
            int query = warp * (QUERIES / 4) + i;
            if (query < here) {
                size_t row = (size_t)blockIdx.z * count + begin + query;
                float factor = queries[query * dim];
                out[row * width + blockIdx.y * dim + d] = sums[i] * factor;
            }
        }
    }
}
