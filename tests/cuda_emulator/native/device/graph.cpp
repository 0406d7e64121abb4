#include "graph.h"

#include <cstdio>
#include <set>

#include "counts.h"
#include "errors.h"
#include "lock.h"
#include "settings.h"

namespace cuda_emulator {

using Nodes = std::vector<Node>;

struct Graph {
  std::shared_ptr<Nodes> nodes;
};

cudaGraph_t graph_of(Nodes nodes) {
  trace("graph of %zu nodes", nodes.size());
  return (cudaGraph_t) new Graph{std::make_shared<Nodes>(std::move(nodes))};
}

// In the order in which the nodes were captured, or, in a late mode, each stream's as late as the others allow.
static void replay(const Nodes& nodes) {
  auto run = [](const Node& node) {
    if (settings().trace > 1) trace("replay: %s", node.task.name.c_str());
    if (node.task.run) node.task.run();
  };
  if (settings().late == Late::none) {
    for (auto& node : nodes) run(node);
    return;
  }
  std::vector<bool> ran(nodes.size());
  // Runs what a node comes after, then the node.
  std::function<void(size_t)> require = [&](size_t i) {
    if (ran[i]) return;
    ran[i] = true;
    for (size_t k = 0; k < i; k++) {
      auto after = nodes[i].after.find(nodes[k].stream);
      if (after != nodes[i].after.end() && nodes[k].position <= after->second) require(k);
    }
    run(nodes[i]);
  };
  for (size_t i = nodes.size(); i-- > 0;) {
    // The last node of each stream, the newest stream first, so that what was not joined comes too late.
    bool last = true;
    for (size_t k = i + 1; k < nodes.size() && last; k++) last = nodes[k].stream != nodes[i].stream;
    if (last) require(i);
  }
}

}  // namespace cuda_emulator

using namespace cuda_emulator;

// The handle of an executable graph.
struct CUgraphExec_st {
  std::shared_ptr<Nodes> nodes;
};

extern "C" {

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long) {
  Locked locked;
  if (!graph) RETURN(cudaErrorInvalidValue);
  *out = new CUgraphExec_st{((Graph*)graph)->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  Locked locked;
  if (!exec) RETURN(cudaErrorInvalidValue);
  counts[others]++;
  RETURN(enqueue(stream_of(handle), {[nodes = exec->nodes] { replay(*nodes); }, "graph"}));
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  Locked locked;
  delete (Graph*)graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  Locked locked;
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned) {
  Locked locked;
  FILE* file = fopen(path, "w");
  if (!file) RETURN(cudaErrorInvalidValue);
  fputs("digraph dot {\n", file);
  size_t i = 0;
  for (auto& node : *((Graph*)graph)->nodes) fprintf(file, "  n%zu [label=\"%s\"];\n", i++, node.task.name.c_str());
  fputs("}\n", file);
  fclose(file);
  return cudaSuccess;
}

}  // extern "C"
