// What a CUDA kernel takes for granted, for a compiler of C++: included before each source, compiled beforehand.
#pragma once
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include "module.h"
#include "threads.h"
#include "warps.h"
#include "atomics.h"
#include "bits.h"
#include "functions.h"
#include "include/cuda_fp16.h"
#include "include/cuda_bf16.h"
#include "entries.h"

// CuPy's own headers, which most of its kernels include. They choose by these macros.
#define __CUDACC__ 1
#define __CUDACC_VER_MAJOR__ CUDA_EMULATOR_MAJOR
#define __CUDACC_VER_MINOR__ 0
#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
