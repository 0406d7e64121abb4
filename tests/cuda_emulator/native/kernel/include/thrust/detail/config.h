// CuPy 13 includes this one, 14 the one below it.
#pragma once
#include "config/namespace.h"
