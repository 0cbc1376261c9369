/* mbedTLS cut down to SHA-256. -DMBEDTLS_SHA256_SMALLER rolls its loop up. */
#define MBEDTLS_SHA256_C
