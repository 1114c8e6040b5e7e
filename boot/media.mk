# SPDX-License-Identifier: BSD-2-Clause
# Boot media.
ISO       := $(BUILD)/ballast.iso
USB_IMAGE := $(BUILD)/ballast.usb.img
