// SPDX-License-Identifier: GPL-2.0
#include <linux/bpf_trace.h>
#include <linux/filter.h>
#include <linux/netdevice.h>
#include <net/page_pool/helpers.h>
#include <net/xdp.h>

#include "helpers.h"
#include "helpers_xdp.h"

bool nd_xdp_prog_has_frags(const struct bpf_prog *prog)
{
	return prog->aux->xdp_has_frags;
}

int nd_xdp_rxq_register(struct xdp_rxq_info *rxq, struct napi_struct *napi, u32 queue,
			struct page_pool *pool)
{
	int err = __xdp_rxq_info_reg(rxq, napi->dev, queue, napi->napi_id, PAGE_SIZE);

	if (err)
		return err;
	err = xdp_rxq_info_reg_mem_model(rxq, MEM_TYPE_PAGE_POOL, pool);
	if (err)
		xdp_rxq_info_unreg(rxq);
	return err;
}

void nd_xdp_prepare(struct xdp_buff *xdp, struct xdp_rxq_info *rxq, struct page *page,
		    u32 offset, u32 len)
{
	xdp_init_buff(xdp, PAGE_SIZE, rxq);
	xdp_prepare_buff(xdp, page_address(page), offset, len, true);
}

bool nd_xdp_add_page(struct xdp_buff *xdp, struct page *page, u32 offset, u32 len)
{
	return xdp_buff_add_frag(xdp, page_to_netmem(page), offset, len, PAGE_SIZE);
}

bool nd_xdp_has_frags(const struct xdp_buff *xdp)
{
	return xdp_buff_has_frags(xdp);
}

u32 nd_xdp_len(const struct xdp_buff *xdp)
{
	return xdp_get_buff_len(xdp);
}

u32 nd_xdp_run(const struct bpf_prog *prog, struct xdp_buff *xdp)
{
	return bpf_prog_run_xdp(prog, xdp);
}

void nd_xdp_exception(const struct net_device *dev, const struct bpf_prog *prog, u32 action)
{
	trace_xdp_exception(dev, prog, action);
}

struct sk_buff *nd_xdp_build_skb(const struct xdp_buff *xdp)
{
	const struct skb_shared_info *info = xdp_get_shared_info_from_buff(xdp);
	/* The skb clears this where it lies; the sizes stay. */
	u8 frags = xdp_buff_has_frags(xdp) ? info->nr_frags : 0;
	struct sk_buff *skb = napi_build_skb(xdp->data_hard_start, xdp->frame_sz);

	if (unlikely(!skb))
		return NULL;
	skb_mark_for_recycle(skb);
	skb_reserve(skb, xdp->data - xdp->data_hard_start);
	__skb_put(skb, xdp->data_end - xdp->data);
	if (xdp->data > xdp->data_meta)
		skb_metadata_set(skb, xdp->data - xdp->data_meta);
	if (frags)
		xdp_update_skb_frags_info(skb, frags, info->xdp_frags_size,
					  info->xdp_frags_truesize, xdp_buff_get_skb_flags(xdp));
	return skb;
}

struct xdp_frame *nd_xdp_to_frame(struct xdp_buff *xdp)
{
	return xdp_convert_buff_to_frame(xdp);
}

u32 nd_xdp_frame_len(const struct xdp_frame *frame)
{
	return xdp_get_frame_len(frame);
}

bool nd_xdp_map(struct device *dev, struct xdp_frame *frame, const void *header, u32 header_len,
		struct nd_tx_parts *parts)
{
	const struct skb_shared_info *shinfo = xdp_get_shared_info_from_frame(frame);
	u8 *data = frame->data - header_len;

	if (unlikely(frame->headroom < header_len))
		return false;
	parts->header = true;
	memcpy(data, header, header_len);
	return nd_parts_map(dev, data, header_len + frame->len, shinfo->frags,
			    xdp_frame_has_frags(frame) ? shinfo->nr_frags : 0, parts);
}

void nd_xdp_bulk_add(struct xdp_frame_bulk *bulk, struct xdp_frame *frame)
{
	rcu_read_lock();
	xdp_return_frame_bulk(frame, bulk);
	rcu_read_unlock();
}

void nd_xdp_bulk_flush(struct xdp_frame_bulk *bulk)
{
	xdp_flush_frame_bulk(bulk);
}

u32 nd_xdp_tx_queue(const struct net_device *dev)
{
	return smp_processor_id() % READ_ONCE(dev->real_num_tx_queues);
}
