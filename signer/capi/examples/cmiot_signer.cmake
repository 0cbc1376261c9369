# The signer as a CMake target, built by cargo for the chip:
#
#     include(path/to/signer/capi/examples/cmiot_signer.cmake)
#     target_link_libraries(firmware PRIVATE cmiot_signer)
#
# CMIOT_SIGNER_TARGET is rustc's name of the chip: thumbv6m-none-eabi (Cortex-M0/M0+), thumbv7m-none-eabi (M3),
# thumbv7em-none-eabihf (M4F/M7F with hard floats; thumbv7em-none-eabi with soft ones), riscv32imc-unknown-none-elf
# (ESP32-C3). Link with -Wl,--gc-sections, so that unused functions are removed.

set(CMIOT_SIGNER_TARGET "thumbv7m-none-eabi" CACHE STRING "rustc's name of the chip")

get_filename_component(CMIOT_SIGNER_CAPI "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
set(CMIOT_SIGNER_BUILD "${CMAKE_CURRENT_BINARY_DIR}/cmiot_signer")
set(CMIOT_SIGNER_LIBRARY "${CMIOT_SIGNER_BUILD}/${CMIOT_SIGNER_TARGET}/chip/libcmiot_signer_capi.a")

# cargo always runs, since it tracks the sources; it takes no time if nothing has changed.
add_custom_target(cmiot_signer_build
    COMMAND "${CMAKE_COMMAND}" -E env --unset=RUSTFLAGS
        cargo rustc --quiet --package cmiot-signer-capi --lib --crate-type staticlib
            --profile chip --target "${CMIOT_SIGNER_TARGET}" --target-dir "${CMIOT_SIGNER_BUILD}"
    WORKING_DIRECTORY "${CMIOT_SIGNER_CAPI}"
    BYPRODUCTS "${CMIOT_SIGNER_LIBRARY}"
    VERBATIM)

add_library(cmiot_signer STATIC IMPORTED GLOBAL)
set_target_properties(cmiot_signer PROPERTIES
    IMPORTED_LOCATION "${CMIOT_SIGNER_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${CMIOT_SIGNER_CAPI}/include")
add_dependencies(cmiot_signer cmiot_signer_build)
