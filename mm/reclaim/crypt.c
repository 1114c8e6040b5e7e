/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AES-XTS of pages; see crypt.h ("IEEE Std 1619": the data unit's number, little-endian, is the tweak).
 */
#include "mm/reclaim/crypt.h"

#include "kernel/lib/string.h"
#include "mm/env.h"

#include <mbedtls/aes.h>

static mbedtls_aes_xts_context encrypting, decrypting; /* constant once the key is set */

void crypt_set_key(const uint8_t key[CRYPT_KEY_BYTES])
{
    env_vector_begin();
    mbedtls_aes_xts_init(&encrypting);
    mbedtls_aes_xts_init(&decrypting);
    (void)mbedtls_aes_xts_setkey_enc(&encrypting, key, CRYPT_KEY_BYTES * 8);
    (void)mbedtls_aes_xts_setkey_dec(&decrypting, key, CRYPT_KEY_BYTES * 8);
    env_vector_end();
}

static void crypt(mbedtls_aes_xts_context *ctx, int mode, void *to, const void *from, uint64_t unit)
{
    unsigned char number[16] = {0};

    memcpy(number, &unit, sizeof(unit));
    env_vector_begin();
    (void)mbedtls_aes_crypt_xts(ctx, mode, PAGE_SIZE, number, from, to);
    env_vector_end();
}

void crypt_encrypt(void *to, const void *from, uint64_t unit)
{
    crypt(&encrypting, MBEDTLS_AES_ENCRYPT, to, from, unit);
}

void crypt_decrypt(void *to, const void *from, uint64_t unit)
{
    crypt(&decrypting, MBEDTLS_AES_DECRYPT, to, from, unit);
}
