# The actor framework's libraries: caf::core, caf::io, caf::openssl. Debian's package has no CMake
# configuration of its own.
#
#   find_package(CAF 0.17.6 REQUIRED COMPONENTS core io openssl)

find_path(CAF_INCLUDE_DIR caf/config.hpp)
if(CAF_INCLUDE_DIR)
  # CAF_VERSION is major * 10000 + minor * 100 + patch.
  file(STRINGS "${CAF_INCLUDE_DIR}/caf/config.hpp" version_line
    REGEX "^#define[ \t]+CAF_VERSION[ \t]+[0-9]+")
  string(REGEX MATCH "[0-9]+$" version_number "${version_line}")
  if(version_number)
    math(EXPR version_major "${version_number} / 10000")
    math(EXPR version_minor "${version_number} / 100 % 100")
    math(EXPR version_patch "${version_number} % 100")
    set(CAF_VERSION "${version_major}.${version_minor}.${version_patch}")
  endif()
endif()

foreach(component core io openssl)
  find_library(CAF_${component}_LIBRARY "caf_${component}")
  if(CAF_${component}_LIBRARY)
    set(CAF_${component}_FOUND TRUE)
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(CAF
  REQUIRED_VARS CAF_INCLUDE_DIR VERSION_VAR CAF_VERSION HANDLE_COMPONENTS)

if(CAF_FOUND)
  find_package(OpenSSL REQUIRED)
  foreach(component core io openssl)
    if(CAF_${component}_FOUND AND NOT TARGET caf::${component})
      add_library(caf::${component} UNKNOWN IMPORTED)
      # Imported: its headers are system headers, whose warnings are not ours.
      set_target_properties(caf::${component} PROPERTIES
        IMPORTED_LOCATION "${CAF_${component}_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${CAF_INCLUDE_DIR}")
    endif()
  endforeach()
  if(TARGET caf::io)
    set_property(TARGET caf::io APPEND PROPERTY INTERFACE_LINK_LIBRARIES caf::core)
  endif()
  if(TARGET caf::openssl)
    set_property(TARGET caf::openssl APPEND PROPERTY INTERFACE_LINK_LIBRARIES
      caf::io OpenSSL::SSL OpenSSL::Crypto)
  endif()
endif()
mark_as_advanced(CAF_INCLUDE_DIR CAF_core_LIBRARY CAF_io_LIBRARY CAF_openssl_LIBRARY)
