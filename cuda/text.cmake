# CUDA_TEXT: kernels/scalar.h as a string, for what is compiled at run time.
file(READ ${CMAKE_CURRENT_LIST_DIR}/kernels/scalar.h RP_SCALAR_TEXT)
set(CUDA_TEXT ${CMAKE_BINARY_DIR}/cuda_text.cc)
file(CONFIGURE OUTPUT ${CUDA_TEXT} @ONLY CONTENT
"extern \"C\" const char rp_cuda_scalar_text[];
const char rp_cuda_scalar_text[] = R\"rp(@RP_SCALAR_TEXT@)rp\";
")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             ${CMAKE_CURRENT_LIST_DIR}/kernels/scalar.h)
