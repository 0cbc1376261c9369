# The signer as a CMake target, built by cargo for the chip:
#
#     include(path/to/signer/capi/examples/cmiot_signer.cmake)
#     target_link_libraries(firmware PRIVATE cmiot_signer)
#
# CMIOT_SIGNER_TARGET is rustc's name of the chip: thumbv6m-none-eabi (Cortex-M0/M0+), thumbv7m-none-eabi (M3),
# thumbv7em-none-eabihf (M4F/M7F with hard floats; thumbv7em-none-eabi with soft ones), riscv32imc-unknown-none-elf
# (ESP32-C3). Set it before the include() or with -D. Without it, it is derived from the compiler and CMAKE_C_FLAGS. A
# target that links the library for a core that cannot run it does not compile: see cmiot_signer_target.c.
#
# CMIOT_SIGNER_PREBUILT is the folder of a release's unpacked archive for the chip: its library is linked, and cargo is
# not used. CMIOT_SIGNER_CARGO_ARGS is put between `cargo` and its command: "+nightly -Zbuild-std=core" builds core, too.
# CMIOT_SIGNER_FEATURES are features of the library: "v5" adds the functions cmiot_v5_*.
#
# A second include() does nothing. Link with -Wl,--gc-sections, so that unused functions are removed.

if(TARGET cmiot_signer)
    return()
endif()

if(CMIOT_SIGNER_PREBUILT)
    find_package(cmiot_signer CONFIG REQUIRED PATHS "${CMIOT_SIGNER_PREBUILT}" NO_DEFAULT_PATH)
    set_target_properties(cmiot_signer PROPERTIES IMPORTED_GLOBAL TRUE)
    return()
endif()

# Not a set(... CACHE ...): policy CMP0126 of projects older than 3.21 removes a variable of that name.
if(NOT CMIOT_SIGNER_TARGET)
    separate_arguments(cmiot_signer_flags UNIX_COMMAND "${CMAKE_C_COMPILER_ARG1} ${CMAKE_C_FLAGS}")
    execute_process(
        COMMAND "${CMAKE_C_COMPILER}" ${cmiot_signer_flags} -E "${CMAKE_CURRENT_LIST_DIR}/cmiot_signer_target.c" -DCMIOT_SIGNER_ASK
        OUTPUT_VARIABLE cmiot_signer_answer
        ERROR_QUIET)
    if(cmiot_signer_answer MATCHES "cmiot_signer_target *= *\"([^\"]+)\"")
        set(CMIOT_SIGNER_TARGET "${CMAKE_MATCH_1}")
        message(STATUS "cmiot_signer: built for ${CMIOT_SIGNER_TARGET}, as the C compiler's flags say")
    else()
        message(FATAL_ERROR "cmiot_signer: the C compiler's flags name no chip that is known here: set "
            "CMIOT_SIGNER_TARGET to rustc's name of the chip, such as thumbv7m-none-eabi")
    endif()
endif()

get_filename_component(CMIOT_SIGNER_CAPI "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
set(CMIOT_SIGNER_BUILD "${CMAKE_CURRENT_BINARY_DIR}/cmiot_signer")
set(CMIOT_SIGNER_LIBRARY "${CMIOT_SIGNER_BUILD}/${CMIOT_SIGNER_TARGET}/chip/libcmiot_signer_capi.a")

separate_arguments(cmiot_signer_cargo UNIX_COMMAND "${CMIOT_SIGNER_CARGO_ARGS}")

# cargo always runs, since it tracks the sources; it takes no time if nothing has changed.
add_custom_target(cmiot_signer_build
    COMMAND "${CMAKE_COMMAND}" -E env --unset=RUSTFLAGS
        cargo ${cmiot_signer_cargo} rustc --quiet --package cmiot-signer-capi --lib --crate-type staticlib
            --profile chip --features "${CMIOT_SIGNER_FEATURES}" --target "${CMIOT_SIGNER_TARGET}" --target-dir "${CMIOT_SIGNER_BUILD}"
    WORKING_DIRECTORY "${CMIOT_SIGNER_CAPI}"
    BYPRODUCTS "${CMIOT_SIGNER_LIBRARY}"
    VERBATIM)

add_library(cmiot_signer STATIC IMPORTED GLOBAL)
set_target_properties(cmiot_signer PROPERTIES
    IMPORTED_LOCATION "${CMIOT_SIGNER_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${CMIOT_SIGNER_CAPI}/include")
add_dependencies(cmiot_signer cmiot_signer_build)

include("${CMAKE_CURRENT_LIST_DIR}/cmiot_signer_check.cmake")
cmiot_signer_check("${CMIOT_SIGNER_TARGET}")
