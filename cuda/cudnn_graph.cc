#ifndef RP_EMULATED /* there is no cuDNN graph to emulate */

#include "cudnn_graph.h"

namespace rp {

typedef cudnn_graph::descriptor descriptor;

cudnn_graph::~cudnn_graph() {
  for (size_t i = owned.size(); i-- > 0;)
    cudnnBackendDestroyDescriptor(owned[i]);
}

void cudnn_graph::check(cudnnStatus_t status, const char *what) {
  if (failure != CUDNN_STATUS_SUCCESS || status == CUDNN_STATUS_SUCCESS)
    return;
  char last[512] = "";
  cudnnGetLastErrorString(last, sizeof last);
  failure = status;
  text = std::string(what) + ": " + cudnnGetErrorString(status) + ": " + last;
}

descriptor cudnn_graph::make(cudnnBackendDescriptorType_t type) {
  descriptor made = nullptr;
  if (failure != CUDNN_STATUS_SUCCESS) return nullptr;
  check(cudnnBackendCreateDescriptor(type, &made), "a descriptor");
  if (made) owned.push_back(made);
  return made;
}

void cudnn_graph::set(descriptor of, cudnnBackendAttributeName_t name,
                      cudnnBackendAttributeType_t type, int64_t count,
                      const void *value) {
  if (failure == CUDNN_STATUS_SUCCESS)
    check(cudnnBackendSetAttribute(of, name, type, count, value),
          "an attribute");
}

void cudnn_graph::finish(descriptor of, const char *what) {
  if (failure == CUDNN_STATUS_SUCCESS) check(cudnnBackendFinalize(of), what);
}

/* ---- tensors ------------------------------------------------------------ */

descriptor cudnn_graph::tensor(int64_t id, cudnnDataType_t dtype,
                               cudnn_shape shape, bool is_virtual,
                               bool by_value) {
  descriptor made = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const int64_t alignment = 16;
  set(made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &dtype);
  set(made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, shape.dims);
  set(made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, shape.strides);
  set(made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
  set(made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  set(made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  set(made, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
  finish(made, "a tensor");
  return made;
}

descriptor cudnn_graph::argument(int64_t id, cudnnDataType_t dtype,
                                 cudnn_shape shape) {
  return tensor(id, dtype, shape, false, false);
}

descriptor cudnn_graph::number(float value) {
  numbers_ids.push_back(next_id);
  numbers.push_back(value);
  return tensor(next_id++, CUDNN_DATA_FLOAT, {{1, 1, 1, 1}, {1, 1, 1, 1}},
                false, true);
}

/* ---- operations --------------------------------------------------------- */

void cudnn_graph::operation(descriptor of, const char *what) {
  finish(of, what);
  operations.push_back(of);
}

descriptor cudnn_graph::pointwise(cudnnPointwiseMode_t mode, cudnn_shape shape,
                                  descriptor x, descriptor b, descriptor t,
                                  cudnnDataType_t dtype, descriptor y) {
  const bool tests = dtype == CUDNN_DATA_BOOLEAN;
  const cudnnDataType_t precision =
      tests ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT;
  if (y == nullptr) y = tensor(next_id++, dtype, shape, true, false);
  descriptor kind = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set(kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  set(kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1,
      &precision);
  finish(kind, "a pointwise operation's kind");
  descriptor made = make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  const auto link = [&](cudnnBackendAttributeName_t name, descriptor to) {
    if (to) set(made, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
  };
  link(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
  link(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  link(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
  link(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
  link(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  operation(made, "a pointwise operation");
  return y;
}

descriptor cudnn_graph::index(cudnn_shape shape, descriptor x, int64_t axis) {
  const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_GEN_INDEX;
  const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  descriptor y = tensor(next_id++, CUDNN_DATA_INT32, shape, true, false);
  descriptor kind = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set(kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  set(kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1,
      &precision);
  set(kind, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
  finish(kind, "an index's kind");
  descriptor made = make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  set(made, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &kind);
  set(made, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x);
  set(made, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y);
  operation(made, "an index");
  return y;
}

descriptor cudnn_graph::matmul(cudnn_shape shape, descriptor a, descriptor b,
                               descriptor y) {
  const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  if (y == nullptr)
    y = tensor(next_id++, CUDNN_DATA_FLOAT, shape, true, false);
  descriptor kind = make(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  set(kind, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
  finish(kind, "a product's kind");
  descriptor made = make(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  const auto link = [&](cudnnBackendAttributeName_t name, descriptor to) {
    set(made, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
  };
  link(CUDNN_ATTR_OPERATION_MATMUL_DESC, kind);
  link(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
  link(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
  link(CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
  operation(made, "a product");
  return y;
}

descriptor cudnn_graph::reduce(cudnnReduceTensorOp_t op, cudnn_shape shape,
                               descriptor x, descriptor y) {
  const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
  if (y == nullptr)
    y = tensor(next_id++, CUDNN_DATA_FLOAT, shape, true, false);
  descriptor kind = make(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  set(kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
      1, &op);
  set(kind, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1,
      &precision);
  finish(kind, "a reduction's kind");
  descriptor made = make(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  const auto link = [&](cudnnBackendAttributeName_t name, descriptor to) {
    set(made, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
  };
  link(CUDNN_ATTR_OPERATION_REDUCTION_DESC, kind);
  link(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
  link(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
  operation(made, "a reduction");
  return y;
}

descriptor cudnn_graph::reshape(cudnn_shape shape, descriptor x,
                                cudnnDataType_t dtype) {
  descriptor y = tensor(next_id++, dtype, shape, true, false);
  descriptor made = make(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  set(made, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
      1, &x);
  set(made, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR,
      1, &y);
  operation(made, "a reshape");
  return y;
}

/* ---- plans -------------------------------------------------------------- */

/* Whether its engine gives the same bits each time. */
bool cudnn_graph::repeats(descriptor config) {
  descriptor engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  int64_t count = 0;
  cudnnBackendNumericalNote_t notes[32];
  check(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                 &engine),
        "an engine");
  check(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, 32, &count, notes),
        "an engine's notes");
  if (failure != CUDNN_STATUS_SUCCESS) return false;
  for (int64_t i = 0; i < count && i < 32; i++)
    if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) return false;
  return true;
}

bool cudnn_graph::plan(cudnnHandle_t handle, descriptor properties) {
  enum { MOST = 16 };
  descriptor graph = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
      (int64_t)operations.size(), operations.data());
  if (handle)
    set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
        &handle);
  finish(graph, "a graph");
  descriptor heuristics = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  set(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph);
  set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (properties)
    set(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties);
  finish(heuristics, "heuristics");
  descriptor configs[MOST];
  for (descriptor &config : configs)
    config = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  int64_t count = 0;
  if (failure == CUDNN_STATUS_SUCCESS)
    check(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, MOST,
                                   &count, configs),
          "what heuristics offer");
  for (int64_t i = 0; i < count && i < MOST && !chosen; i++) {
    if (!repeats(configs[i])) continue;
    descriptor plan = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &configs[i]);
    if (properties)
      set(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
          CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties);
    else
      set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
          &handle);
    if (failure != CUDNN_STATUS_SUCCESS) return false;
    /* One that cannot be built here is no failure: the next may do. */
    if (cudnnBackendFinalize(plan) != CUDNN_STATUS_SUCCESS) continue;
    chosen = plan;
  }
  if (chosen)
    check(cudnnBackendGetAttribute(
              chosen, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
              CUDNN_TYPE_INT64, 1, &count, &workspace),
          "a workspace's size");
  else if (failure == CUDNN_STATUS_SUCCESS)
    text = "cuDNN offers no deterministic plan";
  return chosen && failure == CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnn_graph::run(cudnnHandle_t handle, void *const *pointers,
                               int count, void *scratch) const {
  std::vector<int64_t> ids;
  std::vector<void *> data;
  for (int k = 0; k < count; k++) {
    ids.push_back(k + 1);
    data.push_back(pointers[k]);
  }
  for (size_t k = 0; k < numbers.size(); k++) {
    ids.push_back(numbers_ids[k]);
    data.push_back((void *)&numbers[k]);
  }
  descriptor pack = nullptr;
  cudnnStatus_t status = cudnnBackendCreateDescriptor(
      CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS,
                                    CUDNN_TYPE_INT64, (int64_t)ids.size(),
                                    ids.data());
  if (status == CUDNN_STATUS_SUCCESS)
    status = cudnnBackendSetAttribute(
        pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
        (int64_t)data.size(), data.data());
  if (status == CUDNN_STATUS_SUCCESS)
    status =
        cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                                 CUDNN_TYPE_VOID_PTR, 1, &scratch);
  if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(pack);
  if (status == CUDNN_STATUS_SUCCESS)
    status = cudnnBackendExecute(handle, chosen, pack);
  cudnnBackendDestroyDescriptor(pack);
  return status;
}

} // namespace rp

#endif
