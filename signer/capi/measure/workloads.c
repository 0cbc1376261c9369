/* The measured workloads of the C library, one per image: those of signer/firmware/src/workloads.rs, from C.
 *
 * JOB_ names the workload. Signing and HTTP include cmiot_account_init: a Rust firmware checks its credentials when it is
 * compiled, and C cannot. Stack includes the caller's structs and buffers, as in the Rust figures.
 */
#include "cmiot_signer.h"
#include "job.h"

/* Known at run time only, so that nothing is computed in advance. */
static volatile uint32_t moment = 1709136000, number = 80000001;

#if defined(JOB_SIGN) || defined(JOB_HTTP) || defined(JOB_V5)
static const cmiot_text appid = {"KTTNJFBF5JXVLS", 14}, password = {"password-11", 11};
static const cmiot_card card = {CMIOT_MSISDN, {"1064765004176", 13}};
#endif

#if defined(JOB_SIGN) || defined(JOB_HTTP)
static const cmiot_text ebid = {"0001000000009", 13};
#endif

#ifdef JOB_NONE
bool job(void) { return moment > number; }
#endif

#ifdef JOB_SIGN
__attribute__((noinline)) bool job(void) {
    cmiot_account account;
    char query[177];
    return cmiot_account_init(&account, appid, ebid, password) == CMIOT_OK &&
           cmiot_sign(&account, moment, number, card, query, sizeof query) == 176;
}
#endif

#ifdef JOB_HTTP
static const char response[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                               "cmiot-transid: KTTNJFBF5JXVLS2024022900000080000001\r\ncontent-length: 66\r\n"
                               "date: Thu, 29 Feb 2024 16:00:00 GMT\r\n\r\n"
                               "{\"status\":\"0\",\"message\":\"\\u6b63\\u786e\",\"result\":[{\"STATUS\":\"00\"}]}";

__attribute__((noinline)) bool job(void) {
    static const cmiot_endpoint endpoint = {{"192.168.1.10:8080", 17}, {"/v2/userstatusrealsingle", 24}, 0};
    cmiot_account account;
    char buffer[320];
    cmiot_http http;
    return cmiot_account_init(&account, appid, ebid, password) == CMIOT_OK &&
           cmiot_http_request(&account, moment, number, card, &endpoint, buffer, sizeof buffer) > 0 &&
           cmiot_http_begin(&http, moment, number, (uint8_t *)buffer, sizeof buffer) == CMIOT_OK &&
           cmiot_http_feed(&http, (const uint8_t *)response, sizeof response - 1) == 1;
}
#endif

#ifdef JOB_SCAN
__attribute__((noinline)) bool job(void) {
    static const char body[] = "{\"status\":\"0\",\"message\":\"\\u6b63\\u786e\",\"result\":[{\"STATUS\":\"00\"}]}";
    cmiot_reply reply;
    return moment != number && cmiot_reply_scan(&reply, (const uint8_t *)body, sizeof body - 1) == CMIOT_OK &&
           cmiot_reply_status(&reply) == 0;
}
#endif

#ifdef JOB_V5
static const char issued[] = "{\"status\":\"0\",\"message\":\"\\u6b63\\u786e\",\"result\":["
                             "{\"token\":\"0123456789abcdef0123456789abcdef01234567\",\"ttl\":\"3600\"}]}";
static const char reply[] = "{\"status\":\"0\",\"message\":\"\\u6b63\\u786e\",\"result\":["
                            "{\"cardStatus\":\"2\",\"lastChangeDate\":\"20240229000000\"}]}";

__attribute__((noinline)) bool job(void) {
    char body[192], token[64];
    uint32_t renew_after;
    return cmiot_v5_token_request(appid, password, moment, number, 0, CMIOT_V5_BODY, body, sizeof body) > 0 &&
           cmiot_v5_token((const uint8_t *)issued, sizeof issued - 1, token, sizeof token, &renew_after) == 40 &&
           cmiot_v5_query(appid, (cmiot_text){token, 40}, moment, number, card, CMIOT_V5_BODY, body, sizeof body) > 0 &&
           cmiot_v5_status((const uint8_t *)reply, sizeof reply - 1) == CMIOT_V5_CT + 2;
}
#endif

#ifdef JOB_LEASE
/* RAM in place of flash. */
static uint8_t pages[2 * 512];

static int32_t nor_read(void *unused, uint32_t offset, uint8_t *bytes, size_t len) {
    (void)unused;
    for (size_t i = 0; i < len; i++)
        bytes[i] = pages[offset + i];
    return 0;
}

static int32_t nor_write(void *unused, uint32_t offset, const uint8_t *bytes, size_t len) {
    (void)unused;
    for (size_t i = 0; i < len; i++)
        pages[offset + i] &= bytes[i];
    return 0;
}

static int32_t nor_erase(void *unused, uint32_t offset) {
    (void)unused;
    for (size_t i = 0; i < 512; i++)
        pages[offset + i] = 0xFF;
    return 0;
}

__attribute__((noinline)) bool job(void) {
    static const cmiot_flash flash = {NULL, nor_read, nor_write, nor_erase, 512, 8};
    cmiot_lease lease;
    return moment != number && cmiot_lease_mount(&lease, &flash, 0, 0, 16) == CMIOT_OK && cmiot_lease_next(&lease) > 0;
}
#endif
