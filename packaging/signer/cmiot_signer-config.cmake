# find_package(cmiot_signer): the static library of this archive, for the chip that its name says. Link with
# -Wl,--gc-sections.

get_filename_component(cmiot_signer_root "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET cmiot_signer)
    add_library(cmiot_signer STATIC IMPORTED)
    set_target_properties(cmiot_signer PROPERTIES
        IMPORTED_LOCATION "${cmiot_signer_root}/lib/libcmiot_signer.a"
        INTERFACE_INCLUDE_DIRECTORIES "${cmiot_signer_root}/include")
endif()
