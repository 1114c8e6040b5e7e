/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is built of Mbed TLS (tools/third_party.mk): AES in XTS mode, tables in read-only memory, the
 * processor's instructions where it has them.
 */
#pragma once

#define MBEDTLS_HAVE_ASM
#define MBEDTLS_AES_C
#define MBEDTLS_AESNI_C
#define MBEDTLS_CIPHER_MODE_XTS
#define MBEDTLS_AES_ROM_TABLES
#define MBEDTLS_AES_FEWER_TABLES
