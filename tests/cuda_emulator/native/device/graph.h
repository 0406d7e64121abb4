// Graphs: tasks that were captured, and their replay.
#pragma once
#include <vector>

#include "capture.h"

namespace cuda_emulator {

cudaGraph_t graph_of(std::vector<Node> nodes);

}  // namespace cuda_emulator
