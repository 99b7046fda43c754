//go:build linux && cgo && rdma

// The thin shim over libibverbs, which is opened when it is first needed: a binary runs where there is none, and says
// so. The records below are laid out alike in C and in Go. Whatever is called once per batch takes arrays of them in
// memory outside the Go heap; addresses are integers, so no Go pointer crosses.

#ifndef KHAMSIN_VERBS_H
#define KHAMSIN_VERBS_H

#include <stdint.h>

// A work request of the send queue.
typedef struct {
	uint64_t id;
	uint64_t addr; // local bytes
	uint64_t ah;   // UD: address handle
	uint64_t remote; // RC: remote address
	uint32_t len;
	uint32_t lkey;
	uint32_t qpn;  // UD: destination
	uint32_t qkey; // UD
	uint32_t rkey; // RC
	uint32_t imm;
	uint32_t op; // KH_SEND …
	uint32_t flags; // KH_SIGNALED …
} kh_wr;

enum { KH_SEND, KH_WRITE, KH_WRITE_IMM, KH_TELL, KH_FRAME }; // TELL: UD without a number; FRAME: RC
enum { KH_SIGNALED = 1, KH_INLINE = 2 };

// A receive buffer to post.
typedef struct {
	uint64_t id;
	uint64_t addr;
	uint32_t len;
	uint32_t lkey;
} kh_rr;

// A work completion.
typedef struct {
	uint64_t id;
	uint32_t status;
	uint32_t pair; // the number of the queue pair here
	uint32_t len;
	uint32_t qpn; // UD: of the sender
	uint32_t imm;
	uint32_t flags; // KH_GRH …; the upper half is the lid of the sender
} kh_wc;

enum { KH_GRH = 1, KH_IMM = 2 };

// What a device and a port of it can do.
typedef struct {
	int32_t state; // 4 is active
	uint32_t mtu;  // bytes
	uint32_t max_msg;
	uint16_t link_layer; // 1 is InfiniBand
	uint16_t lid;
	int32_t max_qp_wr, max_srq_wr, max_cqe, max_mcast_grp;
} kh_port;

// How a queue pair is connected.
typedef struct {
	uint8_t dgid[16];
	uint32_t qpn, psn, my_psn, mtu;
	uint8_t port, sgid_index, hop_limit, timeout, retry, rnr_retry;
	uint16_t dlid;   // InfiniBand: the destination's lid
	uint8_t sl, rate; // and of the way there, service level and rate
} kh_peer;

// Every function that returns int returns 0 or a positive errno, unless it says otherwise.

// Opens the library. Returns NULL, or what is wrong, in buf.
const char *kh_load(char *buf, int size);

int kh_open(const char *name, void **ctx);
int kh_close(void *ctx);
int kh_query(void *ctx, uint8_t port, kh_port *out);
int kh_async_fd(void *ctx);
// Takes the next asynchronous event: returns its type, or a negative errno.
int kh_async(void *ctx);

int kh_alloc_pd(void *ctx, void **pd);
int kh_dealloc_pd(void *pd);
int kh_reg_mr(void *pd, uint64_t addr, uint64_t len, int remote_write, void **mr);
int kh_dereg_mr(void *mr);
uint32_t kh_lkey(void *mr);
uint32_t kh_rkey(void *mr);

int kh_create_channel(void *ctx, void **channel);
int kh_destroy_channel(void *channel);
int kh_channel_fd(void *channel);
int kh_create_cq(void *ctx, int entries, void *channel, void **cq);
int kh_destroy_cq(void *cq);
int kh_arm(void *cq);
// Takes and acknowledges all events that wait. The descriptor does not block.
void kh_take_events(void *channel);

int kh_create_srq(void *pd, int depth, void **srq);
int kh_destroy_srq(void *srq);
// Tries inline sends of *inline_max bytes and less; says what it got.
int kh_create_ud(void *pd, void *scq, void *rcq, void *srq, int depth, uint32_t *inline_max, void **qp);
// With a shared receive queue recv_depth is of no meaning.
int kh_create_rc(void *pd, void *scq, void *rcq, void *srq, int send_depth, int recv_depth, void **qp);
int kh_destroy_qp(void *qp);
uint32_t kh_qp_num(void *qp);
// The state as libibverbs numbers it, or a negative errno.
int kh_qp_state(void *qp);
int kh_ud_ready(void *qp, uint8_t port, uint32_t qkey); // from any state to ready to send
int kh_ud_resume(void *qp);                             // from send queue error to ready to send
int kh_fail(void *qp);                                  // to the error state
int kh_rc_init(void *qp, uint8_t port, int remote_write);
int kh_rc_connect(void *qp, const kh_peer *p);

int kh_create_ah(void *pd, const kh_peer *p, void **ah);
int kh_destroy_ah(void *ah);
int kh_attach(void *qp, const uint8_t *gid, uint16_t lid); // InfiniBand: the group's lid
int kh_detach(void *qp, const uint8_t *gid, uint16_t lid);

// Posts n work requests, then takes up to max completions of cq, in one call. posted says how many were posted;
// when those are not all, *err is the errno of the next one. Returns how many completions, or a negative errno.
int kh_send(void *qp, void *cq, const kh_wr *wr, int n, int *posted, int *err, kh_wc *out, int max);
// The same of a shared receive queue.
int kh_receive(void *srq, void *cq, const kh_rr *rr, int n, int *posted, int *err, kh_wc *out, int max);
// Posts n receives without a buffer to a queue pair.
int kh_post_empty(void *qp, int n);

const char *kh_status(int status);

#endif
