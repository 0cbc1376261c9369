/* wolfCrypt cut down to SHA-256. -DUSE_SLOW_SHA256 rolls its loop up. */
#define WOLFCRYPT_ONLY
#define SINGLE_THREADED
#define NO_FILESYSTEM
#define NO_WRITEV
#define NO_ERROR_STRINGS
#define NO_ASN
#define NO_BIG_INT
#define NO_AES
#define NO_DES3
#define NO_DH
#define NO_DSA
#define NO_HMAC
#define NO_MD4
#define NO_MD5
#define NO_OLD_TLS
#define NO_PSK
#define NO_PWDBASED
#define NO_RC4
#define NO_RSA
#define NO_SHA
#define WC_NO_HARDEN
#define WC_NO_RNG
#define WOLFSSL_NO_MALLOC
#define WOLFSSL_GENERAL_ALIGNMENT 4
