/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads: the headers of the types and functions in bindgen_parameters. */
#include <linux/hrtimer_types.h>
#include <linux/dim.h>
#include <linux/netdevice.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/interrupt.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/netdev_queues.h>
#include <net/netdev_rx_queue.h>
#include <net/page_pool/helpers.h>
#include <net/page_pool/types.h>

#include "helpers.h"
#include "helpers_xdp.h"
#include "trace.h"
