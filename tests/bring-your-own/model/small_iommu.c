/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "small_iommu.h"

#include <stdlib.h>
#include <string.h>

/* Registers (VT-d 11.4). */
enum {
	VER = 0x00, CAP = 0x08, ECAP = 0x10, GCMD = 0x18, GSTS = 0x1c, RTADDR = 0x20, FSTS = 0x34,
	FECTL = 0x38, IQH = 0x80, IQT = 0x88, IQA = 0x90, ICS = 0x9c, IECTL = 0xa0, PQH = 0xc0,
	PQT = 0xc8, PQA = 0xd0, PRS = 0xdc, PECTL = 0xe0, FRCD = 0x400, END = 0x1000,
};
#define TE (1u << 31)
#define RTP (1u << 30)
#define QIE (1u << 26)
#define PFO (1u << 0)
#define PPF (1u << 1)
#define IQE (1u << 4)
#define PPR (1u << 0)
#define PRO (1u << 1)
#define MASKED (1u << 31)
#define FAULT (1ull << 63)
#define POINTER(word) ((word) & ~0xfffull)

/* Fault reasons (VT-d, table 30). */
enum {
	ROOT_ACCESS = 0x38, ROOT_ABSENT = 0x39, CONTEXT_ACCESS = 0x40, CONTEXT_ABSENT = 0x41,
	ATS_DISABLED = 0x44, PASID_DISABLED = 0x45, DIRECTORY_ACCESS = 0x50, DIRECTORY_ABSENT = 0x51,
	PASID_ACCESS = 0x58, PASID_ABSENT = 0x59, PASID_INVALID = 0x5b, SUPERVISOR = 0x5d,
	ENTRY_ACCESS = 0x70, ENTRY_ABSENT = 0x71, ENTRY_RESERVED = 0x72, NOT_CANONICAL = 0x80,
	USER = 0x81, NO_WRITE = 0x85, INTERRUPT_RANGE = 0x87,
};

struct small_iommu {
	uint32_t registers[END / 4];
	/* Tags of invalidation requests that are not complete. */
	uint32_t pending;
	bool one_gib_pages;
};

static uint64_t get(const struct small_iommu *u, uint16_t at)
{
	return u->registers[at / 4] | (uint64_t)u->registers[at / 4 + 1] << 32;
}

static void set(struct small_iommu *u, uint16_t at, uint64_t value)
{
	u->registers[at / 4] = (uint32_t)value;
	u->registers[at / 4 + 1] = (uint32_t)(value >> 32);
}

void small_iommu_reset(struct small_iommu *u)
{
	memset(u->registers, 0, sizeof(u->registers));
	u->pending = 0;
	u->registers[VER / 4] = 0x10;
	/* 16-bit domains, 48-bit addresses, one fault record, page-selective, draining. */
	set(u, CAP, 6 | 1ull << 10 | 47ull << 16 | (uint64_t)FRCD / 16 << 24 | 1ull << 39 |
		    18ull << 48 | 3ull << 54 | (uint64_t)u->one_gib_pages << 56);
	/* Queue, device TLBs, page requests, no-write flag, 20-bit PASIDs, scalable mode, a first
	 * stage, coherent walks. */
	set(u, ECAP, 1 | 1 << 1 | 1 << 2 | 1ull << 29 | 1ull << 33 | 19ull << 35 | 1ull << 40 |
		     1ull << 43 | 1ull << 47 | 1ull << 48);
	u->registers[FECTL / 4] = u->registers[IECTL / 4] = u->registers[PECTL / 4] = MASKED;
}

struct small_iommu *small_iommu_new(bool one_gib_pages)
{
	struct small_iommu *u = calloc(1, sizeof(*u));

	if (u) {
		u->one_gib_pages = one_gib_pages;
		small_iommu_reset(u);
	}
	return u;
}

void small_iommu_free(struct small_iommu *u)
{
	free(u);
}

/* Faults. */

static void record(struct small_iommu *u, const struct small_request *r, uint8_t reason)
{
	bool pasid = r->pasid != SMALL_NO_PASID;
	bool t1 = r->kind != SMALL_WRITE, t2 = r->kind == SMALL_ATOMIC;

	if (get(u, FRCD + 8) & FAULT) {
		u->registers[FSTS / 4] |= PFO;
		return;
	}
	set(u, FRCD, POINTER(r->address));
	set(u, FRCD + 8, FAULT | (uint64_t)t1 << 62 | (uint64_t)r->type << 60 |
			 (pasid ? (uint64_t)r->pasid << 40 | 1ull << 31 : 0) |
			 (uint64_t)reason << 32 | (uint64_t)r->privileged << 29 |
			 (uint64_t)t2 << 28 | r->requester);
	u->registers[FSTS / 4] |= PPF;
}

/* Tables. Each step returns a fault reason, or 0. */

static uint8_t context_entry(struct small_iommu *u, const struct small_bus *bus,
			     uint16_t requester, uint64_t *entry)
{
	uint64_t root = POINTER(get(u, RTADDR)), devfn = requester & 0xff, half;

	if (!bus->load(bus->opaque, root + (requester >> 8) * 16 + devfn / 128 * 8, &half))
		return ROOT_ACCESS;
	if (!(half & 1))
		return ROOT_ABSENT;
	if (!bus->load(bus->opaque, POINTER(half) + devfn % 128 * 32, entry))
		return CONTEXT_ACCESS;
	return *entry & 1 ? 0 : CONTEXT_ABSENT;
}

/* The words of a PASID table entry. */
static uint8_t pasid_entry(const struct small_bus *bus, uint64_t context, uint32_t pasid,
			   uint64_t words[3])
{
	uint64_t directory, place;

	/* PDTS says how long the directory is: not looked at. */
	if (!bus->load(bus->opaque, POINTER(context) + (pasid >> 6) * 8, &directory))
		return DIRECTORY_ACCESS;
	if (!(directory & 1))
		return DIRECTORY_ABSENT;
	place = POINTER(directory) + (pasid & 63) * 64;
	for (int n = 0; n < 3; n++)
		if (!bus->load(bus->opaque, place + n * 8, &words[n]))
			return PASID_ACCESS;
	if (!(words[0] & 1))
		return PASID_ABSENT;
	/* Reserved bits are not looked at. The only type is the first stage, of four levels. */
	return (words[0] >> 6 & 7) == 1 && !(words[2] >> 2 & 3) ? 0 : PASID_INVALID;
}

/* Walks the first stage. */
static uint8_t walk(struct small_iommu *u, const struct small_bus *bus,
		    const struct small_request *r, uint64_t table, struct small_translation *t)
{
	bool writable = true, user = true, wanted = r->kind == SMALL_WRITE || r->kind == SMALL_ATOMIC;
	uint64_t upper = r->address >> 47;

	t->size_log2 = 12;
	if (upper && upper != 0x1ffff)
		return NOT_CANONICAL;
	for (int shift = 39;; shift -= 9) {
		uint64_t place = table + (r->address >> shift & 511) * 8, entry;

		if (!bus->load(bus->opaque, place, &entry))
			return ENTRY_ACCESS;
		if (!(entry & 1))
			return ENTRY_ABSENT;
		writable &= entry >> 1 & 1;
		user &= entry >> 2 & 1;
		if (!(entry & 1 << 5))
			bus->store(bus->opaque, place, entry | 1 << 5);
		if (shift == 39 || (shift > 12 && !(entry & 1 << 7))) {
			table = entry & 0xffffffffff000;
			continue;
		}
		if (shift == 30 && !u->one_gib_pages)
			return ENTRY_RESERVED;
		if (!user && !r->privileged)
			return USER;
		if (r->type == SMALL_UNTRANSLATED && wanted && !writable)
			return NO_WRITE;
		/* D, if the page may be written to now. */
		if (wanted && writable && !(entry & 1 << 6))
			bus->store(bus->opaque, place, entry | 3 << 5);
		t->size_log2 = shift;
		t->address = entry & 0xffffffffff000 & ~((1ull << shift) - 1);
		t->read = true;
		t->write = wanted && writable;
		return (t->address ^ 0xfee00000) >> 20 ? 0 : INTERRUPT_RANGE;
	}
}

static uint8_t translate(struct small_iommu *u, const struct small_bus *bus,
			 const struct small_request *r, struct small_translation *t)
{
	uint64_t context, words[3];
	uint8_t reason = context_entry(u, bus, r->requester, &context);

	if (reason)
		return reason;
	if (r->type != SMALL_UNTRANSLATED && !(context & 1 << 2))
		return ATS_DISABLED;
	if (r->type == SMALL_TRANSLATED)
		return r->pasid == SMALL_NO_PASID ? 0 : PASID_DISABLED;
	if (r->pasid != SMALL_NO_PASID && !(context & 1 << 3))
		return PASID_DISABLED;
	if (r->pasid == SMALL_NO_PASID && r->address >> 20 == 0xfee)
		return INTERRUPT_RANGE;
	/* Requests without PASID are translated as those of PASID 0. */
	reason = pasid_entry(bus, context, r->pasid == SMALL_NO_PASID ? 0 : r->pasid, words);
	if (reason)
		return reason;
	t->privileged = r->privileged;
	if (r->privileged && !(words[2] & 1))
		return SUPERVISOR;
	return walk(u, bus, r, POINTER(words[2]), t);
}

bool small_iommu_access(struct small_iommu *u, const struct small_bus *bus,
			const struct small_request *r, uint64_t *address)
{
	struct small_translation t = { 0 };
	uint8_t reason;

	*address = r->address;
	if (!(u->registers[GSTS / 4] & TE))
		return true;
	reason = translate(u, bus, r, &t);
	if (reason) {
		record(u, r, reason);
		return false;
	}
	if (r->type != SMALL_TRANSLATED)
		*address = t.address | (r->address & ((1ull << t.size_log2) - 1));
	return true;
}

/* One translation of a completion, and the fault reason, or 0. */
static enum small_completion answer_one(struct small_iommu *u, const struct small_bus *bus,
					const struct small_request *r, struct small_translation *t,
					uint8_t *reason)
{
	memset(t, 0, sizeof(*t));
	t->size_log2 = 12;
	*reason = u->registers[GSTS / 4] & TE ? translate(u, bus, r, t) : ATS_DISABLED;
	if (*reason)
		t->read = t->write = false;
	switch (*reason) {
	case 0: case DIRECTORY_ABSENT: case PASID_ABSENT: case SUPERVISOR: case ENTRY_ACCESS:
	case ENTRY_ABSENT: case ENTRY_RESERVED: case NOT_CANONICAL: case USER:
		return SMALL_SUCCESS;
	case ROOT_ABSENT: case CONTEXT_ABSENT: case ATS_DISABLED: case PASID_DISABLED:
		return SMALL_UNSUPPORTED_REQUEST;
	default:
		return SMALL_COMPLETER_ABORT;
	}
}

enum small_completion small_iommu_translate(struct small_iommu *u, const struct small_bus *bus,
					    const struct small_request *request, unsigned pages,
					    struct small_translation *answer, unsigned *count)
{
	struct small_request r = *request;

	for (*count = 0; *count < pages; ++*count) {
		struct small_translation *t = &answer[*count];
		uint8_t reason;
		enum small_completion completion = answer_one(u, bus, &r, t, &reason);

		if (completion != SMALL_SUCCESS && *count == 0) {
			/* Success is not recorded: the answer says what there is not. */
			record(u, &r, reason);
			return completion;
		}
		if (completion != SMALL_SUCCESS || t->size_log2 != answer[0].size_log2)
			break;
		r.address = (r.address | ((1ull << t->size_log2) - 1)) + 1;
		if (!r.address) {
			++*count;
			break;
		}
	}
	return SMALL_SUCCESS;
}

/* Page requests (VT-d 7.4). */

void small_iommu_page_request(struct small_iommu *u, const struct small_bus *bus,
			      const struct small_page_request *p)
{
	uint64_t base = POINTER(get(u, PQA)), size = 4096ull << (get(u, PQA) & 7), context;
	uint64_t tail = get(u, PQT), next = (tail + 32) % size, words[4] = { 1 };
	bool pasid = p->pasid != SMALL_NO_PASID;

	if (context_entry(u, bus, p->requester, &context) || !(context & 1 << 4)) {
		if (p->last)
			bus->respond(bus->opaque, p->requester, p->pasid, p->prgi, 1);
		return;
	}
	if (next == get(u, PQH) || u->registers[PRS / 4] & PRO) {
		u->registers[PRS / 4] |= PRO;
		if (p->last && (p->read || p->write))
			bus->respond(bus->opaque, p->requester, p->pasid, p->prgi, 0);
		return;
	}
	words[0] |= (uint64_t)p->requester << 16 | (uint64_t)p->privileged << 53 |
		    (uint64_t)(p->execute && p->read && pasid) << 52;
	if (pasid)
		words[0] |= 1 << 8 | (uint64_t)p->pasid << 32;
	words[1] = POINTER(p->address) | p->prgi << 3 | p->last << 2 | p->write << 1 | p->read;
	for (int n = 0; n < 4; n++)
		bus->store(bus->opaque, base + tail + n * 8, words[n]);
	set(u, PQT, next);
	u->registers[PRS / 4] |= PPR;
}

/* The invalidation queue (VT-d 6.5.2). */

enum step { DONE, WAIT, ERROR };

static enum step device_tlb(struct small_iommu *u, const struct small_bus *bus, uint16_t requester,
			    uint32_t pasid, uint64_t address, bool s, bool global)
{
	uint8_t tag = 0;

	while (tag < 32 && u->pending >> tag & 1)
		tag++;
	if (tag == 32)
		return WAIT;
	u->pending |= 1u << tag;
	bus->invalidate(bus->opaque, requester, tag, pasid, POINTER(address), s, global);
	return DONE;
}

static enum step descriptor(struct small_iommu *u, const struct small_bus *bus,
			    const uint64_t words[4])
{
	uint32_t pasid = words[0] >> 32 & 0xfffff;

	switch ((words[0] & 15) | (words[0] >> 9 & 7) << 4) {
	case 1: case 2: case 4: case 6: case 7:
		/* Nothing is cached here. */
		return DONE;
	case 3:
		return device_tlb(u, bus, words[0] >> 32, SMALL_NO_PASID, words[1], words[1] & 1, false);
	case 8:
		return device_tlb(u, bus, words[0] >> 16, pasid, words[1], words[1] >> 11 & 1,
				  words[1] & 1);
	case 5:
		/* All before it must be complete. */
		if (u->pending)
			return WAIT;
		if (words[0] & 1 << 5)
			bus->store32(bus->opaque, words[1] & ~3ull, words[0] >> 32);
		if (words[0] & 1 << 4)
			u->registers[ICS / 4] |= 1;
		return DONE;
	case 9:
		bus->respond(bus->opaque, words[0] >> 16, words[0] & 1 << 4 ? pasid : SMALL_NO_PASID,
			     words[1] >> 3 & 0x1ff, words[0] >> 12 & 15);
		return DONE;
	default:
		return ERROR;
	}
}

static void process_queue(struct small_iommu *u, const struct small_bus *bus)
{
	uint64_t base = POINTER(get(u, IQA)), size = 4096ull << (get(u, IQA) & 7);

	while (u->registers[GSTS / 4] & QIE && !(u->registers[FSTS / 4] & IQE) &&
	       get(u, IQH) != get(u, IQT)) {
		uint64_t head = get(u, IQH), words[4];

		for (int n = 0; n < 4; n++)
			if (!bus->load(bus->opaque, base + head + n * 8, &words[n]))
				words[0] = 0;
		switch (descriptor(u, bus, words)) {
		case DONE:
			set(u, IQH, (head + 32) % size);
			break;
		case WAIT:
			return;
		case ERROR:
			u->registers[FSTS / 4] |= IQE;
		}
	}
}

void small_iommu_completed(struct small_iommu *u, const struct small_bus *bus, uint32_t itags)
{
	u->pending &= ~itags;
	process_queue(u, bus);
}

/* Registers. */

uint64_t small_iommu_read(struct small_iommu *u, uint16_t at, uint8_t size)
{
	if (at >= END - 4)
		return 0;
	return size == 8 ? get(u, at) : u->registers[at / 4];
}

static void write32(struct small_iommu *u, uint16_t at, uint32_t value)
{
	uint32_t *r = &u->registers[at / 4], *status = &u->registers[GSTS / 4];

	switch (at) {
	case VER: case CAP: case CAP + 4: case ECAP: case ECAP + 4: case GSTS: case IQH: case IQH + 4:
	case FRCD: case FRCD + 4: case FRCD + 8:
		break;
	case GCMD:
		*status = (*status & RTP) | (value & (TE | QIE)) | (value & RTP);
		break;
	case FSTS: case PRS: case ICS:
		/* Ones clear; PPF is what the record says. */
		*r &= ~value | (at == FSTS ? PPF : 0);
		break;
	case FRCD + 12:
		*r &= ~(value & MASKED);
		if (!(*r & MASKED))
			u->registers[FSTS / 4] &= ~PPF;
		break;
	default:
		*r = value;
	}
}

void small_iommu_write(struct small_iommu *u, const struct small_bus *bus, uint16_t at,
		       uint64_t value, uint8_t size)
{
	if (at >= END - 4)
		return;
	write32(u, at, (uint32_t)value);
	if (size == 8)
		write32(u, at + 4, (uint32_t)(value >> 32));
	if (at == IQT || at == GCMD || at == FSTS)
		process_queue(u, bus);
}
