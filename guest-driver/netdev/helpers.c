// SPDX-License-Identifier: GPL-2.0
#include <linux/etherdevice.h>
#include <linux/interrupt.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/virtio_net.h>
#include <net/page_pool/helpers.h>

#include "helpers.h"

void nd_skb_tx_meta(const struct sk_buff *skb, struct nd_tx_meta *meta)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);

	meta->len = skb->len;
	meta->protocol = be16_to_cpu(skb->protocol);
	meta->queue = skb_get_queue_mapping(skb);
	meta->more = netdev_xmit_more();
	meta->csum_partial = skb->ip_summed == CHECKSUM_PARTIAL;
	if (meta->csum_partial) {
		meta->csum_start = skb_checksum_start_offset(skb);
		meta->csum_offset = skb->csum_offset;
	}
	meta->gso_size = shinfo->gso_size;
	if (meta->gso_size) {
		meta->gso_segs = shinfo->gso_segs;
		meta->gso_type = shinfo->gso_type;
		meta->header_len = skb_transport_offset(skb) +
				   (shinfo->gso_type & SKB_GSO_UDP_L4 ?
				    sizeof(struct udphdr) : tcp_hdrlen(skb));
	}
}

bool nd_parts_map(struct device *dev, u8 *data, u32 len, const skb_frag_t *frags, int count,
		  struct nd_tx_parts *parts)
{
	struct nd_tx_part *part = parts->part;
	int i;

	if (likely(len)) {
		part->addr = dma_map_page(dev, virt_to_page(data), offset_in_page(data), len,
					  DMA_TO_DEVICE);
		part->len = len;
		if (unlikely(dma_mapping_error(dev, part->addr)))
			return false;
		part++;
	}
	for (i = 0; i < count; i++) {
		const skb_frag_t *frag = &frags[i];

		if (unlikely(!skb_frag_size(frag)))
			continue;
		part->addr = skb_frag_dma_map(dev, frag);
		part->len = skb_frag_size(frag);
		if (unlikely(dma_mapping_error(dev, part->addr)))
			goto unmap;
		part++;
	}
	parts->count = part - parts->part;
	/* Usually not, which saves the driver a call for each part. */
	parts->unmap = dma_need_unmap(dev);
	return true;

unmap:
	while (part > parts->part) {
		part--;
		nd_dma_unmap(dev, part->addr, part->len);
	}
	return false;
}

bool nd_skb_map(struct device *dev, struct sk_buff *skb, const void *header, u32 header_len,
		struct nd_tx_parts *parts)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);
	u32 len = skb_headlen(skb);
	u8 *data = skb->data;

	/* The skb itself is not changed, as it may have more than one user. */
	parts->header = header_len <= skb_headroom(skb) && !skb_header_cloned(skb);
	if (likely(parts->header)) {
		data -= header_len;
		len += header_len;
		memcpy(data, header, header_len);
	}
	if (unlikely(!nd_parts_map(dev, data, len, shinfo->frags, shinfo->nr_frags, parts)))
		return false;
	skb_tx_timestamp(skb);
	return true;
}

bool nd_skb_copy_out(struct sk_buff *skb, const void *header, u32 header_len, void *to)
{
	memcpy(to, header, header_len);
	to += header_len;
	if (likely(!skb_is_nonlinear(skb)))
		memcpy(to, skb->data, skb->len);
	else if (skb_copy_bits(skb, 0, to, skb->len))
		return false;
	skb_tx_timestamp(skb);
	return true;
}

void nd_dma_unmap(struct device *dev, dma_addr_t addr, u32 len)
{
	dma_unmap_page(dev, addr, len, DMA_TO_DEVICE);
}

netdev_features_t nd_features_check(struct sk_buff *skb, netdev_features_t features)
{
	/* A frame whose checksum is already complete is not for the card to cut. */
	if (skb_is_gso(skb) && skb->ip_summed != CHECKSUM_PARTIAL)
		features &= ~NETIF_F_GSO_MASK;
	return vlan_features_check(skb, features);
}

struct sk_buff *nd_skb_copy(struct page_pool *heads, const void *data, u32 len)
{
	u32 size = SKB_HEAD_ALIGN(NET_SKB_PAD + NET_IP_ALIGN + len);
	struct sk_buff *skb;
	void *head;

	head = page_pool_dev_alloc_va(heads, &size);
	if (unlikely(!head))
		return NULL;
	skb = napi_build_skb(head, size);
	if (unlikely(!skb)) {
		page_pool_free_va(heads, head, true);
		return NULL;
	}
	skb_mark_for_recycle(skb);
	skb_reserve(skb, NET_SKB_PAD + NET_IP_ALIGN);
	skb_put_data(skb, data, len);
	return skb;
}

struct sk_buff *nd_skb_new(struct net_device *dev, const void *data, u32 len)
{
	struct sk_buff *skb = netdev_alloc_skb_ip_align(dev, len);

	if (likely(skb))
		skb_put_data(skb, data, len);
	return skb;
}

void nd_skb_add_page(struct sk_buff *skb, struct page *page, u32 offset, u32 len, u32 truesize)
{
	skb_add_rx_frag(skb, skb_shinfo(skb)->nr_frags, page, offset, len, truesize);
	skb_mark_for_recycle(skb);
}

u32 nd_skb_frags(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->nr_frags;
}

bool nd_skb_set_offload(struct net_device *dev, struct sk_buff *skb, const void *hdr, u16 segments)
{
	/* Of a large frame without a checksum to complete, the protocol is looked for by way of it. */
	skb->dev = dev;
	if (virtio_net_hdr_to_skb(skb, hdr, true))
		return false;
	if (skb_is_gso(skb))
		skb_shinfo(skb)->gso_segs = segments;
	return true;
}

/* From the device to the stack: what the frame is, see nd_skb_receive(). */
static u32 nd_skb_classify(struct net_device *dev, struct sk_buff *skb,
			   const struct nd_rx_meta *meta)
{
	u32 what;

	/* Not if the checksum is still to be completed. */
	if (meta->csum_unnecessary && skb->ip_summed == CHECKSUM_NONE)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	if (meta->hash_l3 || meta->hash_l4)
		skb_set_hash(skb, meta->hash, meta->hash_l4 ? PKT_HASH_TYPE_L4 : PKT_HASH_TYPE_L3);
	skb->protocol = eth_type_trans(skb, dev);
	what = be16_to_cpu(skb->protocol);
	if (skb->pkt_type == PACKET_MULTICAST)
		what |= ND_RX_MULTICAST;
	return what;
}

u32 nd_skb_receive(struct napi_struct *napi, struct sk_buff *skb, u16 queue,
		   const struct nd_rx_meta *meta)
{
	u32 what;

	skb_record_rx_queue(skb, queue);
	what = nd_skb_classify(napi->dev, skb, meta);
	napi_gro_receive(napi, skb);
	return what;
}

u32 nd_skb_receive_later(struct net_device *dev, struct sk_buff *skb,
			 const struct nd_rx_meta *meta)
{
	u32 what = nd_skb_classify(dev, skb, meta);

	netif_rx(skb);
	return what;
}

struct page_pool *nd_head_pool_create(struct net_device *netdev, struct napi_struct *napi,
				      u32 queue)
{
	const struct page_pool_params pp = {
		/* Waiting to be used again; more may be in use. */
		.pool_size = 128,
		.nid = NUMA_NO_NODE,
		.napi = napi,
		.netdev = netdev,
		.queue_idx = queue,
	};

	return page_pool_create(&pp);
}

struct page_pool *nd_page_pool_create(const struct nd_page_pool_params *params)
{
	const struct page_pool_params pp = {
		.flags = PP_FLAG_DMA_MAP | PP_FLAG_DMA_SYNC_DEV,
		.order = params->order,
		.pool_size = params->pages,
		.nid = NUMA_NO_NODE,
		.dev = params->dev,
		.napi = params->napi,
		.dma_dir = DMA_FROM_DEVICE,
		.max_len = params->len,
		.offset = params->offset,
		.netdev = params->netdev,
		.queue_idx = params->queue,
	};

	return page_pool_create(&pp);
}

struct page *nd_page_pool_alloc(struct page_pool *pool, u32 order, bool may_sleep)
{
	gfp_t gfp = (may_sleep ? GFP_NOWAIT : GFP_ATOMIC) | __GFP_NOWARN;
	struct page *page = page_pool_alloc_pages(pool, gfp);

	if (page || !may_sleep)
		return page;
	/*
	 * Linux 7.3 lets nobody sleep in there: outside of softirqs, page_pool_register_dma_index()
	 * takes the xarray's lock with xa_alloc_bh(), but the xarray was not told so when it was made.
	 * When it is short of memory it lets go of the lock without enabling softirqs again, and
	 * would sleep like that. So reclaim here, and have the pool find what that left.
	 */
	gfp = GFP_KERNEL | __GFP_NOWARN;
	/* Who asks for more than a page does with single ones too. */
	if (order)
		gfp |= __GFP_NORETRY;
	page = alloc_pages(gfp, order);
	if (!page)
		return NULL;
	__free_pages(page, order);
	return page_pool_alloc_pages(pool, GFP_NOWAIT | __GFP_NOWARN);
}

dma_addr_t nd_page_pool_dma_addr(const struct page *page)
{
	return page_pool_get_dma_addr(page);
}

void nd_page_pool_ref(struct page *page)
{
	page_pool_ref_page(page);
}

void nd_page_pool_sync_for_cpu(const struct page *page, u32 offset, u32 len)
{
	dma_sync_single_range_for_cpu(pp_page_to_nmdesc(page)->pp->p.dev,
				      page_pool_get_dma_addr(page), offset, len, DMA_FROM_DEVICE);
}

void nd_page_pool_sync_for_device(const struct page *page, u32 offset, u32 len)
{
	dma_sync_single_range_for_device(pp_page_to_nmdesc(page)->pp->p.dev,
					 page_pool_get_dma_addr(page), offset, len, DMA_FROM_DEVICE);
}

void nd_page_pool_put(struct page *page, bool napi)
{
	page_pool_put_full_page(pp_page_to_nmdesc(page)->pp, page, napi);
}

void *nd_page_address(const struct page *page)
{
	return page_address(page);
}

/* As one that was disabled: nobody can schedule it. */
void nd_napi_init(struct napi_struct *napi)
{
	set_bit(NAPI_STATE_SCHED, &napi->state);
	set_bit(NAPI_STATE_NPSVC, &napi->state);
}

void nd_napi_add(struct net_device *dev, struct napi_struct *napi,
		 int (*poll)(struct napi_struct *napi, int budget), int index)
{
	netif_napi_add_config(dev, napi, poll, index);
}

void nd_napi_del(struct napi_struct *napi)
{
	netif_napi_del(napi);
}

void nd_napi_set_irq(struct napi_struct *napi, int irq)
{
	netif_napi_set_irq(napi, irq);
}

void nd_napi_schedule(struct napi_struct *napi)
{
	/* From process context, softirqs run when bottom halves are enabled again. */
	local_bh_disable();
	napi_schedule(napi);
	local_bh_enable();
}

void nd_napi_schedule_irqoff(struct napi_struct *napi)
{
	napi_schedule_irqoff(napi);
}

void nd_tx_lock(struct netdev_queue *txq)
{
	__netif_tx_lock(txq, smp_processor_id());
}

bool nd_tx_trylock(struct netdev_queue *txq)
{
	return __netif_tx_trylock(txq);
}

void nd_tx_unlock(struct netdev_queue *txq)
{
	__netif_tx_unlock(txq);
}

void nd_tx_lock_bh(struct netdev_queue *txq)
{
	__netif_tx_lock_bh(txq);
}

void nd_tx_unlock_bh(struct netdev_queue *txq)
{
	__netif_tx_unlock_bh(txq);
}

void nd_tx_start(struct netdev_queue *txq)
{
	/* Not only start: after a reset, frames may wait in the queueing discipline. */
	netif_tx_wake_queue(txq);
}

void nd_tx_touch(struct netdev_queue *txq)
{
	txq_trans_cond_update(txq);
}

void nd_tx_stop(struct netdev_queue *txq)
{
	netif_tx_stop_queue(txq);
}

void nd_tx_wake(struct netdev_queue *txq)
{
	netif_tx_wake_queue(txq);
}

bool nd_tx_stopped(const struct netdev_queue *txq)
{
	return netif_tx_queue_stopped(txq);
}

bool nd_tx_sent(struct netdev_queue *txq, u32 bytes, bool more)
{
	return __netdev_tx_sent_queue(txq, bytes, more);
}

void nd_tx_completed(struct netdev_queue *txq, u32 frames, u32 bytes)
{
#ifdef CONFIG_BQL
	/* The core takes more than was sent for a bug in itself. */
	u32 sent = txq->dql.num_queued - txq->dql.num_completed;

	if (WARN_ON_ONCE(bytes > sent))
		bytes = sent;
#endif
	netdev_tx_completed_queue(txq, frames, bytes);
}

void nd_tx_reset(struct netdev_queue *txq)
{
	netdev_tx_reset_queue(txq);
}

void nd_set_unicast_filter(struct net_device *dev)
{
	dev->priv_flags |= IFF_UNICAST_FLT;
}

void nd_random_mac(u8 *mac)
{
	eth_random_addr(mac);
}

void nd_set_mac(struct net_device *dev, const u8 *mac)
{
	eth_hw_addr_set(dev, mac);
}

void nd_timer_setup(struct timer_list *timer, void (*function)(struct timer_list *))
{
	timer_setup(timer, function, 0);
}

void nd_timer_start(struct timer_list *timer, unsigned long jiffies_from_now)
{
	mod_timer(timer, jiffies + jiffies_from_now);
}

void nd_work_init(struct work_struct *work, void (*function)(struct work_struct *))
{
	INIT_WORK(work, function);
}

void nd_work_schedule(struct work_struct *work)
{
	schedule_work(work);
}

void nd_dim_stop(struct dim *dim)
{
	cancel_work_sync(&dim->work);
	/* Work that was canceled is not going to say that it is done. */
	dim->state = DIM_START_MEASURE;
}

void nd_dim(struct dim *dim, u16 events, u64 packets, u64 bytes)
{
	struct dim_sample sample = {};

	dim_update_sample(events, packets, bytes, &sample);
	net_dim(dim, &sample);
}

/* Begins anew with the first profile. */
void nd_dim_restart(struct dim *dim)
{
	/* The work of a decision is on its way: the next time will do. */
	if (dim->state == DIM_APPLY_NEW_PROFILE)
		return;
	dim->state = DIM_START_MEASURE;
	if (!dim->profile_ix)
		return;
	dim->profile_ix = 0;
	dim->state = DIM_APPLY_NEW_PROFILE;
	schedule_work(&dim->work);
}

/* Where the compiler has an address space for these, a cast does not lead there directly. */
static u64 __percpu *nd_percpu(const u64 *base)
{
	return (u64 __percpu *)(uintptr_t)base;
}

u64 *nd_percpu_alloc(size_t count)
{
	return (u64 *)(__force uintptr_t)__alloc_percpu(count * sizeof(u64), __alignof__(u64));
}

void nd_percpu_free(u64 *base)
{
	free_percpu(nd_percpu(base));
}

void nd_percpu_add(u64 *base, size_t index, u64 n)
{
	this_cpu_add(nd_percpu(base)[index], n);
}

u64 nd_percpu_sum(const u64 *base, size_t index)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(nd_percpu(base) + index, cpu));
	return sum;
}

u32 nd_online_cpus(void)
{
	return num_online_cpus();
}

void nd_set_parent_node(struct net_device *dev)
{
	set_dev_node(&dev->dev, dev_to_node(dev->dev.parent));
}

u32 nd_local_cpu(const struct device *dev, u32 i)
{
	return cpumask_local_spread(i, dev_to_node((struct device *)dev));
}

void nd_irq_hint(u32 irq, const struct cpumask *mask)
{
	irq_update_affinity_hint(irq, mask);
}

const struct cpumask *nd_cpumask_of(u32 cpu)
{
	return cpumask_of(cpu);
}

/* What Rust has itself since 7.3, from here */
void nd_mb(void)
{
	mb();
}

void nd_dma_rmb(void)
{
	dma_rmb();
}

void nd_dma_wmb(void)
{
	dma_wmb();
}

unsigned long nd_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

bool nd_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

void nd_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}
/* to here. */

/* That of the module that this is linked into. */
void nd_driver_name(struct ethtool_drvinfo *info)
{
	strscpy(info->driver, module_name(THIS_MODULE));
}

bool nd_running(const struct net_device *dev)
{
	return netif_running(dev);
}

bool nd_present(const struct net_device *dev)
{
	return netif_device_present(dev);
}
