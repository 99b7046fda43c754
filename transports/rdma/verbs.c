//go:build linux && cgo && rdma

#define _GNU_SOURCE
#include "verbs.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

// The headers wrap these two in inline functions that would need the library when we are linked.
#undef ibv_query_port
#undef ibv_reg_mr

_Static_assert(sizeof(kh_wr) == 64, "kh_wr is laid out as in Go");
_Static_assert(sizeof(kh_rr) == 24, "kh_rr is laid out as in Go");
_Static_assert(sizeof(kh_wc) == 32, "kh_wc is laid out as in Go");
_Static_assert(sizeof(kh_port) == 32, "kh_port is laid out as in Go");

// The library's functions, by name; those of the data path are inline in its headers and call the provider.
#define FUNCTIONS(F) \
	F(ibv_get_device_list) F(ibv_free_device_list) F(ibv_get_device_name) F(ibv_open_device) F(ibv_close_device) \
	F(ibv_query_device) F(ibv_query_port) F(ibv_alloc_pd) F(ibv_dealloc_pd) F(ibv_reg_mr) F(ibv_dereg_mr) \
	F(ibv_create_comp_channel) F(ibv_destroy_comp_channel) F(ibv_create_cq) F(ibv_destroy_cq) F(ibv_get_cq_event) \
	F(ibv_ack_cq_events) F(ibv_create_srq) F(ibv_destroy_srq) F(ibv_create_qp) F(ibv_destroy_qp) F(ibv_modify_qp) \
	F(ibv_query_qp) F(ibv_create_ah) F(ibv_destroy_ah) F(ibv_attach_mcast) F(ibv_detach_mcast) \
	F(ibv_get_async_event) F(ibv_ack_async_event) F(ibv_wc_status_str)

#define DECLARE(name) static __typeof__(name) *lib_##name;
FUNCTIONS(DECLARE)

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static int loaded;

// why puts the last error of dlopen or dlsym into buf.
static const char *why(char *buf, int size) {
	const char *text = dlerror();
	snprintf(buf, size, "%s", text ? text : "libibverbs.so.1 cannot be opened");
	return buf;
}

static const char *load(char *buf, int size) {
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!lib)
		return why(buf, size);
#define FIND(name) \
	if (!(lib_##name = (__typeof__(lib_##name))dlsym(lib, #name))) \
		return why(buf, size);
	FUNCTIONS(FIND)
	loaded = 1;
	return NULL;
}

const char *kh_load(char *buf, int size) {
	pthread_mutex_lock(&load_lock);
	const char *fault = loaded ? NULL : load(buf, size);
	pthread_mutex_unlock(&load_lock);
	return fault;
}

// code turns the two ways of reporting a failure, a positive errno or -1 with errno set, into the first.
static int code(int ret) {
	if (ret == 0)
		return 0;
	if (ret > 0)
		return ret;
	return errno ? errno : EIO;
}

// made is the result of a function that returns a pointer or NULL with errno set.
static int made(void *p, void **out) {
	*out = p;
	return p ? 0 : (errno ? errno : EIO);
}

static int nonblocking(int fd) {
	int flags = fcntl(fd, F_GETFL);
	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? errno : 0;
}

int kh_open(const char *name, void **ctx) {
	int n = 0, ret = ENODEV;
	errno = 0;
	struct ibv_device **list = lib_ibv_get_device_list(&n);
	if (!list)
		return errno ? errno : ENODEV;
	for (int i = 0; i < n; i++)
		if (strcmp(lib_ibv_get_device_name(list[i]), name) == 0) {
			ret = made(lib_ibv_open_device(list[i]), ctx);
			break;
		}
	lib_ibv_free_device_list(list);
	if (ret == 0 && (ret = nonblocking(((struct ibv_context *)*ctx)->async_fd)) != 0) {
		lib_ibv_close_device(*ctx);
		*ctx = NULL;
	}
	return ret;
}

int kh_close(void *ctx) { return code(lib_ibv_close_device(ctx)); }

int kh_query(void *ctx, uint8_t port, kh_port *out) {
	struct ibv_device_attr dev;
	struct ibv_port_attr at;
	memset(&dev, 0, sizeof dev);
	memset(&at, 0, sizeof at);
	int ret = code(lib_ibv_query_device(ctx, &dev));
	if (ret == 0)
		ret = code(lib_ibv_query_port(ctx, port, (void *)&at));
	if (ret)
		return ret;
	*out = (kh_port){
		.state = at.state, .mtu = 128u << at.active_mtu, .max_msg = at.max_msg_sz, .link_layer = at.link_layer, .lid = at.lid,
		.max_qp_wr = dev.max_qp_wr, .max_srq_wr = dev.max_srq_wr, .max_cqe = dev.max_cqe,
		.max_mcast_grp = dev.max_mcast_grp,
	};
	return 0;
}

int kh_async_fd(void *ctx) { return ((struct ibv_context *)ctx)->async_fd; }

int kh_async(void *ctx) {
	struct ibv_async_event event;
	if (lib_ibv_get_async_event(ctx, &event))
		return -(errno ? errno : EIO);
	lib_ibv_ack_async_event(&event);
	return event.event_type;
}

int kh_alloc_pd(void *ctx, void **pd) { return made(lib_ibv_alloc_pd(ctx), pd); }
int kh_dealloc_pd(void *pd) { return code(lib_ibv_dealloc_pd(pd)); }

int kh_reg_mr(void *pd, uint64_t addr, uint64_t len, int remote_write, void **mr) {
	int access = IBV_ACCESS_LOCAL_WRITE | (remote_write ? IBV_ACCESS_REMOTE_WRITE : 0);
	return made(lib_ibv_reg_mr(pd, (void *)(uintptr_t)addr, len, access), mr);
}

int kh_dereg_mr(void *mr) { return code(lib_ibv_dereg_mr(mr)); }
uint32_t kh_lkey(void *mr) { return ((struct ibv_mr *)mr)->lkey; }
uint32_t kh_rkey(void *mr) { return ((struct ibv_mr *)mr)->rkey; }

int kh_create_channel(void *ctx, void **channel) {
	int ret = made(lib_ibv_create_comp_channel(ctx), channel);
	if (ret == 0 && (ret = nonblocking(((struct ibv_comp_channel *)*channel)->fd)) != 0) {
		lib_ibv_destroy_comp_channel(*channel);
		*channel = NULL;
	}
	return ret;
}

int kh_destroy_channel(void *channel) { return code(lib_ibv_destroy_comp_channel(channel)); }
int kh_channel_fd(void *channel) { return ((struct ibv_comp_channel *)channel)->fd; }

int kh_create_cq(void *ctx, int entries, void *channel, void **cq) {
	return made(lib_ibv_create_cq(ctx, entries, NULL, channel, 0), cq);
}

int kh_destroy_cq(void *cq) { return code(lib_ibv_destroy_cq(cq)); }
int kh_arm(void *cq) { return code(ibv_req_notify_cq(cq, 0)); }

void kh_take_events(void *channel) {
	struct ibv_cq *cq;
	void *context;
	while (lib_ibv_get_cq_event(channel, &cq, &context) == 0)
		lib_ibv_ack_cq_events(cq, 1);
}

int kh_create_srq(void *pd, int depth, void **srq) {
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = depth, .max_sge = 1}};
	return made(lib_ibv_create_srq(pd, &attr), srq);
}

int kh_destroy_srq(void *srq) { return code(lib_ibv_destroy_srq(srq)); }

int kh_create_ud(void *pd, void *scq, void *rcq, void *srq, int depth, uint32_t *inline_max, void **qp) {
	for (;;) {
		struct ibv_qp_init_attr attr = {
			.send_cq = scq, .recv_cq = rcq, .srq = srq, .qp_type = IBV_QPT_UD,
			.cap = {.max_send_wr = depth, .max_send_sge = 1, .max_inline_data = *inline_max},
		};
		int ret = made(lib_ibv_create_qp(pd, &attr), qp);
		if (ret == 0 || *inline_max == 0)
			return ret;
		*inline_max /= 2;
	}
}

int kh_create_rc(void *pd, void *scq, void *rcq, void *srq, int send_depth, int recv_depth, void **qp) {
	struct ibv_qp_init_attr attr = {
		.send_cq = scq, .recv_cq = rcq, .srq = srq, .qp_type = IBV_QPT_RC,
		.cap = {.max_send_wr = send_depth, .max_send_sge = 1, .max_recv_wr = recv_depth, .max_recv_sge = 1},
	};
	return made(lib_ibv_create_qp(pd, &attr), qp);
}

int kh_destroy_qp(void *qp) { return code(lib_ibv_destroy_qp(qp)); }
uint32_t kh_qp_num(void *qp) { return ((struct ibv_qp *)qp)->qp_num; }

int kh_qp_state(void *qp) {
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	int ret = code(lib_ibv_query_qp(qp, &attr, IBV_QP_STATE, &init));
	return ret ? -ret : (int)attr.qp_state;
}

// to_state changes nothing but the state.
static int to_state(void *qp, enum ibv_qp_state state) {
	struct ibv_qp_attr attr = {.qp_state = state};
	return code(lib_ibv_modify_qp(qp, &attr, IBV_QP_STATE));
}

int kh_ud_ready(void *qp, uint8_t port, uint32_t qkey) {
	struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .pkey_index = 0, .port_num = port, .qkey = qkey};
	struct ibv_qp_attr send = {.qp_state = IBV_QPS_RTS, .sq_psn = 0};
	int ret = to_state(qp, IBV_QPS_RESET);
	if (ret == 0)
		ret = code(lib_ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY));
	if (ret == 0)
		ret = to_state(qp, IBV_QPS_RTR);
	if (ret == 0)
		ret = code(lib_ibv_modify_qp(qp, &send, IBV_QP_STATE | IBV_QP_SQ_PSN));
	return ret;
}

int kh_ud_resume(void *qp) { return to_state(qp, IBV_QPS_RTS); }
int kh_fail(void *qp) { return to_state(qp, IBV_QPS_ERR); }

int kh_rc_init(void *qp, uint8_t port, int remote_write) {
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .pkey_index = 0, .port_num = port,
		.qp_access_flags = remote_write ? IBV_ACCESS_REMOTE_WRITE : 0,
	};
	return code(lib_ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
}

// path is the way to a peer. There is a global header always: RoCE needs it, and it carries the sender's address.
static struct ibv_ah_attr path(const kh_peer *p) {
	struct ibv_ah_attr at = {
		.is_global = 1, .port_num = p->port, .grh = {.sgid_index = p->sgid_index, .hop_limit = p->hop_limit},
		.dlid = p->dlid, .sl = p->sl, .static_rate = p->rate,
	};
	memcpy(at.grh.dgid.raw, p->dgid, sizeof at.grh.dgid.raw);
	return at;
}

// mtu_code returns the code of the largest path MTU up to bytes.
static enum ibv_mtu mtu_code(uint32_t bytes) {
	int c = IBV_MTU_4096;
	while (c > IBV_MTU_256 && (128u << c) > bytes)
		c--;
	return c;
}

int kh_rc_connect(void *qp, const kh_peer *p) {
	struct ibv_qp_attr receive = {
		.qp_state = IBV_QPS_RTR, .path_mtu = mtu_code(p->mtu), .dest_qp_num = p->qpn, .rq_psn = p->psn,
		.max_dest_rd_atomic = 1, .min_rnr_timer = 12, .ah_attr = path(p),
	};
	struct ibv_qp_attr send = {
		.qp_state = IBV_QPS_RTS, .timeout = p->timeout, .retry_cnt = p->retry, .rnr_retry = p->rnr_retry,
		.sq_psn = p->my_psn, .max_rd_atomic = 1,
	};
	int ret = code(lib_ibv_modify_qp(qp, &receive, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
		IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	if (ret == 0)
		ret = code(lib_ibv_modify_qp(qp, &send, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
	return ret;
}

int kh_create_ah(void *pd, const kh_peer *p, void **ah) {
	struct ibv_ah_attr at = path(p);
	return made(lib_ibv_create_ah(pd, &at), ah);
}

int kh_destroy_ah(void *ah) { return code(lib_ibv_destroy_ah(ah)); }

int kh_attach(void *qp, const uint8_t *gid, uint16_t lid) {
	union ibv_gid g;
	memcpy(g.raw, gid, sizeof g.raw);
	return code(lib_ibv_attach_mcast(qp, &g, lid));
}

int kh_detach(void *qp, const uint8_t *gid, uint16_t lid) {
	union ibv_gid g;
	memcpy(g.raw, gid, sizeof g.raw);
	return code(lib_ibv_detach_mcast(qp, &g, lid));
}

enum { CHAIN = 64 }; // work requests that are linked and posted at a time

// fill makes a work request of the library's form.
static void fill(const kh_wr *w, struct ibv_send_wr *to, struct ibv_sge *sge) {
	*sge = (struct ibv_sge){.addr = w->addr, .length = w->len, .lkey = w->lkey};
	*to = (struct ibv_send_wr){.wr_id = w->id, .sg_list = sge, .num_sge = w->len > 0};
	if (w->flags & KH_SIGNALED)
		to->send_flags |= IBV_SEND_SIGNALED;
	if (w->flags & KH_INLINE)
		to->send_flags |= IBV_SEND_INLINE;
	switch (w->op) {
	case KH_FRAME:
		to->opcode = IBV_WR_SEND;
		return;
	case KH_SEND:
	case KH_TELL:
		to->opcode = w->op == KH_SEND ? IBV_WR_SEND_WITH_IMM : IBV_WR_SEND;
		to->imm_data = htonl(w->imm);
		to->wr.ud.ah = (struct ibv_ah *)(uintptr_t)w->ah;
		to->wr.ud.remote_qpn = w->qpn;
		to->wr.ud.remote_qkey = w->qkey;
		return;
	case KH_WRITE_IMM:
		to->imm_data = htonl(w->imm);
	}
	to->opcode = w->op == KH_WRITE ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_WRITE_WITH_IMM;
	to->wr.rdma.remote_addr = w->remote;
	to->wr.rdma.rkey = w->rkey;
}

// post posts n work requests, CHAIN at a time, and returns how many it posted.
static int post(struct ibv_qp *qp, const kh_wr *wr, int n, int *err) {
	struct ibv_send_wr list[CHAIN], *bad;
	struct ibv_sge sges[CHAIN];
	*err = 0;
	for (int done = 0; done < n;) {
		int k = n - done < CHAIN ? n - done : CHAIN;
		for (int i = 0; i < k; i++) {
			fill(&wr[done + i], &list[i], &sges[i]);
			list[i].next = i + 1 < k ? &list[i + 1] : NULL;
		}
		bad = NULL;
		if ((*err = code(ibv_post_send(qp, list, &bad))) != 0)
			return done + (bad ? bad - list : 0);
		done += k;
	}
	return n;
}

// poll takes up to max completions.
static int poll(struct ibv_cq *cq, kh_wc *out, int max) {
	struct ibv_wc wc[CHAIN];
	int total = 0;
	while (total < max) {
		int k = ibv_poll_cq(cq, max - total < CHAIN ? max - total : CHAIN, wc);
		if (k < 0)
			return total ? total : -EIO;
		for (int i = 0; i < k; i++) {
			uint32_t flags = (wc[i].wc_flags & IBV_WC_GRH ? KH_GRH : 0) | (wc[i].wc_flags & IBV_WC_WITH_IMM ? KH_IMM : 0);
			out[total + i] = (kh_wc){
				.id = wc[i].wr_id, .status = wc[i].status, .pair = wc[i].qp_num, .len = wc[i].byte_len,
				.qpn = wc[i].src_qp, .imm = ntohl(wc[i].imm_data), .flags = flags | (uint32_t)wc[i].slid << 16,
			};
		}
		total += k;
		if (k == 0)
			break;
	}
	return total;
}

int kh_send(void *qp, void *cq, const kh_wr *wr, int n, int *posted, int *err, kh_wc *out, int max) {
	*posted = post(qp, wr, n, err);
	return poll(cq, out, max);
}

int kh_receive(void *srq, void *cq, const kh_rr *rr, int n, int *posted, int *err, kh_wc *out, int max) {
	struct ibv_recv_wr list[CHAIN], *bad;
	struct ibv_sge sges[CHAIN];
	*err = 0;
	for (*posted = 0; *posted < n;) {
		int k = n - *posted < CHAIN ? n - *posted : CHAIN;
		for (int i = 0; i < k; i++) {
			const kh_rr *r = &rr[*posted + i];
			sges[i] = (struct ibv_sge){.addr = r->addr, .length = r->len, .lkey = r->lkey};
			list[i] = (struct ibv_recv_wr){.wr_id = r->id, .sg_list = &sges[i], .num_sge = 1};
			list[i].next = i + 1 < k ? &list[i + 1] : NULL;
		}
		bad = NULL;
		if ((*err = code(ibv_post_srq_recv(srq, list, &bad))) != 0) {
			*posted += bad ? bad - list : 0;
			break;
		}
		*posted += k;
	}
	return max ? poll(cq, out, max) : 0;
}

int kh_post_empty(void *qp, int n) {
	struct ibv_recv_wr wr = {.wr_id = 0}, *bad;
	for (int i = 0; i < n; i++) {
		int ret = code(ibv_post_recv(qp, &wr, &bad));
		if (ret)
			return ret;
	}
	return 0;
}

const char *kh_status(int status) { return lib_ibv_wc_status_str(status); }
