/* Compiles only for a core that can run the library, which is built for CMIOT_SIGNER_FOR_(rustc's target): a linker
 * accepts an image for another core, and the chip faults. With CMIOT_SIGNER_ASK it names the target for the compiler's
 * flags; cmiot_signer.cmake does both. Macros: Arm C Language Extensions, RISC-V C API.
 */
#if defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M'
#define CMIOT_M __ARM_ARCH
#else
#define CMIOT_M 0
#endif

#if defined(__ARM_PCS_VFP)
#define CMIOT_HARD 1
#else
#define CMIOT_HARD 0
#endif

#if CMIOT_M >= 8 && defined(__ARM_ARCH_ISA_THUMB) && __ARM_ARCH_ISA_THUMB >= 2 && !defined(__ARM_ARCH_8M_BASE__)
#define CMIOT_MAIN 1
#else
#define CMIOT_MAIN 0
#endif

#if defined(__ARM_FEATURE_DSP) && CMIOT_M >= 7
#define CMIOT_DSP 1
#else
#define CMIOT_DSP 0
#endif

#if defined(__riscv) && __riscv_xlen == 32 && defined(__riscv_mul) && defined(__riscv_compressed) && \
    defined(__riscv_float_abi_soft)
#define CMIOT_RV32IMC 1
#else
#define CMIOT_RV32IMC 0
#endif

#if defined(__riscv) && __riscv_xlen == 32 && defined(__riscv_mul) && defined(__riscv_compressed) && \
    defined(__riscv_atomic) && defined(__riscv_float_abi_single)
#define CMIOT_RV32IMAFC 1
#else
#define CMIOT_RV32IMAFC 0
#endif

#ifdef CMIOT_SIGNER_ASK

#if CMIOT_MAIN && CMIOT_HARD
cmiot_signer_target = "thumbv8m.main-none-eabihf"
#elif CMIOT_MAIN
cmiot_signer_target = "thumbv8m.main-none-eabi"
#elif CMIOT_M >= 8
cmiot_signer_target = "thumbv8m.base-none-eabi"
#elif CMIOT_M == 7 && CMIOT_DSP && CMIOT_HARD
cmiot_signer_target = "thumbv7em-none-eabihf"
#elif CMIOT_M == 7 && CMIOT_DSP
cmiot_signer_target = "thumbv7em-none-eabi"
#elif CMIOT_M == 7
cmiot_signer_target = "thumbv7m-none-eabi"
#elif CMIOT_M == 6
cmiot_signer_target = "thumbv6m-none-eabi"
#elif CMIOT_RV32IMC && defined(__riscv_atomic)
cmiot_signer_target = "riscv32imac-unknown-none-elf"
#elif CMIOT_RV32IMAFC
cmiot_signer_target = "riscv32imafc-unknown-none-elf"
#elif CMIOT_RV32IMC
cmiot_signer_target = "riscv32imc-unknown-none-elf"
#elif defined(__x86_64__) && defined(__linux__)
cmiot_signer_target = "x86_64-unknown-linux-gnu"
#elif defined(__aarch64__) && defined(__linux__)
cmiot_signer_target = "aarch64-unknown-linux-gnu"
#endif

#else

#if defined(CMIOT_SIGNER_FOR_thumbv6m_none_eabi)
#define CMIOT_FITS (CMIOT_M >= 6 && !CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_thumbv7m_none_eabi)
#define CMIOT_FITS ((CMIOT_M == 7 || CMIOT_MAIN) && !CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_thumbv7em_none_eabi)
#define CMIOT_FITS (CMIOT_DSP && !CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_thumbv7em_none_eabihf)
#define CMIOT_FITS (CMIOT_DSP && CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_thumbv8m_base_none_eabi)
#define CMIOT_FITS (CMIOT_M >= 8 && !CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_thumbv8m_main_none_eabi)
#define CMIOT_FITS (CMIOT_MAIN && !CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_thumbv8m_main_none_eabihf)
#define CMIOT_FITS (CMIOT_MAIN && CMIOT_HARD)
#elif defined(CMIOT_SIGNER_FOR_riscv32imc_unknown_none_elf)
#define CMIOT_FITS CMIOT_RV32IMC
#elif defined(CMIOT_SIGNER_FOR_riscv32imac_unknown_none_elf)
#if defined(__riscv_atomic)
#define CMIOT_FITS CMIOT_RV32IMC
#else
#define CMIOT_FITS 0
#endif
#elif defined(CMIOT_SIGNER_FOR_riscv32imafc_unknown_none_elf)
#define CMIOT_FITS CMIOT_RV32IMAFC
#elif defined(CMIOT_SIGNER_FOR_x86_64_unknown_linux_gnu)
#if defined(__x86_64__)
#define CMIOT_FITS 1
#else
#define CMIOT_FITS 0
#endif
#elif defined(CMIOT_SIGNER_FOR_aarch64_unknown_linux_gnu)
#if defined(__aarch64__)
#define CMIOT_FITS 1
#else
#define CMIOT_FITS 0
#endif
#else
/* A target that is not known here. */
#define CMIOT_FITS 1
#endif

#if !CMIOT_FITS
#error "cmiot_signer is built for another core or float ABI: set CMIOT_SIGNER_TARGET to rustc's name of this one"
#endif

/* A translation unit has a declaration. */
typedef int cmiot_signer_target;

#endif
