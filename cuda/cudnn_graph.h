/* A small graph of cuDNN's operations, and a plan for running it (cuDNN
   backend API). Errors are held and told by status(); after one, everything
   else does nothing. */
#ifndef RP_CUDA_CUDNN_GRAPH_H
#define RP_CUDA_CUDNN_GRAPH_H

#include <cudnn.h>

#include <cstdint>
#include <string>
#include <vector>

namespace rp {

/* Dims and strides of up to four, outermost first. */
struct cudnn_shape {
  int64_t dims[4], strides[4];
};

class cudnn_graph {
public:
  typedef cudnnBackendDescriptor_t descriptor;

  cudnn_graph() = default;
  ~cudnn_graph();
  cudnn_graph(const cudnn_graph &) = delete;
  cudnn_graph &operator=(const cudnn_graph &) = delete;

  /* What a run passes a pointer for, under this id (from 1 on). */
  descriptor argument(int64_t id, cudnnDataType_t dtype, cudnn_shape shape);
  /* A number known now. */
  descriptor number(float value);
  /* y = mode(x [, b]), and where t: t ? x : b. Virtual unless y is given. */
  descriptor pointwise(cudnnPointwiseMode_t mode, cudnn_shape shape,
                       descriptor x, descriptor b = nullptr,
                       descriptor t = nullptr,
                       cudnnDataType_t dtype = CUDNN_DATA_FLOAT,
                       descriptor y = nullptr);
  /* The index along an axis. */
  descriptor index(cudnn_shape shape, descriptor x, int64_t axis);
  descriptor matmul(cudnn_shape shape, descriptor a, descriptor b,
                    descriptor y = nullptr);
  descriptor reduce(cudnnReduceTensorOp_t op, cudnn_shape shape, descriptor x,
                    descriptor y = nullptr);
  /* The same elements under other dims and strides. */
  descriptor reshape(cudnn_shape shape, descriptor x, cudnnDataType_t dtype);

  /* The first deterministic plan that cuDNN's heuristics offer; for the
     handle's device, or for that of properties. False where there is none. */
  bool plan(cudnnHandle_t handle, descriptor properties);
  int64_t workspace_bytes() const { return workspace; }
  /* pointers[k] is what id k + 1 stands for. */
  cudnnStatus_t run(cudnnHandle_t handle, void *const *pointers, int count,
                    void *workspace) const;

  cudnnStatus_t status() const { return failure; }
  /* What failed, and what cuDNN says of it. */
  const std::string &message() const { return text; }

private:
  descriptor make(cudnnBackendDescriptorType_t type);
  void set(descriptor of, cudnnBackendAttributeName_t name,
           cudnnBackendAttributeType_t type, int64_t count, const void *value);
  void finish(descriptor of, const char *what);
  void check(cudnnStatus_t status, const char *what);
  descriptor tensor(int64_t id, cudnnDataType_t dtype, cudnn_shape shape,
                    bool is_virtual, bool by_value);
  void operation(descriptor of, const char *what);
  bool repeats(descriptor config);

  std::vector<descriptor> owned, operations;
  std::vector<int64_t> numbers_ids;
  std::vector<float> numbers;
  descriptor chosen = nullptr;
  int64_t next_id = 1000, workspace = 0;
  cudnnStatus_t failure = CUDNN_STATUS_SUCCESS;
  std::string text;
};

} // namespace rp

#endif
