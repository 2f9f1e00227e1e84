// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
//! PCI config space and capabilities of the card.
