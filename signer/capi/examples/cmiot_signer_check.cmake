# cmiot_signer_check(TARGET): a program that links the library cmiot_signer, built for rustc's TARGET, compiles only if
# its core and float ABI can run it. cmiot_signer_target.c, next to this file, is compiled with the program's own flags.

function(cmiot_signer_check target)
    get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
    if("C" IN_LIST languages)
        string(MAKE_C_IDENTIFIER "${target}" name)
        set_target_properties(cmiot_signer PROPERTIES
            INTERFACE_SOURCES "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/cmiot_signer_target.c"
            INTERFACE_COMPILE_DEFINITIONS "CMIOT_SIGNER_FOR_${name}")
    endif()
endfunction()
