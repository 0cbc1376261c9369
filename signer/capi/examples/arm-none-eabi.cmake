# A toolchain file for Cortex-M without an operating system: Debian's gcc-arm-none-eabi.
#
#     cmake -DCMAKE_TOOLCHAIN_FILE=.../arm-none-eabi.cmake -DCMIOT_SIGNER_CPU=cortex-m3 ...

set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
# A trial program cannot be linked without startup code.
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

set(CMIOT_SIGNER_CPU "cortex-m3" CACHE STRING "gcc's name of the chip's core")
set(CMAKE_C_FLAGS_INIT "-mcpu=${CMIOT_SIGNER_CPU} -mthumb -ffreestanding -ffunction-sections -fdata-sections")
