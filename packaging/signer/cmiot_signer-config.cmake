# find_package(cmiot_signer): the static library of this archive, for the chip that its name says. A program for a core
# that cannot run it does not compile. Link with -Wl,--gc-sections.

get_filename_component(cmiot_signer_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET cmiot_signer)
    add_library(cmiot_signer STATIC IMPORTED)
    set_target_properties(cmiot_signer PROPERTIES
        IMPORTED_LOCATION "${cmiot_signer_root}/lib/libcmiot_signer.a"
        INTERFACE_INCLUDE_DIRECTORIES "${cmiot_signer_root}/include")
    include("${CMAKE_CURRENT_LIST_DIR}/cmiot_signer_check.cmake")
    cmiot_signer_check("@TARGET@")
endif()
