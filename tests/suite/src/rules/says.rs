// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each rule says, for readers of results: in sentences, with what follows from it.

/// What a rule says; empty for a number that no rule has.
pub fn says(number: u8) -> &'static str {
    let at = usize::from(number).checked_sub(1);
    at.and_then(|at| SAYS.get(at)).copied().unwrap_or_default()
}

/// By number, beginning with rule 1.
const SAYS: [&str; 81] = [
    // 1
    "The function lists the extended capabilities of ATS, of its page request interface and \
     of PASID, each with the version that system software knows. Software that misses one \
     of them never switches the feature on.",
    // 2
    "The field Invalidate Queue Depth says how many invalidation requests the function \
     takes at once; the value 0 stands for 32. Software that trusts the field may send that \
     many.",
    // 3
    "The bit Page Aligned Request is set, and each translation request of the device names \
     an address that is a multiple of 4 KiB. Linux leaves ATS off without the bit.",
    // 4
    "Software sets the Smallest Translation Unit while ATS is off. From then on the device \
     neither asks for a translation of less than that nor keeps one.",
    // 5
    "While the ATS enable bit or the bus master bit is clear, the function sends neither \
     translation requests nor translated requests.",
    // 6
    "PASID Enable may only change while ATS is off: a change in between would give the \
     entries of the cache another meaning.",
    // 7
    "PASIDs have the width that the capability reports, and all of their bits count: two \
     PASIDs that differ in a high bit are different address spaces. What software has not \
     enabled, like requests in privileged mode or for execution, is not asked for.",
    // 8
    "Software enables PASID only where every port above the function passes PASID prefixes \
     on and Access Control Services redirect requests to the root complex. Otherwise a \
     request could reach another function by its untranslated address.",
    // 9
    "Page requests may be enabled only when Stopped says that none of an earlier time is \
     outstanding. Otherwise an old answer could be taken for a new one.",
    // 10
    "Enabling ATS starts with an empty address translation cache: what was translated \
     before may have changed in the meantime, and no invalidation was sent to a function \
     whose ATS was off.",
    // 11
    "The field AT says of each memory request whether its address is untranslated, \
     translated, or a request for a translation. An access by a translation that the device \
     has says “translated”; otherwise the unit would translate it a second time.",
    // 12
    "A translation request is a read of eight bytes for each translation that is wanted, \
     one at least and no more than a read may have.",
    // 13
    "Unsupported Request as the answer to a translation request says that the function may \
     not use ATS, as software wrote it into the context entry (DTE, PASIDE). The device \
     then stops asking, and does not take the page for absent.",
    // 14
    "A completion may have several translations. They are of addresses that follow each \
     other, and each is used for its own part of the range alone.",
    // 15
    "The position of the lowest zero bit of a translated address gives the size of the \
     translation: 4 KiB, 8 KiB, and so on by powers of two. A device that reads it wrongly \
     reaches memory next to what it may reach.",
    // 16
    "An answer that permits neither read nor write has a size as well, so that the device \
     knows for which range it holds.",
    // 17
    "An answer that permits nothing is not used for an access and not kept as a permission. \
     The device asks again after a page request was answered with success.",
    // 18
    "A page that may only be read is answered R=1, W=0. The bit No Write of a request says \
     that the device does not mean to write, so the answer must not be used for writes.",
    // 19
    "The permission to execute is granted only to a request with a PASID that asks for it, \
     and never without the permission to read.",
    // 20
    "Permissions are those of the mode, user or privileged, in which the request was made. \
     Nothing follows from them for the other mode.",
    // 21
    "A translation that was asked for with a PASID serves this PASID alone. The bit Global \
     would allow others to share it; VT-d never sets it.",
    // 22
    "The bit U says that a range may only be reached with untranslated requests, as some \
     devices are. Ordinary memory does not have it.",
    // 23
    "A translation request that is answered with success leaves no fault record, even if it \
     permits nothing: an absent page is a normal case, for which the device has page \
     requests. Unsupported Request and Completer Abort leave one.",
    // 24
    "Addresses 0xfee00000 to 0xfeefffff are interrupts to the processors. Requests without \
     PASID may not be translated there, and neither may the output of a translation lie \
     there. With a PASID the range is an ordinary part of the process's address space.",
    // 25
    "A PASID table entry whose SRE is clear permits no requests in privileged mode. A \
     translation request in that mode is answered with success, Priv=1 and no permission, \
     and leaves no fault record.",
    // 26
    "The unit sets the bit Accessed in an entry of a page table when it hands out a \
     translation through it, and Dirty when that translation permits writing. System \
     software relies on both: a page without Dirty is dropped from memory without being \
     written back.",
    // 27
    "Addresses whose high bits are not copies of the highest bit that is translated belong \
     to no process. They are granted nothing, whatever the request.",
    // 28
    "A translation request that is made after a change of the page tables, and after the \
     invalidation of the unit's own cache (IOTLB), is answered by the new tables. Software \
     therefore invalidates the IOTLB before the device's cache.",
    // 29
    "A translated access lies in one entry of the device's cache and has the permission of \
     that entry. An access across the border is split, and each part has its own \
     translation.",
    // 30
    "The address of a translated request is already that of memory, so it carries no PASID. \
     The unit blocks it, with a fault record, from a function to which software has not \
     given ATS.",
    // 31
    "A translated request whose address lies in the interrupt address range is blocked: a \
     device could otherwise send any interrupt past interrupt remapping.",
    // 32
    "Requests that are not translated are checked for permission, mode and PASID. What is \
     refused leaves a fault record with reason, address, PASID and kind of request, so that \
     system software can find the culprit.",
    // 33
    "A read of length zero only asks whether a page can be reached. It brings no data, and \
     it needs the permission to read or to write.",
    // 34
    "Whatever the alignment and the length of a transfer, its bytes arrive exactly, with \
     none around them touched. Transfers may cross pages and the border of 4 GiB.",
    // 35
    "An atomic operation reads and writes, so it needs the permission to write.",
    // 36
    "An invalidation removes the entries of its range and of its PASID, in every size that \
     the range field can express. Entries of other PASIDs may stay.",
    // 37
    "An entry of the cache that overlaps an invalidated range by as little as one page is \
     removed, or what is left of it no longer reaches that page. An entry of 2 MiB does not \
     survive the invalidation of 4 KiB in it.",
    // 38
    "The device completes an invalidation only when each access that used the range has \
     ended, and has written what it had to write. Software gives the page to another owner \
     as soon as the completion is there.",
    // 39
    "An invalidation can overtake the answer to a translation request. That answer may be \
     of the time before, so the device neither uses nor keeps it, and asks again.",
    // 40
    "When several invalidations end together, each has its completion. Completions may \
     share a message that names the tags of all.",
    // 41
    "A completion bears the tag (ITag) of the request that it answers: by it the unit knows \
     which wait is over.",
    // 42
    "The device completes invalidations even while it waits for a page, for a translation \
     or for memory. Otherwise system software, which must invalidate before it can answer \
     the page request, waits for ever.",
    // 43
    "An invalidation that arrives while ATS is off is completed as well: software does not \
     have to know in which order its messages arrive.",
    // 44
    "A unit does not wait for ever for a completion: the time-out sets ITE and names the \
     device, the queue stops, and goes on when software clears the error. Otherwise a \
     device that was pulled out takes the whole system with it.",
    // 45
    "An invalidation with Global Invalidate is for the entries of all PASIDs in its range.",
    // 46
    "A function level reset leaves no entry in the address translation cache.",
    // 47
    "When an invalidation is completed, no access reaches the page that was there before. \
     The suite moves the page away, writes a canary into the old frame, lets the device \
     write, and looks at the canary.",
    // 48
    "The same holds for the last of many invalidations as for the first, with work in \
     between.",
    // 49
    "The index of a page request group (PRGI) is given to another group only after the \
     response: by the index the device knows which group is answered.",
    // 50
    "A page request asks for read, for write or for both. One that asks for nothing and \
     says Last is a stop marker: it says that no further page request of its PASID follows, \
     and has no response.",
    // 51
    "A group of page requests may have several pages. Only its last request says Last, and \
     the one response comes after it.",
    // 52
    "A response says Success, Invalid Request or Response Failure, by the codes 0, 1 and \
     15. The device acts on the code, and takes any other for a failure.",
    // 53
    "Success says that the page was there, not that it still is. The device asks for the \
     translation again, and gives up after a bounded number of rounds.",
    // 54
    "Invalid Request says that there is no such page for this process. The work that needed \
     it ends with an error, and all other work goes on.",
    // 55
    "After Response Failure the device sets RF and sends no further page requests, until \
     software has disabled and enabled them.",
    // 56
    "A response to a group that is not outstanding is noted in the bit UPRGI, and otherwise \
     ignored.",
    // 57
    "The bit PRG Response PASID Required says that responses carry the PASID of their \
     group. A response under another PASID is none for this group.",
    // 58
    "Software allocates a number of page requests to the function. No more are outstanding \
     at a time.",
    // 59
    "When software disables page requests, the device sends no new ones. It sets Stopped \
     when the last outstanding one is answered, not earlier.",
    // 60
    "Virtual functions have no page request interface of their own: they share the one of \
     their physical function, and the pages that it may have outstanding.",
    // 61
    "A full page request queue drops requests. The unit answers the group with success, the \
     device asks for the translation again and then for the page, so that nothing is lost. \
     Where software has disabled page requests of a function, the answer is Invalid \
     Request.",
    // 62
    "A page request that no process can have caused, as by its address or its mode, is \
     answered Invalid Request by system software. The device does not send such a request.",
    // 63
    "The device can have several page request groups outstanding, and takes their responses \
     in any order.",
    // 64
    "While a process ends, its absent pages are not brought in any more. System software \
     answers their page requests, and the device's work ends.",
    // 65
    "When a PASID has been taken from a device, no page request of it is left in a queue \
     and none is answered later: the next process with this PASID would get the answer.",
    // 66
    "When a context has stopped, nothing of its PASID is left: neither entries of the \
     cache, nor page requests, nor accesses.",
    // 67
    "A function level reset ends work in any state, with translations, pages or accesses \
     outstanding, and leaves contexts and capabilities as after power-up.",
    // 68
    "When software has cleared the bus master bit, the function sends no request to memory \
     and no interrupt. Work that had begun does not go on behind software's back.",
    // 69
    "When software has disabled ATS, the function sends neither translation requests nor \
     translated requests, even for work that has its translations.",
    // 70
    "A context belongs to a PASID, so none starts while PASID is disabled.",
    // 71
    "A function in D3hot sends nothing. However the user of a device ends, by a signal, by \
     an unbound driver or by a new program, nothing is left and nothing breaks.",
    // 72
    "Each piece of work that asks for an interrupt at its end has one; none is lost while \
     the vector is masked or others arrive.",
    // 73
    "The device asks in privileged mode for nothing that a process gave it: it would reach \
     the memory of the kernel.",
    // 74
    "A descriptor with reserved bits, an unknown type or a wrong field stops the \
     invalidation queue: IQE is set, the head stays at the descriptor, and IQERCD names the \
     reason. When software has cleared the error, the queue goes on.",
    // 75
    "After an invalidation of the unit's caches, of any granularity, nothing of what it \
     covers is used any more. The suite changes a table behind the unit's back, sees the \
     old answer, invalidates and has to see the new one.",
    // 76
    "The page request queue wraps at each size that software can choose. Its descriptors \
     have all that the device has said; head, tail and the bits of overflow and of pending \
     requests are as software left them; the event is masked after power-up.",
    // 77
    "Faults fill the fault records one after the other. When all are in use, PFO is set and \
     further faults are dropped. The bit FPD of a context entry or PASID table entry \
     suppresses records.",
    // 78
    "Each field of context entries and PASID table entries has the effect that the \
     specification gives it, and an entry that software has taken away, with its \
     invalidations, no longer has any. A unit that ignores the present bit leaves the \
     memory of an ended process open to the device.",
    // 79
    "The unit translates pages of exactly the sizes, and by exactly the number of levels, \
     that its capabilities and the entry name. Others are refused.",
    // 80
    "The capability registers report what the unit does, no more and no less: system \
     software decides by them what it leaves to the unit and what it does itself.",
    // 81
    "A reset leaves the unit without cached translations, and the device without entries.",
];
