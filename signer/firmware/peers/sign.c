/* The signing workload of src/workloads.rs in C: it signs a lookup and writes its query into a buffer on the stack.
 *
 * Credentials and card are constants; time and sequence are known at run time only. The query is formatted without
 * printf, which alone takes more flash than the signer. A peer is four macros.
 */
#include "job.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(PEER_MBEDTLS)
#include "mbedtls/version.h"

#include "mbedtls/sha256.h"
#define CONTEXT mbedtls_sha256_context
#if MBEDTLS_VERSION_MAJOR < 3
#define BEGIN(context) mbedtls_sha256_init(context), mbedtls_sha256_starts_ret(context, 0)
#define UPDATE mbedtls_sha256_update_ret
#define FINISH(context, digest) mbedtls_sha256_finish_ret(context, digest), mbedtls_sha256_free(context)
#else
#define BEGIN(context) mbedtls_sha256_init(context), mbedtls_sha256_starts(context, 0)
#define UPDATE mbedtls_sha256_update
#define FINISH(context, digest) mbedtls_sha256_finish(context, digest), mbedtls_sha256_free(context)
#endif

#elif defined(PEER_BEARSSL)
#include "bearssl_hash.h"
#define CONTEXT br_sha256_context
#define BEGIN br_sha256_init
#define UPDATE br_sha256_update
#define FINISH br_sha256_out

#elif defined(PEER_TINYCRYPT)
#include "tinycrypt/sha256.h"
#define CONTEXT struct tc_sha256_state_struct
#define BEGIN tc_sha256_init
#define UPDATE tc_sha256_update
#define FINISH(context, digest) tc_sha256_final(digest, context)

#elif defined(PEER_WOLFCRYPT)
#include "wolfssl/wolfcrypt/sha256.h"
#define CONTEXT wc_Sha256
#define BEGIN wc_InitSha256
#define UPDATE wc_Sha256Update
#define FINISH(context, digest) wc_Sha256Final(context, digest), wc_Sha256Free(context)

#elif defined(PEER_CIFRA)
#include "sha2.h"
#define CONTEXT cf_sha256_context
#define BEGIN cf_sha256_init
#define UPDATE cf_sha256_update
#define FINISH cf_sha256_digest_final
#endif

static void sha256(const uint8_t *parts[3], const size_t lens[3], uint8_t digest[32]) {
    CONTEXT context;
    BEGIN(&context);
    for (int i = 0; i < 3; i++)
        UPDATE(&context, parts[i], lens[i]);
    FINISH(&context, digest);
}

static const char APPID[] = "KTTNJFBF5JXVLS", EBID[] = "0001000000009", PASSWORD[] = "password-11",
                  CARD[] = "1064765004176";

/* The compiler must not compute the result in advance. */
static uint64_t volatile_time(void) {
    uint64_t time = 1709136000;
    __asm__ volatile("" : "+r"(time));
    return time;
}

static uint32_t volatile_sequence(void) {
    uint32_t sequence = 80000001;
    __asm__ volatile("" : "+r"(sequence));
    return sequence;
}

static char *put(char *at, const char *text, size_t len) {
    memcpy(at, text, len);
    return at + len;
}

static char *put_number(char *at, uint32_t number, int digits) {
    for (int i = digits - 1; i >= 0; i--) {
        at[i] = (char)('0' + number % 10);
        number /= 10;
    }
    return at + digits;
}

/* YYYYMMDDHHMMSS at UTC+8, of the years 2000 to 2099. */
static char *put_stamp(char *at, uint32_t seconds) {
    static const uint8_t lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    uint32_t days = seconds / 86400, second = seconds % 86400;
    uint32_t year = days / 1461 * 4, day = days % 1461;
    if (day >= 366) {
        year += 1 + (day - 366) / 365;
        day = (day - 366) % 365;
    }
    uint32_t month = 0;
    for (;; month++) {
        uint32_t length = lengths[month] + (month == 1 && year % 4 == 0);
        if (day < length)
            break;
        day -= length;
    }
    at = put_number(at, 2000 + year, 4);
    at = put_number(at, month + 1, 2);
    at = put_number(at, day + 1, 2);
    at = put_number(at, second / 3600, 2);
    at = put_number(at, second / 60 % 60, 2);
    return put_number(at, second % 60, 2);
}

__attribute__((noinline)) bool job(void) {
    /* appid=…&transid=…&ebid=…&token=…&msisdn=… */
    char query[6 + 14 + 9 + 36 + 6 + 13 + 7 + 64 + 8 + 13];
    uint64_t unix_seconds = volatile_time();
    uint32_t sequence = volatile_sequence();
    if (unix_seconds < 946656000 || unix_seconds >= 4102416000u || sequence == 0 || sequence > 99999999)
        return false;

    char *at = put(query, "appid=", 6);
    at = put(at, APPID, sizeof APPID - 1);
    at = put(at, "&transid=", 9);
    char *transid = at;
    at = put(at, APPID, sizeof APPID - 1);
    at = put_stamp(at, (uint32_t)(unix_seconds - 946656000));
    at = put_number(at, sequence, 8);
    size_t transid_len = (size_t)(at - transid);
    at = put(at, "&ebid=", 6);
    at = put(at, EBID, sizeof EBID - 1);
    at = put(at, "&token=", 7);

    uint8_t digest[32];
    const uint8_t *parts[3] = {(const uint8_t *)APPID, (const uint8_t *)PASSWORD, (const uint8_t *)transid};
    const size_t lens[3] = {sizeof APPID - 1, sizeof PASSWORD - 1, transid_len};
    sha256(parts, lens, digest);
    for (int i = 0; i < 32; i++) {
        *at++ = "0123456789abcdef"[digest[i] >> 4];
        *at++ = "0123456789abcdef"[digest[i] & 15];
    }
    at = put(at, "&msisdn=", 8);
    at = put(at, CARD, sizeof CARD - 1);
    __asm__ volatile("" : : "r"(query) : "memory");
    /* The first characters of the known answer: a peer with another result is invalid. */
    return at == query + sizeof query && memcmp(query + 91, "ce72af16", 8) == 0;
}
