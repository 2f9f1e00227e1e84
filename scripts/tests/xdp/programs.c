// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0
/*
 * XDP programs for scripts/tests/xdp.sh, each to be loaded by its name: for frames of one buffer,
 * and with "_frags" for frames of several.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

#define SEC(name) __attribute__((section(name), used))
#define BOTH(name)                                                      \
	SEC("xdp") int name(struct xdp_md *ctx) { return do_##name(ctx); } \
	SEC("xdp.frags") int name##_frags(struct xdp_md *ctx) { return do_##name(ctx); }

static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)BPF_FUNC_redirect;
static long (*bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)BPF_FUNC_xdp_adjust_head;
static __u64 (*bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)BPF_FUNC_xdp_get_buff_len;
static long (*bpf_xdp_load_bytes)(struct xdp_md *ctx, __u32 offset, void *buf, __u32 len) =
	(void *)BPF_FUNC_xdp_load_bytes;
static long (*bpf_xdp_store_bytes)(struct xdp_md *ctx, __u32 offset, void *buf, __u32 len) =
	(void *)BPF_FUNC_xdp_store_bytes;

#define DATA(ctx) ((void *)(long)(ctx)->data)
#define END(ctx) ((void *)(long)(ctx)->data_end)

#define always __attribute__((always_inline)) static inline

always int do_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
BOTH(pass)

/* <linux/icmp.h> wants a C library. */
#define ICMP_ECHO 8
#define ICMP_ECHOREPLY 0
struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 checksum;
};

struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct icmphdr icmp;
} __attribute__((packed));

/* The headers of an echo request without IP options. */
always struct headers *echo_request(struct xdp_md *ctx)
{
	struct headers *h = DATA(ctx);

	if ((void *)(h + 1) > END(ctx) || h->eth.h_proto != __builtin_bswap16(ETH_P_IP) ||
	    h->ip.ihl != 5 || h->ip.protocol != IPPROTO_ICMP || h->icmp.type != ICMP_ECHO)
		return 0;
	return h;
}

/* All that depends on the verdict is for echo requests only: ARP has to go on working. */
always int do_drop(struct xdp_md *ctx)
{
	return echo_request(ctx) ? XDP_DROP : XDP_PASS;
}
BOTH(drop)

always int do_fail(struct xdp_md *ctx)
{
	return echo_request(ctx) ? XDP_ABORTED : XDP_PASS;
}
BOTH(fail)

/* No such verdict. */
always int do_nonsense(struct xdp_md *ctx)
{
	return echo_request(ctx) ? 77 : XDP_PASS;
}
BOTH(nonsense)

/* Answers echo requests. */
always int do_answer(struct xdp_md *ctx)
{
	struct headers *h = echo_request(ctx);
	unsigned char mac[ETH_ALEN];
	__u32 sum, address;

	if (!h)
		return XDP_PASS;
	__builtin_memcpy(mac, h->eth.h_dest, ETH_ALEN);
	__builtin_memcpy(h->eth.h_dest, h->eth.h_source, ETH_ALEN);
	__builtin_memcpy(h->eth.h_source, mac, ETH_ALEN);
	address = h->ip.saddr;
	h->ip.saddr = h->ip.daddr;
	h->ip.daddr = address;
	h->icmp.type = ICMP_ECHOREPLY;
	/* What the type no longer adds to it. */
	sum = h->icmp.checksum + (__u32)__builtin_bswap16(ICMP_ECHO << 8);
	h->icmp.checksum = sum + (sum >> 16);
	return XDP_TX;
}
BOTH(answer)

/*
 * Swaps the last two pairs of bytes of a long echo request, wherever in the frame they are: the
 * checksum stays right, and whoever compares the data sees it.
 */
always int do_swap(struct xdp_md *ctx)
{
	__u64 len = bpf_xdp_get_buff_len(ctx);
	__u16 pairs[2], first;

	if (!echo_request(ctx) || len < 1000 || len & 1)
		return XDP_PASS;
	if (bpf_xdp_load_bytes(ctx, len - 4, pairs, 4))
		return XDP_ABORTED;
	first = pairs[0];
	pairs[0] = pairs[1];
	pairs[1] = first;
	if (bpf_xdp_store_bytes(ctx, len - 4, pairs, 4))
		return XDP_ABORTED;
	return XDP_PASS;
}
BOTH(swap)

/* Moves the start of every frame forth and back by as much as the kernel promises to have there. */
always int do_move(struct xdp_md *ctx)
{
	const int room = 256 - 40; /* struct xdp_frame takes its part */

	if (bpf_xdp_adjust_head(ctx, -room) || bpf_xdp_adjust_head(ctx, room))
		return XDP_ABORTED;
	return XDP_PASS;
}
BOTH(move)

/* To the other one of interfaces 2 and 3. */
always int do_across(struct xdp_md *ctx)
{
	return bpf_redirect(ctx->ingress_ifindex ^ 1, 0);
}
BOTH(across)

/* To interface 2. */
always int do_out(struct xdp_md *ctx)
{
	return bpf_redirect(2, 0);
}
BOTH(out)

/* To an interface that cannot be there. */
always int do_nowhere(struct xdp_md *ctx)
{
	return echo_request(ctx) ? bpf_redirect(0x7fffffff, 0) : XDP_PASS;
}
BOTH(nowhere)

SEC("license") char licence[] = "GPL";
