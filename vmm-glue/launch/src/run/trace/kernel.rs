// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of a kernel's trace.

/// A line. Its time is the time stamp counter of its level until it is converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The task that ran.
    pub task: String,
    /// Its number.
    pub pid: u32,
    /// The processor.
    pub cpu: u32,
    /// When, in ticks.
    pub at: u64,
    /// Name of the event.
    pub event: String,
    /// Its text.
    pub text: String,
    /// What is known of it.
    pub detail: Detail,
}

/// Events that ways and clocks are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The kernel takes a page request from the queue of its unit.
    PageRequest(Request),
    /// The kernel answers a page request group.
    Response(Group),
    /// QEMU gives a page request to its guest's unit.
    Given {
        /// The request, with the index that the guest sees.
        request: Request,
        /// The index of the group in the host.
        host_index: u16,
    },
    /// The guest of a QEMU answers a page request group.
    Answered(Group),
    /// The counter of a virtual processor gets an offset to this one.
    Offset {
        /// Number of the processor.
        cpu: u32,
        /// The offset; it wraps around.
        offset: u64,
    },
    /// A program begins something.
    Begin(String),
    /// It ends.
    End(String),
    /// Events were lost here.
    Lost,
    /// Something else.
    Other,
}

/// What a page request group is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// PASID; none for requests without one.
    pub pasid: Option<u32>,
    /// Page request group index.
    pub index: u16,
}

/// What a page request is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// Its group.
    pub group: Group,
    /// The page.
    pub address: u64,
}

/// The event of a mark.
const MARK: &str = "tracing_mark_write";

impl Line {
    /// Reads `TASK-PID [CPU] FLAGS TIME: EVENT: TEXT`. None if it is no such line.
    pub fn parse(line: &str) -> Option<Self> {
        if line.starts_with("CPU:") && line.contains("LOST") {
            return Some(Self {
                task: String::new(),
                pid: 0,
                cpu: 0,
                at: 0,
                event: "lost".to_owned(),
                text: line.to_owned(),
                detail: Detail::Lost,
            });
        }
        // A task's name can contain anything; the processor's brackets are the last before the time.
        let (front, rest) = line.split_once(": ")?;
        let (event, text) = rest.split_once(": ")?;
        let (front, at) = front.trim_end().rsplit_once(' ')?;
        let (task, cpu) = front.rsplit_once('[')?;
        let (task, pid) = task.trim().rsplit_once('-')?;
        let text = text.trim();
        let detail = match event {
            "prq_report" => page_request(text).map(Detail::PageRequest),
            "qi_submit" => response(text).map(Detail::Response),
            "kvm_write_tsc_offset" => offset(text),
            MARK => mark(text),
            _ => None,
        };
        Some(Self {
            task: task.to_owned(),
            pid: pid.parse().ok()?,
            cpu: cpu.split_once(']')?.0.parse().ok()?,
            at: at.parse().ok()?,
            event: event.to_owned(),
            text: text.to_owned(),
            detail: detail.unwrap_or(Detail::Other),
        })
    }

    /// Whether events were lost here.
    pub fn is_lost(&self) -> bool {
        self.detail == Detail::Lost
    }
}

/// The value of `key=value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// A number in hexadecimal.
fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// `rid=0x8 addr=0x7fca3cc53 r---- pasid=0x1 index=0x0`: the address is the number of the page.
fn page_request(text: &str) -> Option<Request> {
    let number = |key| field(text, key).and_then(hex);
    // The kernel does not print whether there is a PASID; it answers requests without one itself.
    Some(Request {
        group: Group {
            pasid: Some(u32::try_from(number("pasid")?).ok()?),
            index: u16::try_from(number("index")?).ok()?,
        },
        address: number("addr")? << 12,
    })
}

/// `page_grp_resp dmar0: QW0 QW1 0x0 0x0`: a page group response descriptor (VT-d 6.5.2.11).
fn response(text: &str) -> Option<Group> {
    let mut words = text
        .strip_prefix("page_grp_resp ")?
        .split_whitespace()
        .skip(1);
    let (low, high) = (hex(words.next()?)?, hex(words.next()?)?);
    let pasid = (low >> 32) as u32 & 0xf_ffff;
    Some(Group {
        pasid: (low & 1 << 4 != 0).then_some(pasid),
        index: (high >> 3) as u16 & 0x1ff,
    })
}

/// `vcpu=0 prev=0 next=18446744044858162012`, perhaps with more.
fn offset(text: &str) -> Option<Detail> {
    Some(Detail::Offset {
        cpu: field(text, "vcpu")?.parse().ok()?,
        offset: field(text, "next")?.parse().ok()?,
    })
}

/// Marks of `svm-init`, `svmctl` and the plug-in.
fn mark(text: &str) -> Option<Detail> {
    let (what, rest) = text.strip_prefix("svm ")?.split_once(' ')?;
    let group = || {
        let pasid = match field(rest, "pasid")? {
            "none" => None,
            number => Some(u32::try_from(hex(number)?).ok()?),
        };
        let index = u16::try_from(hex(field(rest, "index")?)?).ok()?;
        Some(Group { pasid, index })
    };
    Some(match what {
        "begin" => Detail::Begin(rest.to_owned()),
        "end" => Detail::End(rest.to_owned()),
        "page_request" => Detail::Given {
            request: Request {
                group: group()?,
                address: hex(field(rest, "address")?)?,
            },
            host_index: u16::try_from(hex(field(rest, "host_index")?)?).ok()?,
        },
        "prg_response" => Detail::Answered(group()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(line: &str) -> Detail {
        Line::parse(line).unwrap().detail
    }

    const GROUP: Group = Group {
        pasid: Some(8),
        index: 0x42,
    };

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line = Line::parse(
            " irq/24-dmar0-pr-40      [001] ..... 104247837505: prq_report: dmar0/0000:00:01.0 \
             seq# 0: rid=0x8 addr=0x7fca3cc53 r---- pasid=0x8 index=0x42",
        )
        .unwrap();
        assert_eq!(
            (line.task.as_str(), line.pid, line.cpu, line.at),
            ("irq/24-dmar0-pr", 40, 1, 104_247_837_505)
        );
        let request = Request {
            group: GROUP,
            address: 0x7fca_3cc5_3000,
        };
        assert_eq!(line.detail, Detail::PageRequest(request));
        let line = "       CPU 0/KVM-59      [001] d..1. 386339281542: qi_submit: page_grp_resp \
                    dmar0: 0x800080019 0x210 0x0 0x0";
        assert_eq!(detail(line), Detail::Response(GROUP));
        let line = "       CPU 0/KVM-59 [000] d..1.  28852317051: kvm_write_tsc_offset: vcpu=1 \
                    prev=0 next=18446744044858162012";
        let offset = 18_446_744_044_858_162_012;
        assert_eq!(detail(line), Detail::Offset { cpu: 1, offset });
        assert_eq!(
            Line::parse("CPU:1 [LOST 12 EVENTS]").unwrap().detail,
            Detail::Lost
        );
        assert_eq!(Line::parse("nothing"), None);
    }

    #[test]
    fn marks_are_read() {
        let marked = |mark: &str| {
            detail(&format!(
                "  qemu-system-x86-7 [000] ...1. 5: tracing_mark_write: {mark}"
            ))
        };
        let request = Request {
            group: GROUP,
            address: 0x7000,
        };
        assert_eq!(
            marked("svm page_request pasid=0x8 address=0x7000 host_index=0x3 index=0x42"),
            Detail::Given {
                request,
                host_index: 3
            }
        );
        assert_eq!(
            marked("svm prg_response pasid=0x8 index=0x42 code=success"),
            Detail::Answered(GROUP)
        );
        let name = "munmap, then: access fails";
        assert_eq!(
            marked(&format!("svm begin {name}")),
            Detail::Begin(name.into())
        );
        assert_eq!(marked(&format!("svm end {name}")), Detail::End(name.into()));
        assert_eq!(marked("of someone else"), Detail::Other);
    }
}
