/* SPDX-License-Identifier: GPL-2.0 */
/* Callable forms of what the XDP headers have as inline functions. */
#ifndef _NETDEV_HELPERS_XDP_H
#define _NETDEV_HELPERS_XDP_H

#include <linux/dma-mapping.h>
#include <linux/filter.h>
#include <linux/netdevice.h>
#include <net/page_pool/types.h>
#include <net/xdp.h>

struct nd_tx_parts;

static const u32 ND_XDP_HEADROOM = XDP_PACKET_HEADROOM;
static const u32 ND_XDP_TAILROOM = SKB_DATA_ALIGN(sizeof(struct skb_shared_info));
static const u32 ND_XDP_XMIT_FLUSH = XDP_XMIT_FLUSH;

bool nd_xdp_prog_has_frags(const struct bpf_prog *prog);
int nd_xdp_rxq_register(struct xdp_rxq_info *rxq, struct napi_struct *napi, u32 queue,
			struct page_pool *pool);

void nd_xdp_prepare(struct xdp_buff *xdp, struct xdp_rxq_info *rxq, struct page *page,
		    u32 offset, u32 len);
bool nd_xdp_add_page(struct xdp_buff *xdp, struct page *page, u32 offset, u32 len);
bool nd_xdp_has_frags(const struct xdp_buff *xdp);
u32 nd_xdp_len(const struct xdp_buff *xdp);
u32 nd_xdp_run(const struct bpf_prog *prog, struct xdp_buff *xdp);
void nd_xdp_exception(const struct net_device *dev, const struct bpf_prog *prog, u32 action);
struct sk_buff *nd_xdp_build_skb(const struct xdp_buff *xdp);
struct xdp_frame *nd_xdp_to_frame(struct xdp_buff *xdp);

u32 nd_xdp_frame_len(const struct xdp_frame *frame);
/* With the header before the frame; fails also if there is no room for it. */
bool nd_xdp_map(struct device *dev, struct xdp_frame *frame, const void *header, u32 header_len,
		struct nd_tx_parts *parts);

void nd_xdp_bulk_add(struct xdp_frame_bulk *bulk, struct xdp_frame *frame);
void nd_xdp_bulk_flush(struct xdp_frame_bulk *bulk);

/* For who cannot change processors. There may be fewer queues. */
u32 nd_xdp_tx_queue(const struct net_device *dev);

#endif
