"""CUDA C++ of batch normalisation: statistics and normalised rows, their gradients, and running statistics.

Blocks of threads divide the rows into parts. `moments` sums ``t = x - shift`` and ``t^2`` of a part, where the shift is
the mean of the part's first rows, so that ``sum(t^2) - sum(t)^2 / m`` has little cancellation. `statistics` combines
the parts, with one block for 32 channels, and `normalise` has one thread for each entry. A mean is stored as two
numbers, ``near + rest``: if all values of a channel are equal, the rounding error of one number would be divided by the
root of ``eps``.

Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for computing the sample variance", 1983.
"""

from .compilation import Source
from .row_sums import TREE_SUM

SOURCE = Source(
    TREE_SUM
    + """
// For each part of the rows, the shift, the sum of t = x - shift, and the sum of t^2: (3, P, C)
extern "C" __global__ void moments(const T* x, T* y, Index step, Index length, int channels, Index count)
{
    __shared__ T shared[BLOCK_ROWS][BLOCK_COLUMNS];
    const int c = blockIdx.x * BLOCK_COLUMNS + threadIdx.x;
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    const Index sampled = last - first < BLOCK_ROWS ? last - first : BLOCK_ROWS;
    const bool mine = c < channels;
    T value = mine && threadIdx.y < sampled ? x[(first + threadIdx.y) * step + c] : (T)0;
    const T shift = tree_sum(value, shared) / (T)sampled;
    T sum = 0, squares = 0;
    if (mine)
        for (Index r = first + threadIdx.y; r < last; r += BLOCK_ROWS) {
            const T t = x[r * step + c] - shift;
            sum += t;
            squares += t * t;
        }
    sum = tree_sum(sum, shared);
    squares = tree_sum(squares, shared);
    if (threadIdx.y == 0 && mine) {
        const Index all = gridDim.y * (Index)channels, at = blockIdx.y * (Index)channels + c;
        y[at] = shift;
        y[all + at] = sum;
        y[2 * all + at] = squares;
    }
}

// Statistics of each channel: (7, C), in the order of `Statistics.found`
struct Channels { T *near, *rest, *inverse_std, *mean, *var, *scale, *shift; };

__device__ inline Channels channels_of(T* y, int channels)
{
    return {y, y + channels, y + 2 * (Index)channels, y + 3 * (Index)channels, y + 4 * (Index)channels,
            y + 5 * (Index)channels, y + 6 * (Index)channels};
}

__device__ inline void finish(
    const Channels &k, int c, T near, T rest, T mean, T var, const T* weight, const T* bias, T eps, bool own)
{
    // A batch variance that overflowed gives NaN: an inverse of 0 would make every output the bias
    const T inverse = own && var - var != 0 ? not_a_number() : (T)1 / sqrt(var + eps);
    const T scale = weight ? inverse * weight[c] : inverse;
    k.near[c] = near;
    k.rest[c] = rest;
    k.inverse_std[c] = inverse;
    k.mean[c] = mean;
    k.var[c] = var;
    k.scale[c] = scale;
    k.shift[c] = (bias ? bias[c] : (T)0) - rest * scale;
}

// Mean and variance of all rows from the parts of `moments`; one block for 32 channels
extern "C" __global__ void statistics(
    const T* x, const T* weight, const T* bias, T* y, T eps, int parts, Index length, int channels, Index count)
{
    __shared__ T shared[BLOCK_ROWS][BLOCK_COLUMNS];
    const int c = blockIdx.x * BLOCK_COLUMNS + threadIdx.x;
    const bool mine = c < channels;
    const Index all = parts * (Index)channels;
    T sum = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += BLOCK_ROWS) sum += x[p * (Index)channels + c];
    const T near = tree_sum(sum, shared) / (T)parts;
    sum = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += BLOCK_ROWS) {
            const Index at = p * (Index)channels + c;
            const T m = (T)(p == parts - 1 ? count - (parts - 1) * length : length);
            sum += (x[at] - near) * m + x[all + at];
        }
    const T rest = tree_sum(sum, shared) / (T)count;
    sum = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += BLOCK_ROWS) {
            const Index at = p * (Index)channels + c;
            const T m = (T)(p == parts - 1 ? count - (parts - 1) * length : length);
            const T within = x[2 * all + at] - x[all + at] * x[all + at] / m;
            const T apart = x[at] - near + x[all + at] / m - rest;
            sum += (within < 0 ? (T)0 : within) + apart * apart * m;
        }
    const T var = tree_sum(sum, shared) / (T)count;
    if (threadIdx.y == 0 && mine)
        finish(channels_of(y, channels), c, near, rest, near + rest, var, weight, bias, eps, true);
}

// The same statistics from a given mean and variance; one thread for each channel
extern "C" __global__ void given(
    const T* mean, const T* var, const T* weight, const T* bias, T* y, T eps, int channels, Index count)
{
    const Index c = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (c < count) finish(channels_of(y, channels), c, mean[c], 0, mean[c], var[c], weight, bias, eps, false);
}

// y = (x - near) scale + shift; one thread for each entry
extern "C" __global__ void normalise(const T* x, const T* stats, T* y, Index step, int channels, Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Index to = i;
    const int c = part(i, channels);
    const T* near = stats + c;
    y[to] = (x[i * step + c] - *near) * near[5 * (Index)channels] + near[6 * (Index)channels];
}

// For each part of the rows, the sums of dy and of dy (x - near): (2, P, C)
extern "C" __global__ void gradient_sums(
    const T* dy, const T* x, const T* stats, T* y, Index step, Index x_step, Index length, int channels, Index count)
{
    __shared__ T shared[BLOCK_ROWS][BLOCK_COLUMNS];
    const int c = blockIdx.x * BLOCK_COLUMNS + threadIdx.x;
    const Index first = blockIdx.y * length, last = first + length < count ? first + length : count;
    const bool mine = c < channels;
    T sum = 0, product = 0;
    if (mine) {
        const T near = stats[c];
        for (Index r = first + threadIdx.y; r < last; r += BLOCK_ROWS) {
            const T d = dy[r * step + c];
            sum += d;
            product += d * (x[r * x_step + c] - near);
        }
    }
    sum = tree_sum(sum, shared);
    product = tree_sum(product, shared);
    if (threadIdx.y == 0 && mine) {
        const Index at = blockIdx.y * (Index)channels + c;
        y[at] = sum;
        y[gridDim.y * (Index)channels + at] = product;
    }
}

// dweight, dbias, and y (3, C): slope, offset and scale of dx = (dy + (x - near) slope + offset) scale
extern "C" __global__ void gradients(
    const T* x, const T* stats, const T* weight, T* dw, T* db, T* y, int constant, int parts, int channels, Index count)
{
    __shared__ T shared[BLOCK_ROWS][BLOCK_COLUMNS];
    const int c = blockIdx.x * BLOCK_COLUMNS + threadIdx.x;
    const bool mine = c < channels;
    const Index all = parts * (Index)channels;
    T sum = 0, product = 0;
    if (mine)
        for (int p = threadIdx.y; p < parts; p += BLOCK_ROWS) {
            sum += x[p * (Index)channels + c];
            product += x[all + p * (Index)channels + c];
        }
    sum = tree_sum(sum, shared);
    product = tree_sum(product, shared);
    if (threadIdx.y != 0 || !mine) return;
    const T rest = stats[channels + c], inverse = stats[2 * (Index)channels + c];
    const T dweight = (product - rest * sum) * inverse;
    const T slope = constant ? (T)0 : -inverse * (dweight / (T)count);
    dw[c] = dweight;
    db[c] = sum;
    y[c] = slope;
    y[channels + c] = constant ? (T)0 : -sum / (T)count - rest * slope;
    y[2 * (Index)channels + c] = weight ? inverse * weight[c] : inverse;
}

// dx = (dy + (x - near) slope + offset) scale; one thread for each entry
extern "C" __global__ void normalise_back(
    const T* dy, const T* x, const T* stats, const T* slopes, T* dx, Index step, Index x_step, int channels,
    Index count)
{
    Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Index to = i;
    const int c = part(i, channels);
    const T centred = x[i * x_step + c] - stats[c];
    const T slope = slopes[c], offset = slopes[channels + c];
    // A slope of 0: the statistics were given, and dx does not depend on x, which may be infinite or NaN.
    const T apart = slope == 0 ? (T)0 : centred * slope;
    dx[to] = (dy[i * step + c] + apart + offset) * slopes[2 * (Index)channels + c];
}

// Running statistics moved towards a batch's, by momentum or, if averaged, by 1 / the number of batches
extern "C" __global__ void track(
    const T* mean, const T* var, const T* old_mean, const T* old_var, const long long* batches, T* new_mean, T* new_var,
    long long* counted, T momentum, T unbiased, int averaged, Index count)
{
    const Index c = blockIdx.x * (Index)blockDim.x + threadIdx.x;
    const long long so_far = *batches + 1;
    if (c == 0) *counted = so_far;
    if (c >= count) return;
    const T share = averaged ? (T)1 / (T)so_far : momentum;
    new_mean[c] = old_mean[c] * ((T)1 - share) + mean[c] * share;
    new_var[c] = old_var[c] * ((T)1 - share) + var[c] * unbiased * share;
}
"""
)
