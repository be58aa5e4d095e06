# Targets of this project: one static library a folder, one test program a folder of tests.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(TROUPE_CCACHE "compile through ccache where it is installed" ON)
if(TROUPE_CCACHE)
  find_program(TROUPE_CCACHE_PROGRAM ccache)
  if(TROUPE_CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${TROUPE_CCACHE_PROGRAM}")
    set(CMAKE_CUDA_COMPILER_LAUNCHER "${TROUPE_CCACHE_PROGRAM}")
  endif()
endif()
find_program(TROUPE_MOLD mold)
if(TROUPE_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

set(TROUPE_SANITIZE "" CACHE STRING "sanitizers, e.g. address,undefined or thread")
if(TROUPE_SANITIZE)
  add_compile_options(
    -fsanitize=${TROUPE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  if(TROUPE_SANITIZE MATCHES "undefined")
    # Checked at every access to a member, for a fifth of the compilation: a null pointer faults
    # anyway, and the code has hardly a cast down a hierarchy.
    add_compile_options(-fno-sanitize=null,vptr,object-size)
  endif()
  add_link_options(-fsanitize=${TROUPE_SANITIZE})
endif()

add_library(troupe_options INTERFACE)
set(troupe_flags
  -Wall -Wextra -Wconversion -Wshadow -Wnon-virtual-dtor -Werror=return-type
  # Same bits whatever the compiler contracts: multiply-add only where it is written.
  -ffp-contract=off
  # __FILE__ is the path from the root: the same message and binary wherever it was built.
  "-fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=")
# CUDA sources have theirs in troupe_cuda_options.
target_compile_options(troupe_options INTERFACE
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:${troupe_flags}>")
target_compile_definitions(troupe_options INTERFACE _GLIBCXX_ASSERTIONS)
target_include_directories(troupe_options INTERFACE "${CMAKE_SOURCE_DIR}")
option(TROUPE_WERROR "warnings are errors" OFF)
if(TROUPE_WERROR)
  target_compile_options(troupe_options INTERFACE "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Werror>")
endif()

# troupe_library(<folder> [EXCLUDE regex] DEPS <targets>): libtroupe_<folder>.a, alias
# troupe::<folder>, of every *.cpp below except benchmarks (*_bench.cpp) and mains (*_main.cpp).
function(troupe_library name)
  cmake_parse_arguments(ARG "" "EXCLUDE" "DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "*.cpp")
  list(FILTER sources EXCLUDE REGEX "_(bench|main)\\.cpp$")
  if(ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "${ARG_EXCLUDE}")
  endif()
  if(sources)
    add_library(troupe_${name} STATIC ${sources})
    target_link_libraries(troupe_${name} PUBLIC troupe_options ${ARG_DEPS})
  else()  # a folder of headers only
    add_library(troupe_${name} INTERFACE)
    target_link_libraries(troupe_${name} INTERFACE troupe_options ${ARG_DEPS})
  endif()
  add_library(troupe::${name} ALIAS troupe_${name})
  set_property(GLOBAL APPEND PROPERTY TROUPE_LIBRARIES troupe::${name})
endfunction()

# troupe_test(<folder> [LABELS ...] [SLOW pattern] DEPS <targets>): one GoogleTest program of all
# *_test.cpp here; tests that match the pattern have the label slow instead.
function(troupe_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT;SLOW" "LABELS;DEPS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "*.cpp")
  list(FILTER sources EXCLUDE REGEX "_main\\.cpp$")  # programs that a test starts
  if(NOT sources)
    return()  # a folder of tests that has none yet
  endif()
  add_executable(${name}_tests ${sources})
  target_link_libraries(${name}_tests PRIVATE
    ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name}_tests PRIVATE TROUPE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  # Compiling the tests is half of a build. They call what is optimised and need it not themselves;
  # UBSan looks at what is tested, and would double the time of a test file.
  # (At -O1 g++ 12 takes emptied optionals for uninitialised.)
  target_compile_options(${name}_tests PRIVATE
    $<$<CONFIG:Release>:-O1> $<$<CONFIG:Release>:-Wno-maybe-uninitialized>)
  if(TROUPE_SANITIZE MATCHES "undefined")
    target_compile_options(${name}_tests PRIVATE -fno-sanitize=undefined)
  endif()
  set(quick "")
  if(ARG_SLOW)
    set(quick TEST_FILTER "-${ARG_SLOW}")
    gtest_discover_tests(${name}_tests TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST
      TEST_FILTER "${ARG_SLOW}" PROPERTIES LABELS slow TIMEOUT 3600)
  endif()
  gtest_discover_tests(${name}_tests TEST_PREFIX "${name}." DISCOVERY_MODE PRE_TEST ${quick}
    PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# troupe_cuda_options(<target>): how its CUDA sources are compiled, for the GPUs of
# TROUPE_CUDA_TARGETS (a list as nvcc spells them; CMake has no say in it).
set(TROUPE_CUDA_TARGETS "90a" CACHE STRING "compute capabilities to compile for, e.g. 80;90a;100")
function(troupe_cuda_options target)
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES OFF POSITION_INDEPENDENT_CODE ON
    CUDA_VISIBILITY_PRESET hidden)
  foreach(capability ${TROUPE_CUDA_TARGETS})
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CUDA>:-gencode=arch=compute_${capability},code=sm_${capability}>")
  endforeach()
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-lineinfo;-Xcompiler=-Wall,-Wextra>")
  target_include_directories(${target} PRIVATE "${CMAKE_SOURCE_DIR}")
endfunction()
