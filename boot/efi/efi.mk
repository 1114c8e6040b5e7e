# SPDX-License-Identifier: BSD-2-Clause
# The UEFI loader, on GNU-EFI.
EFI_LOADER :=
