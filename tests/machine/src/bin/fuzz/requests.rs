// SPDX-License-Identifier: MIT OR Apache-2.0
//! What functions send upstream.

use crate::world::{Statistics, World};
use pcie_ats::{
    InvalidateCompletion, MemoryAddressType, MemoryRequest, PageRequest, RootPort, Translation,
    TranslationRequest,
};
use vm_memory::{GuestAddress, Iommu, Permissions};
use vtd::spec::interrupt::Message;
use vtd::{Access, Request};

impl World {
    /// A request of any kind.
    pub fn request(&mut self) -> Request {
        Request {
            requester: self.requester(),
            pasid: self.pasid(),
            address: self.address(),
            access: self.draw.one(&[
                Access::Read,
                Access::Write,
                Access::Atomic,
                Access::ZeroLengthRead,
            ]),
            execute: self.draw.once_in(4),
            privileged: self.draw.once_in(4),
        }
    }

    pub fn translate(&mut self, statistics: &mut Statistics) {
        let request = self.request();
        let result = self
            .machine
            .with_unit(0, |unit, ram, fx| unit.translate(ram, &request, fx));
        self.tell(|| format!("{request:x?}: {result:x?}"));
        match result {
            Ok(translated) => {
                let page = translated.page;
                assert!(page.contains(request.address), "{request:x?}: {page:x?}");
                statistics.translated += 1;
            }
            Err(_) => statistics.blocked += 1,
        }
    }

    /// A translation request of any kind.
    pub fn translation_request(&mut self) -> TranslationRequest {
        TranslationRequest {
            address: self.address() & !0xfff,
            pages: self.draw.one(&[1, 2, 16]),
            pasid: self.pasid(),
            privileged: self.draw.once_in(4),
            execute: self.draw.once_in(4),
            no_write: self.draw.once_in(2),
        }
    }

    pub fn ask(&mut self, statistics: &mut Statistics) {
        let request = self.translation_request();
        let mut answers = [Translation::from_word(0); 16];
        let function = self.function();
        let result = self
            .machine
            .port(function)
            .translate(&request, &mut answers);
        self.tell(|| format!("{request:x?}: {result:x?}"));
        if let Ok(count) = result {
            statistics.ats_answers += 1;
            assert!(
                count >= 1 && count <= usize::from(request.pages),
                "{count} answers"
            );
            let size = answers[0].range.shift();
            assert!(answers[..count].iter().all(|a| a.range.shift() == size));
            for answer in &answers[..count] {
                assert!(!(request.no_write && answer.write && self.has_no_write()));
                assert!(!answer.execute || answer.read, "{answer:?}");
            }
        }
    }

    pub fn has_no_write(&self) -> bool {
        self.machine
            .with_unit(0, |unit, _, _| unit.capabilities().ecap().nwfs())
    }

    pub fn page_request(&mut self) {
        let request = PageRequest {
            address: self.address() & !0xfff,
            pasid: self.pasid(),
            read: !self.draw.once_in(4),
            write: self.draw.once_in(2),
            execute: self.draw.once_in(4),
            privileged: self.draw.once_in(4),
            prgi: self.prgi(),
            last: self.draw.once_in(2),
        };
        self.tell(|| format!("{request:x?}"));
        let function = self.function();
        self.machine.port(function).page_request(&request);
    }

    /// A raw access. What is written may stand in a table.
    pub fn access(&mut self, statistics: &mut Statistics) {
        let function = self.function();
        let translated = self.draw.once_in(2);
        let request = MemoryRequest {
            address: match translated {
                true if self.tame => self.frame() + self.draw.below(512) * 8,
                _ => self.tame_address() & !7,
            },
            address_type: if translated {
                MemoryAddressType::Translated
            } else {
                MemoryAddressType::Untranslated
            },
            pasid: self.pasid().filter(|_| !translated || self.draw.once_in(8)),
            privileged: self.draw.once_in(4),
        };
        let data = self.entry();
        let port = self.machine.port(function);
        let result = match self.draw.below(4) {
            0 => port.write(&request, &data.to_le_bytes()),
            1 if !self.tame => port.fetch_add(&request, data).map(drop),
            2 => port.read(&request, &mut [0; 0x2345]),
            _ => port.read(&request, &mut [0; 8]),
        };
        self.tell(|| format!("{request:x?}: {result:x?}"));
        statistics.accesses += u64::from(result.is_ok());
    }

    pub fn interrupt(&mut self) {
        let message = Message {
            address: 0xfee0_0000 | self.draw.below(1 << 20) & !3,
            data: self.draw.word() as u32 & self.draw.one(&[0xff, 0xffff_ffff]),
        };
        let requester = (!self.draw.once_in(4)).then(|| self.requester());
        let _ = self.machine.with_unit(0, |unit, ram, fx| {
            unit.remap_interrupt(ram, requester, message, fx)
        });
        let function = self.function();
        let vector = self.draw.below(8) as u16;
        self.tell(|| format!("interrupt {message:x?}, vector {vector}"));
        self.machine.port(function).interrupt(vector);
    }

    pub fn complete(&mut self) {
        let completion = InvalidateCompletion {
            itag_vector: 1 << self.draw.below(32) | self.draw.one(&[0, 0, 0, u32::MAX]),
            completion_count: self.draw.one(&[1, 1, 2, 8]),
        };
        let function = self.function();
        self.tell(|| format!("{completion:x?}"));
        self.machine
            .port(function)
            .invalidate_completion(&completion);
    }

    pub fn shadow(&mut self) {
        let access = self.draw.one(&[
            Permissions::Read,
            Permissions::Write,
            Permissions::ReadWrite,
        ]);
        let length = self.draw.one(&[0, 1, 8, 4096, 0x3000]);
        let address = GuestAddress(self.address());
        if let Ok(pieces) = self.remapping.translate(address, length, access) {
            let total: usize = pieces.map(|piece| piece.length).sum();
            assert_eq!(total, length);
        }
    }
}
