// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! The DMA address space: guest memory as the card may reach it.
