/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A small VT-d remapping unit: scalable mode, a first stage of four levels, queued invalidation,
 * page requests. It keeps no translations. It knows nothing of the suite that tests it. */
#ifndef SMALL_IOMMU_H
#define SMALL_IOMMU_H

#include <stdbool.h>
#include <stdint.h>

/* No PASID. */
#define SMALL_NO_PASID UINT32_MAX

/* What is around the unit. */
struct small_bus {
	void *opaque;
	/* Memory, 8 and 4 bytes at aligned addresses; false where there is none. */
	bool (*load)(void *opaque, uint64_t address, uint64_t *value);
	bool (*store)(void *opaque, uint64_t address, uint64_t value);
	bool (*store32)(void *opaque, uint64_t address, uint32_t value);
	/* An invalidation request to a function's ATC: address and S as PCIe 10.3.1 has them. */
	void (*invalidate)(void *opaque, uint16_t requester, uint8_t itag, uint32_t pasid,
			   uint64_t address, bool s, bool global);
	/* A page request group response. */
	void (*respond)(void *opaque, uint16_t requester, uint32_t pasid, uint16_t prgi,
			uint8_t code);
};

/* What a request is. */
enum small_kind { SMALL_READ, SMALL_ZERO_LENGTH_READ, SMALL_WRITE, SMALL_ATOMIC };
enum small_address_type { SMALL_UNTRANSLATED, SMALL_TRANSLATION_REQUEST, SMALL_TRANSLATED };

struct small_request {
	uint64_t address;
	uint32_t pasid;
	uint16_t requester;
	enum small_address_type type;
	enum small_kind kind;
	bool privileged;
};

/* How a translation request is completed. */
enum small_completion { SMALL_SUCCESS, SMALL_UNSUPPORTED_REQUEST, SMALL_COMPLETER_ABORT };

struct small_translation {
	uint64_t address;
	uint8_t size_log2;
	bool read, write, privileged;
};

struct small_page_request {
	uint64_t address;
	uint32_t pasid;
	uint16_t requester, prgi;
	bool read, write, execute, privileged, last;
};

struct small_iommu;

/* NULL if there is no memory for it. */
struct small_iommu *small_iommu_new(bool one_gib_pages);
void small_iommu_free(struct small_iommu *iommu);
void small_iommu_reset(struct small_iommu *iommu);

uint64_t small_iommu_read(struct small_iommu *iommu, uint16_t offset, uint8_t size);
void small_iommu_write(struct small_iommu *iommu, const struct small_bus *bus, uint16_t offset,
		       uint64_t value, uint8_t size);

/* A memory request: where it goes, or false if it is blocked. */
bool small_iommu_access(struct small_iommu *iommu, const struct small_bus *bus,
			const struct small_request *request, uint64_t *address);
/* A translation request for some pages. The kind is SMALL_WRITE if permission to write is asked for,
 * too. Fills as many translations as it returns in count, 1 to pages, that follow each other. */
enum small_completion small_iommu_translate(struct small_iommu *iommu, const struct small_bus *bus,
					    const struct small_request *request, unsigned pages,
					    struct small_translation *answer, unsigned *count);
void small_iommu_page_request(struct small_iommu *iommu, const struct small_bus *bus,
			      const struct small_page_request *request);
/* Functions have completed invalidation requests of these tags. */
void small_iommu_completed(struct small_iommu *iommu, const struct small_bus *bus, uint32_t itags);

#endif
