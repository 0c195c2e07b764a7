/* Streams, events and graphs: what queue.cc and graph.cc share.

   A stream is a queue of items; it is worked off when somebody waits for it,
   an item first working off the streams it waits for. In a capture the items
   become nodes of a graph, each with the nodes it must come after. */
#ifndef RP_EMULATED_QUEUE_H
#define RP_EMULATED_QUEUE_H

#include "engine.h"

/* A point of a stream's work. */
struct emulated_record {
  CUstream_st *stream;
  uint64_t position; /* items of the stream that come before or are it */
  bool done;
  double milliseconds;
};

namespace emulated {

typedef std::shared_ptr<emulated_record> record;

struct item {
  std::string name;
  operation run;
  std::vector<record> waits;
  record made; /* done when the item has run */
};

struct node {
  std::string name;
  operation run;
  std::vector<int> after;
  /* An event recorded from outside the capture: reached by every replay. */
  CUevent_st *external = nullptr;
};

struct capture {
  cudaStreamCaptureMode mode;
  CUstream_st *origin;
  unsigned long long id;
  bool invalid = false;
  std::vector<node> nodes;
  std::vector<CUstream_st *> streams;
};

} // namespace emulated

struct CUstream_st {
  std::deque<emulated::item> queue;
  uint64_t enqueued = 0, done = 0;
  unsigned flags = 0;
  int device = 0;
  bool legacy = false;
  std::shared_ptr<emulated::capture> capturing;
  std::vector<int> frontier; /* nodes that what comes next must come after */
};

struct CUevent_st {
  unsigned flags = 0;
  int device = 0;
  emulated::record last;
  std::shared_ptr<emulated::capture> captured;
  std::vector<int> frontier;
};

struct CUgraph_st {
  std::vector<emulated::node> nodes;
};
struct CUgraphExec_st {
  std::shared_ptr<std::vector<emulated::node>> nodes;
  size_t bytes; /* on the device */
};

namespace emulated {
record push(CUstream_st *stream, item made);
/* What a lost device had before it is gone. */
void drop_all();
void invalidate(CUstream_st *stream);
/* The calling thread's. */
int current_device();
/* Kernels and graphs go to streams of the calling thread's device alone. */
cudaError_t check_current(cudaStream_t stream);
} // namespace emulated

#endif
