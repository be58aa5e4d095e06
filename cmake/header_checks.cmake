# Every header compiles alone: one generated file for each header that has no source of its own.
# (foo.hpp beside foo.cpp is proved by foo.cpp, whose first include it is: tests/lint checks that.)
#
# troupe_header_checks(<target> ROOT <folder> FOLDERS <names> [DEPS <targets>])
function(troupe_header_checks target)
  cmake_parse_arguments(ARG "" "ROOT" "FOLDERS;DEPS" ${ARGN})
  set(sources "")
  foreach(folder ${ARG_FOLDERS})
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${ARG_ROOT}"
      "${ARG_ROOT}/${folder}/*.hpp")
    foreach(header ${headers})
      string(REGEX REPLACE "\\.hpp$" "" stem "${header}")
      if(EXISTS "${ARG_ROOT}/${stem}.cpp")
        continue()
      endif()
      file(STRINGS "${ARG_ROOT}/${header}" per_isa REGEX "HWY_TARGET_TOGGLE")
      if(per_isa)  # read once per instruction set by its includer, with the target set
        continue()
      endif()
      set(source "${CMAKE_CURRENT_BINARY_DIR}/${target}/${stem}.cpp")
      # Twice, so that a missing guard is an error too.
      file(CONFIGURE OUTPUT "${source}" @ONLY
        CONTENT "#include \"@header@\"\n#include \"@header@\"  // NOLINT: the guard is tested\n")
      list(APPEND sources "${source}")
    endforeach()
  endforeach()
  if(NOT sources)
    return()
  endif()
  add_library(${target} OBJECT ${sources})
  target_include_directories(${target} PRIVATE "${ARG_ROOT}")
  target_compile_options(${target} PRIVATE -O0 -g0)
  target_link_libraries(${target} PRIVATE ${ARG_DEPS})
endfunction()
